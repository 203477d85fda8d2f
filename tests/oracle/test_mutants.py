"""Every deliberate defect shows, as the invariant it says it breaks; and without it nothing does.

The runs are real ones of the host, under all schedules with one switch of threads, or, where that
is not enough, a number of random ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from vkemu.oracle import Violation

from tests.oracle import scenarios
from tests.oracle.hunt import Scenario, hunt, hunt_seeds
from vkhost.mutants import DEADLOCK_OR_PANIC, MUTANTS, known

STREAM = {"shootdown": "stream"}  # with a rendezvous there is no moment for them
ONE_SWITCH: list[tuple[str, Scenario, dict[str, Any]]] = [
    ("inval-without-ilock", scenarios.invalidate, {}),
    ("ilock-released-before-enter", scenarios.invalidate, {}),
    ("ilock-kept-over-retry", scenarios.invalidate, {"cold": True}),
    ("ilock-waiting-in-own", scenarios.ranges, {}),
    ("ilock-test-before-unlink", scenarios.ranges, {}),
    ("ilock-wake-one", scenarios.ranges, {}),
    ("vpte-am-plain-store", scenarios.unmap, {}),
    ("walk-without-m", scenarios.rights, {}),
    ("ro-downgrade-skipped", scenarios.rights, {}),
    ("nx-ignored", scenarios.no_execute, {}),
    ("linear-shortcut", scenarios.invalidate, {}),
    ("setmap-shared-lock", scenarios.setmap, {}),
    ("setmap-without-remove", scenarios.setmap, {}),
    ("inval-first-page-only", scenarios.unmap, {}),
    ("munmap-entries-first", scenarios.munmap, {}),
    ("remove-without-shootdown", scenarios.shootdown, {}),
    ("inval-local-only", scenarios.shootdown, STREAM),
    ("inval-no-wait", scenarios.shootdown, STREAM),
    ("inval-without-excl", scenarios.switching, {"outside": True, **STREAM}),
    ("lazy-tlb", scenarios.switching, {}),
    ("swtch-keeps-cr3", scenarios.switching, {"idle": True}),
    ("pte-load-then-store", scenarios.evict, {"writer": True, **STREAM}),
    ("no-interlock-count", scenarios.evict, {}),
    ("enter-without-mapped", scenarios.rights, {}),
    ("removed-pte-ignores-multi", scenarios.evict, {}),
    ("remove-drops-modified", scenarios.evict, {}),
    ("pv-entry-forgotten", scenarios.evict, {"policy": "pv_entry"}),
    ("cache-without-protect", scenarios.evict, {}),
    ("cache-without-recheck", scenarios.evict, {}),
    ("flush-without-soft-busy", scenarios.evict, {"flush": True}),
    ("clean-without-write", scenarios.evict, {}),
    ("pageout-locks-map", scenarios.evict, {}),
    ("notifier-unchecked", scenarios.invalidate, {"policy": "notifier", "interlock": False}),
    ("shadow-dmap-unprotected", scenarios.unmap, {"policy": "shadow", "inval": False}),
    ("shadow-derived-kept", scenarios.unmap, {"policy": "shadow", "inval": False}),
    ("shadow-edit-uncounted", scenarios.unmap, {"policy": "shadow", "inval": False}),
]
SEEDS: list[tuple[str, Scenario, dict[str, Any]]] = [
    ("ilock-unlock-before-enqueue", scenarios.ranges, {}),
    ("ilock-no-rescan", scenarios.ranges, {}),
    ("broadcast-skipped", scenarios.paging, {"policy": "broadcast"}),
    ("vpte-list-forgotten", scenarios.paging, {"policy": "vpte_list"}),
    ("bloom-not-inserted", scenarios.paging, {"policy": "bloom"}),
]
SOUND = ("pv_entry", "broadcast", "vpte_list", "bloom", "shadow", "hybrid", "notifier", "nested")
# Shown elsewhere, with the reason.
ELSEWHERE = {
    "flush-without-protect": "liveness: the pages are dirty again at once",
    "wired-full-protection": "needs the wired policy",
    "wire-never-dropped": "accounting: the page is never reclaimed",
    "copied-page-kept-mapped": "what a guest reads after the host's write: litmus W26",
    "shadow-emulate-unchecked": "a process that is mapped its own page table: test_rmap_shadow.py",
    "shadow-withdrawn-after-store": "what another CPU of the guest does meanwhile: litmus W03",
    "notifier-write-back-unchecked": "data of the guest: litmus W16",
    "nested-reclaim-without-flush": "in TLBs only: litmus W06",
    "nested-protection-ignored": "in TLBs only: litmus W12",
    "nested-table-freed-unflushed": "in the middle of a walk: litmus kvm-zap-page",
    "nested-walk-uninterrupted": "in the middle of a walk: litmus W01",
    "protect-drops-modified": "a store while a page is made read-only: vkemu mutants",
    "first-pte-only": "no invariant, but an answer: vkemu mutants",
    "swap-full-is-written": "needs swap that is full: scenario tight, vkemu mutants",
    "run-ref-kept": "test_calls.py",
    "destroy-ignores-refs": "test_calls.py",
    "ve-cache-without-deleted-test": "test_calls.py",
}
BASES = [
    (scenario, settings)
    for i, (_, scenario, settings) in enumerate(ONE_SWITCH)
    if (scenario, settings) not in [case[1:] for case in ONE_SWITCH[:i]]
]
HOST = Path(__file__).parents[2] / "vkhost"


def shows(failure: BaseException | None, name: str) -> bool:
    invariants = MUTANTS[name].invariants
    if isinstance(failure, Violation):
        return failure.invariant in invariants
    return failure is not None and DEADLOCK_OR_PANIC in invariants


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scenario", "settings"), ONE_SWITCH)
def test_a_mutant_shows(name: str, scenario: Scenario, settings: dict[str, Any]) -> None:
    failure = hunt(scenario, mutants=(name,), **settings)

    assert shows(failure, name), failure


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scenario", "settings"), SEEDS)
def test_a_mutant_shows_at_random(name: str, scenario: Scenario, settings: dict[str, Any]) -> None:
    failure = hunt_seeds(scenario, 100, mutants=(name,), **settings)

    assert shows(failure, name), failure


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "settings"), BASES)
def test_without_a_mutant_nothing_shows(scenario: Scenario, settings: dict[str, Any]) -> None:
    assert hunt(scenario, stride=3, **settings) is None


@pytest.mark.slow
@pytest.mark.parametrize("policy", SOUND)
def test_a_policy_that_finds_every_pte(policy: str) -> None:
    assert hunt_seeds(scenarios.paging, 4, policy=policy) is None


@pytest.mark.slow
@pytest.mark.parametrize("check", ["free-frame", "freed-access", "mapped-flag", "dirty"])
def test_a_policy_that_does_not(check: str) -> None:
    """W06: the extent scan of 2019-2021, as each check by itself sees it."""
    failure = hunt_seeds(
        scenarios.paging, 30, panics=False, policy="extent_scan", checks=(check,), rounds=40
    )

    assert isinstance(failure, Violation), failure
    assert failure.check == check


def hooks() -> set[str]:
    """The names that the host tests for."""
    pattern = re.compile(r'"([a-z0-9-]+)" (?:not )?in [\w.]*mutants')
    return {name for file in HOST.rglob("*.py") for name in pattern.findall(file.read_text())}


def test_the_registry_is_what_the_code_has() -> None:
    assert hooks() == set(MUTANTS)


def test_no_mutant_goes_untested() -> None:
    tested = {name for name, _, _ in ONE_SWITCH + SEEDS}

    assert tested | set(ELSEWHERE) == set(MUTANTS)
    assert not tested & set(ELSEWHERE)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_says_where_it_is(name: str) -> None:
    module, _, function = MUTANTS[name].where.partition(":")
    (file,) = HOST.rglob(f"{module.rpartition('.')[2]}.py")
    text = file.read_text()

    assert f'"{name}"' in text
    assert f"def {function.rpartition('.')[2]}(" in text


def test_every_invariant_has_a_mutant() -> None:
    broken = {invariant for mutant in MUTANTS.values() for invariant in mutant.invariants}

    assert {1, 2, 3, 4, 5, 6, 7, 8, 10} <= broken


def test_known() -> None:
    assert known("lazy-tlb")
    assert not known("no-such-mutant")

"""Injected faults: each ends as docs/scenarios.md says, and a kernel that takes one wrongly does
not pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.assemble import assemble
from vkemu.launch.draw import drawn
from vkemu.launch.outcome import Outcome, Recorder, Stalled, conduct
from vkemu.launch.scenario import Scenario, read
from vkemu.oracle import Violation
from vkemu.report.trial import attempt
from vkemu.verdict import UsageError

from vkhost.fault_injection import FAULT_KINDS
from vkhost.vm import vm_pager

PAGE = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text("utf-8")
DOCUMENT = {
    "policy": "pv_entry",
    "guest": [
        {"name": "one", "memory": "48p", "workloads": ["touch:pages=6,rounds=2"]},
        {"name": "two", "memory": "32p", "workloads": ["touch:pages=6,rounds=2"]},
    ],
    "native": [{"name": "editor", "memory": "50p", "rounds": 2}],
}


def scenario(seed: int, pages: int = 110, **fault: object) -> Scenario:
    host = {"pages": pages, "swap_pages": 80, "shootdown": "stream"}
    return drawn(read({**DOCUMENT, "host": host, "fault": [fault]}, Path("faults.toml")), seed)


class Run:
    """One execution, the faults that came, and who was left alive."""

    def __init__(self, seed: int, pages: int = 110, **fault: object) -> None:
        self.injected: list[tuple[str, str]] = []
        chosen = scenario(seed, pages, **fault)
        machine = assemble(chosen, self)
        self.outcome: Outcome = conduct(
            machine.execution, Recorder(seeded(seed)), chosen.max_steps, machine.finish
        )
        self.killed = [
            proc.name for proc in machine.kernel.procs if proc.killed.value
        ]  # the others have ended by themselves

    def emit(self, name: str, *fields: str) -> None:
        if name == "fault.inject":
            self.injected.append((fields[0], fields[1]))


OUTCOMES: list[tuple[dict[str, Any], list[str]]] = [
    ({"kind": "swap-read", "at": 1}, []),
    ({"kind": "swap-write", "at": 1, "times": 3}, []),
    ({"kind": "image-read", "at": 9, "guest": "one"}, ["one"]),
    ({"kind": "image-write", "at": 1, "guest": "one"}, ["one"]),
    ({"kind": "image-truncated", "guest": "two"}, ["two"]),
    ({"kind": "slow-page-in", "ms": 50}, []),
    ({"kind": "late-ipi", "chance": 0.3}, []),
    ({"kind": "late-reply", "chance": 0.2}, []),
    ({"kind": "stall", "at": 10}, []),
    ({"kind": "kill", "at": 40, "guest": "one"}, ["one"]),
    ({"kind": "paused-cpu", "cpu": 0, "at": 2}, []),
]


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "killed"), OUTCOMES, ids=str)
def test_a_fault_ends_as_it_should(fault: dict[str, Any], killed: list[str]) -> None:
    run = Run(1, **fault)

    assert run.outcome.verdict == "pass", run.outcome.error
    assert {kind for kind, _ in run.injected} == {fault["kind"]}
    assert run.killed == killed


def test_every_kind_has_its_outcome_and_its_row() -> None:
    section = PAGE.partition("## Faults")[2].partition("\n## ")[0]

    assert {fault["kind"] for fault, _ in OUTCOMES} == set(FAULT_KINDS)
    assert re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE) == list(FAULT_KINDS)


@pytest.mark.slow
def test_a_disk_that_takes_nothing_more_is_no_verdict() -> None:
    run = Run(1, pages=80, kind="swap-write")

    assert run.outcome.verdict == "unknown"
    assert isinstance(run.outcome.error, Stalled)


@pytest.mark.slow
def test_a_page_that_was_not_written_and_counts_as_clean_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vm_pager, "VM_PAGER_ERROR", vm_pager.VM_PAGER_BAD)

    outcome = attempt(scenario(1, 80, kind="swap-write", at=1, times=3), seeded(1))

    assert isinstance(outcome.error, Violation)


@pytest.mark.slow
def test_the_same_seed_has_the_same_faults() -> None:
    first, again = (Run(3, kind="late-reply", chance=0.2) for _ in range(2))

    assert first.injected == again.injected
    assert first.outcome.choices == again.outcome.choices


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "late-ipi"}, 'kind: late-ipi, expected with host.shootdown = "stream"'),
        ({"kind": "kill", "guest": "three"}, "guest: unknown 'three', expected one of one, two"),
        ({"kind": "image-read", "guest": "editor"}, "guest: unknown 'editor'"),
        ({"kind": "swap-read", "guest": "one"}, "guest: 'one', expected none for swap-read"),
        ({"kind": "kill", "cpu": 0}, "cpu: 0, expected none for kill"),
        ({"kind": "paused-cpu", "cpu": 99}, "cpu: 99, expected 0 to 4 (host.cpus)"),
        ({"kind": "kill", "chance": 0.0}, "chance"),
    ],
)
def test_a_fault_that_cannot_come_is_refused(fault: dict[str, object], said: str) -> None:
    document = {**DOCUMENT, "host": {"pages": 80}, "fault": [fault]}

    with pytest.raises(UsageError) as caught:
        read(document, Path("faults.toml"))

    assert "faults.toml:fault[0]" in str(caught.value)
    assert said in str(caught.value)


def test_who_is_served_has_any_name() -> None:
    document = {**DOCUMENT, "fault": [{"kind": "kill", "guest": "whoever"}]}

    assert read(document, Path("vkemu serve"), served=True).fault[0].guest == "whoever"

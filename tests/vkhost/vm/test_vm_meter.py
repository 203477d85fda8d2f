"""Thresholds by their formulas, counters, and the sysctl names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.executors.controlled import Execution
from vkprotocol.errno import Errno

from tests.vkhost.machine import Machine
from vkhost.config import HostConfig
from vkhost.vm.vm_meter import (
    SysctlError,
    VmMeter,
    boot_thresholds,
    sysctl,
    sysctl_table,
    thresholds,
)

# A host of 1 GB: facts 7.1, worked out by hand.
GIGABYTE = 1 << 18


def test_the_marks_of_a_gigabyte() -> None:
    marks = thresholds(GIGABYTE)

    assert marks.free_min == 64 + 1310
    assert marks.free_reserved == 687 + 7
    assert marks.free_severe == 687
    assert marks.pageout_free_min == 343 + 7
    assert marks.interrupt_free_min == 171 + 7
    assert marks.free_target == 4 * 1374 + 694
    assert marks.cache_min == marks.free_target
    assert marks.cache_max == 2 * marks.cache_min
    assert marks.inactive_target == GIGABYTE // 4
    assert marks.page_max_wired == GIGABYTE // 3
    assert marks.max_launder == 1024 + 16


def test_a_small_host_keeps_no_cache() -> None:
    assert thresholds(2048).cache_min == 0
    assert thresholds(2049).cache_min > 0


@given(st.integers(64, 1 << 24))
def test_the_marks_are_in_order(pages: int) -> None:
    marks = thresholds(pages)

    assert marks.interrupt_free_min <= marks.pageout_free_min <= marks.free_reserved
    assert marks.free_severe < marks.free_reserved < marks.free_min < marks.free_target


def test_a_fixed_mark_carries_over_to_what_follows_from_it() -> None:
    marks = thresholds(4096, free_min=8, inactive_target=3)

    assert (marks.free_min, marks.free_reserved, marks.free_target) == (8, 11, 43)
    assert marks.inactive_target == 3


def test_the_configuration_fixes_marks() -> None:
    marks = boot_thresholds(HostConfig(pages=100, free_min=5, cache_min=2))

    assert (marks.free_min, marks.cache_min, marks.cache_max) == (5, 2, 4)


def test_an_unknown_mark() -> None:
    with pytest.raises(ValueError, match="no such threshold: free_max"):
        thresholds(100, free_max=3)


def meter(**override: int | None) -> VmMeter:
    return VmMeter(1000, thresholds(1000, **override))


@pytest.mark.parametrize(
    ("free", "cache", "severe", "low", "target", "needed"),
    [
        (100, 0, False, False, False, False),
        (50, 0, False, False, True, False),
        (19, 0, False, True, True, True),
        (19, 40, False, False, True, True),
        (9, 60, True, True, True, True),
        (30, 5, False, False, True, True),
    ],
)
def test_how_short_memory_is(
    free: int, cache: int, severe: bool, low: bool, target: bool, needed: bool
) -> None:
    m = meter(free_min=20, free_reserved=10, free_severe=10, free_target=80, cache_min=20)

    assert m.count_severe(free, cache) == severe
    assert m.count_min(free, cache) == low
    assert m.count_target(free, cache) == target
    assert m.paging_needed(free, cache) == needed
    assert m.paging_target(free, cache) == 100 - free - cache


def test_a_sysctl_is_read_and_written() -> None:
    m = meter()
    table = sysctl_table(m)

    assert sysctl(table, "vm.v_free_min", 12) == m.v_page_count // 200 + 64
    assert m.v_free_min == 12
    assert sysctl(table, "vm.v_free_min") == 12
    assert sysctl(table, "vm.pageout_allow_active", 0) == 1
    assert m.tunables["pageout_allow_active"] == 0
    m.count("v_vm_faults", 3)
    assert sysctl(table, "vm.stats.vm.v_vm_faults") == 3
    m.vmstats.v_free_count.state = 7
    assert sysctl(table, "vm.stats.vm.v_free_count") == 7
    assert sysctl(table, "vm.vpagetable_faults", 5) == 0
    assert sysctl(table, "vm.vpagetable_faults") == 5


@pytest.mark.parametrize(
    ("name", "new", "errno"),
    [
        ("vm.no_such_thing", None, Errno.ENOENT),
        ("vm.stats.vm.v_free_count", 1, Errno.EPERM),
        ("vm.v_page_count", 1, Errno.EPERM),
        ("vm.debug_fault", 1 << 31, Errno.EINVAL),
        ("vm.v_free_min", 1 << 63, Errno.EINVAL),
    ],
)
def test_a_sysctl_that_fails(name: str, new: int | None, errno: Errno) -> None:
    with pytest.raises(SysctlError) as caught:
        sysctl(sysctl_table(meter()), name, new)

    assert caught.value.errno == errno


@pytest.mark.parametrize("steps", [True, False])
def test_a_global_counter_may_lose_an_increment(steps: bool) -> None:
    """W40: load and store are two, when they are told apart."""
    m = VmMeter(100, counter_steps=steps)
    execution = Execution()
    for name in ("a", "b"):
        execution.spawn(name, m.count_vpagetable("vpagetable_faults"))
    turn = 0

    def alternate(runnable: list[int]) -> int:
        nonlocal turn
        turn += 1
        return runnable[turn % len(runnable)]

    execution.run(alternate, 10)

    assert m.vpagetable["vpagetable_faults"].value == (1 if steps else 2)


def test_a_kernel_boots_with_its_marks() -> None:
    machine = Machine("pv_entry", pages=50, free_min=3, free_reserved=2)

    assert machine.kernel.vmmeter.v_free_min == 3
    assert machine.kernel.vmmeter.vmstats.v_free_count.value == 50

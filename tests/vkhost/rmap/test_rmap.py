"""What each reverse map answers for a page mapped where arithmetic says and where it does not.

One page, index 3 of its object. `linear`: mapped at the address the extent formula gives. `vpt`:
mapped at another, as through a VPTE, by a second pmap whose backing is a VPAGETABLE one.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.vkhost.machine import Machine
from vkhost.pc64.cpu import Fault
from vkhost.pc64.pmap import (
    Pmap,
    pmap_clearbit,
    pmap_remove_all,
    pmap_remove_specific,
    pmap_testbit,
    pmap_ts_referenced,
)
from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_RW
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.pc64.pmap_removed import pmap_interlock_drop
from vkhost.rmap import POLICIES, make_rmap
from vkhost.vm.vm_page import PG_MAPPED, PG_REFERENCED, PG_VPTMAPPED, PG_WRITEABLE, VmPage

pytestmark = pytest.mark.usefixtures("guarded")

LINEAR_VA = 0x100000 + 3 * 4096
VPT_VA = 0x7000


class Two:
    """The page and its two mappings, each used by a CPU of its own."""

    def __init__(self, policy: str, *, vpt_va: int = VPT_VA, **config: Any) -> None:
        self.machine = Machine(policy, **config)
        self.linear = self.machine.pmap("linear")
        self.vpt = self.machine.pmap("vpt")
        obj = self.machine.object()
        self.m: VmPage = self.machine.page(obj, 3)
        self.machine.backing(self.linear, obj, 0x100000)
        self.machine.backing(self.vpt, obj, 0x100000, vpagetable=True)
        self.machine.enter(self.linear, LINEAR_VA, self.m)
        self.machine.do(self.machine.kernel.rmap.mapped_through_vpte(self.m))
        self.machine.enter(self.vpt, vpt_va, self.m)
        self.vpt_va = vpt_va
        for i, (pmap, va) in enumerate(((self.linear, LINEAR_VA), (self.vpt, vpt_va))):
            cpu = self.machine.run_on(i, pmap)
            self.machine.do(cpu.store(va, i + 1))

    @property
    def ptes(self) -> tuple[int, int]:
        return self.linear.pte(LINEAR_VA).value, self.vpt.pte(self.vpt_va).value

    def do(self, body: Any) -> Any:
        return self.machine.do(body)


# (linear PTE left, vpt PTE left)
@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ("pv_entry", (False, False)),
        ("extent_scan", (False, True)),
        ("vptmapped", (False, True)),
        ("removed", (False, True)),
    ],
)
def test_remove_all(policy: str, left: tuple[bool, bool]) -> None:
    two = Two(policy)

    two.do(pmap_remove_all(two.m))

    assert tuple(map(bool, two.ptes)) == left
    assert two.machine.kernel.rmap.statistics().flushes == left.count(False)
    assert not two.machine.flags(two.m) & (PG_MAPPED | PG_WRITEABLE | PG_VPTMAPPED)
    assert two.m.dirty.value
    assert two.machine.flags(two.m) & PG_REFERENCED
    linear, vpt = two.machine.kernel.cpus
    with pytest.raises(Fault):
        two.do(linear.load(LINEAR_VA))
    two.machine.ex.failed = None
    if left[1]:
        assert two.do(vpt.load(VPT_VA)) == 2
    else:
        with pytest.raises(Fault):
            two.do(vpt.load(VPT_VA))


@pytest.mark.parametrize("policy", ["extent_scan", "vptmapped"])
def test_an_accidental_hit_is_removed(policy: str) -> None:
    # The guest happens to map the frame where the wrong formula looks.
    two = Two(policy, vpt_va=LINEAR_VA)

    two.do(pmap_remove_all(two.m))

    assert two.ptes == (0, 0)
    assert two.machine.kernel.rmap.statistics().found_ptes == 2


def test_the_scan_looks_at_the_wrong_place_and_skips_it() -> None:
    two = Two("extent_scan")

    two.do(pmap_remove_all(two.m))

    statistics = two.machine.kernel.rmap.statistics()
    assert (statistics.visited_ptes, statistics.found_ptes, statistics.flushes) == (2, 1, 1)
    assert statistics.rmap_bytes == 0


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ("pv_entry", (True, False)),
        ("extent_scan", (True, True)),
        ("vptmapped", (True, True)),
    ],
)
def test_remove_specific(policy: str, left: tuple[bool, bool]) -> None:
    two = Two(policy)

    two.do(pmap_remove_specific(two.vpt, two.m))

    assert tuple(map(bool, two.ptes)) == left
    assert two.machine.flags(two.m) & PG_MAPPED


@pytest.mark.parametrize(
    ("policy", "seen"), [("pv_entry", True), ("extent_scan", False), ("vptmapped", True)]
)
def test_testbit_of_a_page_dirtied_through_a_vpte_only(policy: str, seen: bool) -> None:
    two = Two(policy)
    two.do(pmap_remove(two.linear, LINEAR_VA, LINEAR_VA + 4096))

    assert two.do(pmap_testbit(two.m, PTE_M)) is seen


@pytest.mark.parametrize("policy", ["pv_entry", "extent_scan", "vptmapped"])
def test_testbit_believes_pg_writeable(policy: str) -> None:
    two = Two(policy)
    two.m.flags.state &= ~PG_WRITEABLE

    assert two.do(pmap_testbit(two.m, PTE_M)) is False


@pytest.mark.parametrize(
    ("policy", "writable"),
    [
        ("pv_entry", (False, False)),
        ("extent_scan", (False, True)),
        ("vptmapped", (True, True)),  # the early return leaves even what the scan would find
    ],
)
def test_clearbit_rw(policy: str, writable: tuple[bool, bool]) -> None:
    two = Two(policy)

    two.do(pmap_clearbit(two.m, PTE_RW))

    assert tuple(bool(pte & PTE_RW) for pte in two.ptes) == writable
    assert not two.machine.flags(two.m) & PG_WRITEABLE
    assert two.m.dirty.value
    # W12: what is stored from here on, testbit denies.
    assert two.do(pmap_testbit(two.m, PTE_M)) is False


def test_clearbit_rw_believes_pg_writeable() -> None:
    """pmap.c:pmap_clearbit: no scan of a page that is only PG_MAPPED."""
    two = Two("extent_scan")
    two.m.flags.state &= ~PG_WRITEABLE

    two.do(pmap_clearbit(two.m, PTE_RW))

    assert all(pte & PTE_RW for pte in two.ptes)


def test_remove_specific_believes_pg_mapped() -> None:
    """pmap.c:pmap_remove_specific."""
    two = Two("extent_scan")
    two.m.flags.state &= ~PG_MAPPED

    two.do(pmap_remove_specific(two.linear, two.m))

    assert all(two.ptes)


@pytest.mark.parametrize("query", [pmap_remove_all, lambda m: pmap_clearbit(m, PTE_RW)])
def test_what_is_on_its_way_out_is_waited_for(query: Any) -> None:
    """pmap.c:pmap_remove_all, pmap_clearbit: interlock_count, after the scan (W33)."""
    two = Two("extent_scan")
    two.m.interlock_count.state = 1
    waiting = two.machine.spawn("p", query(two.m))
    two.machine.blocked(waiting)

    assert two.machine.flags(two.m) & PG_WRITEABLE
    two.do(pmap_interlock_drop(two.m))
    two.machine.finish(waiting)
    assert not two.machine.flags(two.m) & PG_WRITEABLE


def test_a_page_of_no_object_is_looked_for_nowhere() -> None:
    """pmap.c:PMAP_PAGE_BACKING_SCAN."""
    two = Two("extent_scan")
    two.m.object = None

    assert two.do(pmap_ts_referenced(two.m)) == 0
    two.do(pmap_remove_all(two.m))
    assert all(two.ptes)
    assert not two.machine.flags(two.m) & PG_MAPPED


@pytest.mark.parametrize(
    ("policy", "accessed"),
    [
        ("pv_entry", (False, False)),
        ("extent_scan", (False, True)),
        ("vptmapped", (True, True)),
    ],
)
def test_clearbit_a_flushes_nothing(policy: str, accessed: tuple[bool, bool]) -> None:
    two = Two(policy)
    two.machine.events.clear()

    two.do(pmap_clearbit(two.m, PTE_A))

    assert tuple(bool(pte & PTE_A) for pte in two.ptes) == accessed
    assert not any(event[0] == "tlb.flush" for event in two.machine.events)


@pytest.mark.parametrize(
    ("policy", "counts"),
    [("pv_entry", [2, 0]), ("extent_scan", [1, 0]), ("vptmapped", [1, 1])],
)
def test_ts_referenced(policy: str, counts: list[int]) -> None:
    two = Two(policy)
    two.machine.events.clear()

    assert [two.do(pmap_ts_referenced(two.m)) for _ in range(2)] == counts
    assert not any(event[0] == "tlb.flush" for event in two.machine.events)


@pytest.mark.parametrize("policy", ["pv_entry", "extent_scan"])
def test_ts_referenced_stops_after_five(policy: str) -> None:
    machine = Machine(policy)
    obj = machine.object()
    m = machine.page(obj, 0)
    for i in range(7):
        pmap = machine.pmap(f"p{i}")
        machine.backing(pmap, obj, 0x100000)
        machine.enter(pmap, 0x100000, m)
        machine.do(machine.run_on(0, pmap).load(0x100000))

    assert [machine.do(pmap_ts_referenced(m)) for _ in range(3)] == [5, 2, 0]


def test_w10_vptmapped_is_sticky() -> None:
    two = Two("vptmapped")
    for pmap, va in ((two.linear, LINEAR_VA), (two.vpt, VPT_VA)):
        two.do(pmap_remove(pmap, va, va + 4096))
    two.m.flags.state &= ~PG_MAPPED  # as if it had been mapped only once

    two.do(pmap_remove_all(two.m))

    assert two.machine.flags(two.m) & PG_VPTMAPPED
    assert two.do(pmap_ts_referenced(two.m)) == 1


def test_pv_entries_are_as_many_as_ptes() -> None:
    machine = Machine("pv_entry")
    pmap = machine.pmap()
    obj = machine.object()
    one, two = machine.page(obj, 0), machine.page(obj, 1)
    rmap = machine.kernel.rmap

    def lists() -> list[list[int]]:
        return [[pte.va for pte in m.pv_list.ptes] if m.pv_list else [] for m in (one, two)]

    machine.enter(pmap, 0x1000, one)
    machine.enter(pmap, 0x2000, one)
    assert lists() == [[0x1000, 0x2000], []]
    machine.enter(pmap, 0x1000, one, 1)  # less permission, the same page
    machine.enter(pmap, 0x1000, two)
    assert lists() == [[0x2000], [0x1000]]
    assert rmap.statistics().rmap_bytes == 160
    machine.do(pmap_remove(pmap, 0, 0x10000))
    assert lists() == [[], []]
    assert rmap.statistics().rmap_bytes == 0
    assert rmap.statistics().rmap_bytes_max == 240


def test_pv_entry_waits_for_a_replacement_in_flight() -> None:
    # What interlock_count is for elsewhere (W33): here the list still has the entry.
    from tests.vkhost.machine import ENTRY
    from vkhost.pc64.pmap_enter import pmap_enter

    two = Two("pv_entry")
    other = two.machine.page(two.machine.object(), 0)
    replacing = two.machine.spawn("a", pmap_enter(two.vpt, VPT_VA, other, 7, False, ENTRY))
    two.machine.until(replacing, "pte.write", "vpt", VPT_VA)
    removing = two.machine.spawn("p", pmap_remove_all(two.m))
    two.machine.blocked(removing)

    two.machine.finish(replacing, removing)

    assert two.m.dirty.value
    assert two.vpt.pte(VPT_VA).value >> 12 & 0xFF == other.pfn
    assert not two.m.pv_list.ptes


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_who_lets_a_vkernel_boot(policy: str) -> None:
    machine = Machine(policy)

    assert machine.kernel.rmap.name == policy
    assert make_rmap(machine.kernel, policy).mmap_vpagetable_allowed() is (policy != "removed")


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("policy", ["pv_entry", "extent_scan", "vptmapped"])
def test_linear_mappings_are_gone_when_remove_all_returns(policy: str, seed: int) -> None:
    # Against concurrent removals by address and accesses, on every policy.
    machine = Machine(policy, ipi_threads=True)
    obj = machine.object()
    m = machine.page(obj, 0)
    pmaps: list[Pmap] = [machine.pmap(f"p{i}") for i in range(2)]
    for pmap in pmaps:
        machine.backing(pmap, obj, 0x100000)
        machine.enter(pmap, 0x100000, m)
    stored = []

    async def user(i: int) -> None:
        cpu = machine.kernel.cpus[i]
        for value in range(1, 4):
            try:
                await cpu.store(0x100000, value)
            except Fault:
                return
            stored.append(value)

    async def reclaim() -> None:
        await pmap_remove_all(m)
        assert not any(pmap.pte(0x100000).state for pmap in pmaps)
        assert not any(cpu.tlb.entries() for cpu in machine.kernel.cpus)
        assert not m.flags.state & PG_MAPPED
        assert bool(m.dirty.state) == bool(stored)

    for i, pmap in enumerate(pmaps):
        machine.run_on(i, pmap)
        machine.spawn(f"user{i}", user(i))
    machine.spawn("inval", pmap_remove(pmaps[1], 0x100000, 0x101000))
    machine.spawn("reclaim", reclaim())
    machine.run(seed)

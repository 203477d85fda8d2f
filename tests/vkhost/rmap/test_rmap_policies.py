"""The reverse maps that find what a VPTE led to: against what the PTEs say, and against each other.

`Random` operations of a small host on one policy; after each query its answer is compared with the
PTEs themselves, which the policy under test is not asked about.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vkhost.machine import Machine
from tests.vkhost.vkernel import RW, Vkernel
from vkhost.mutants import MUTANTS
from vkhost.pc64.pmap import (
    Pmap,
    pmap_clearbit,
    pmap_remove_all,
    pmap_remove_specific,
    pmap_testbit,
    pmap_ts_referenced,
)
from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_RW, PTE_W, pte_pfn
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.pc64.pmap_remove import pmap_release, pmap_remove
from vkhost.rmap.bloom import COUNTERS, DESIGN_LOAD, Bloom
from vkhost.vm.vm import VM_MAPTYPE_NORMAL, VM_MAPTYPE_VPAGETABLE
from vkhost.vm.vm_fault_page import vm_fault_page
from vkhost.vm.vm_map_clip import entries_clipped, vm_map_clip_end
from vkhost.vm.vm_page import PG_MAPPED, PG_REFERENCED, PG_WRITEABLE, VmPage
from vkhost.vm.vm_page_busy import vm_page_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_wire import vm_page_unhold

PAGE = 4096
EXACT = ("pv_entry", "vpte_list", "bloom", "notifier", "shadow")
FLUSHING = ("broadcast", "hybrid")  # answer right, but take away more than they are asked for
SPACES, PAGES, SLOTS = 3, 3, 6
LINEAR = 0x100000
VPT = 0x700000


def entry(maptype: int) -> Any:
    return SimpleNamespace(maptype=maptype, eflags=0)


class Rmaps:
    """Three pages of one object, which three pmaps map linearly and through VPTEs."""

    def __init__(self, policy: str, mutants: tuple[str, ...] = ()) -> None:
        self.machine = Machine(policy, mutants=mutants, pages=16)
        self.pmaps = [self.machine.pmap(f"p{i}") for i in range(SPACES)]
        obj = self.machine.object()
        self.pages: list[VmPage] = [self.machine.page(obj, i) for i in range(PAGES)]
        for pmap in self.pmaps:
            self.machine.backing(pmap, obj, LINEAR)
            self.machine.backing(pmap, obj, VPT, vpagetable=True)
        self.written: set[int] = set()  # pfns stored to since they were last clean

    def do(self, body: Any) -> Any:
        return self.machine.do(body)

    def ptes(self, m: VmPage) -> list[tuple[Pmap, int]]:
        """Every PTE of m there is."""
        return [
            (pmap, pte.state)
            for pmap in self.pmaps
            for table in pmap.directory.tables.values()
            for pte in table.ptes.values()
            if pte.state and pte_pfn(pte.state) == m.pfn
        ]

    def enter(self, space: int, slot: int, page: int, prot: int) -> None:
        m, pmap = self.pages[page], self.pmaps[space]
        if slot < PAGES:
            # A linear mapping is where arithmetic says, or the entry would not be NORMAL.
            va, kind = LINEAR + page * PAGE, VM_MAPTYPE_NORMAL
        else:
            va, kind = VPT + slot * PAGE, VM_MAPTYPE_VPAGETABLE
            self.do(self.machine.kernel.rmap.mapped_through_vpte(m))
        self.do(pmap_enter(pmap, va, m, prot, False, entry(kind)))

    def use(self, space: int, slot: int, page: int, *, store: bool) -> None:
        """The hardware uses a PTE, and sets A and M."""
        va = LINEAR + page * PAGE if slot < PAGES else VPT + slot * PAGE
        pte = self.pmaps[space].pte(va)
        if pte.state:
            m = next(m for m in self.pages if m.pfn == pte_pfn(pte.state))
            pte.state |= PTE_A
            if store and pte.state & PTE_RW:
                pte.state |= PTE_M
                self.written.add(m.pfn)

    def remove(self, space: int, slot: int) -> None:
        va = LINEAR + slot * PAGE if slot < PAGES else VPT + slot * PAGE
        self.do(pmap_remove(self.pmaps[space], va, va + PAGE))

    def check(self) -> None:
        """Whatever was done: no store is forgotten, nothing is mapped unflagged."""
        for m in self.pages:
            if m.pfn in self.written:
                assert m.dirty.state or any(pte & PTE_M for _, pte in self.ptes(m))
            if self.ptes(m):
                assert self.machine.flags(m) & PG_MAPPED


Operation = tuple[str, int, int, int, int]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["enter", "enter", "enter", "use", "use", "remove", "all", "specific", "dirty",
             "readonly", "age", "count"]
        ),
        st.integers(0, SPACES - 1),
        st.integers(0, SLOTS - 1),
        st.integers(0, PAGES - 1),
        st.integers(0, 1),
    ),
    max_size=40,
)  # fmt: skip


def apply(rmaps: Rmaps, operation: Operation) -> None:
    """One operation; a query's answer is checked."""
    what, space, slot, page, bit = operation
    m = rmaps.pages[page]
    before = rmaps.ptes(m)
    if what == "enter":
        rmaps.enter(space, slot, page, 7 if bit else 5)
    elif what == "use":
        rmaps.use(space, slot, page, store=bool(bit))
    elif what == "remove":
        rmaps.remove(space, slot)
    elif what == "all":
        rmaps.do(pmap_remove_all(m))
        assert not rmaps.ptes(m)
        assert not rmaps.machine.flags(m) & (PG_MAPPED | PG_WRITEABLE)
    elif what == "specific":
        rmaps.do(pmap_remove_specific(rmaps.pmaps[space], m))
        assert not any(pmap is rmaps.pmaps[space] for pmap, _ in rmaps.ptes(m))
    elif what == "dirty":
        dirty = m.dirty.state
        found = rmaps.do(pmap_testbit(m, PTE_M))
        assert found or not any(pte & PTE_M for _, pte in before)
        assert dirty or not found or any(pte & PTE_M for _, pte in before)
    elif what == "readonly":
        rmaps.do(pmap_clearbit(m, PTE_RW))
        assert not any(pte & PTE_RW for _, pte in rmaps.ptes(m))
    elif what == "age":
        rmaps.do(pmap_clearbit(m, PTE_A))
        assert not any(pte & PTE_A for _, pte in rmaps.ptes(m))
    else:
        count = rmaps.do(pmap_ts_referenced(m))
        flagged = rmaps.machine.flags(m) & PG_REFERENCED
        accessed = sum(bool(pte & PTE_A) for _, pte in before)
        policy = rmaps.machine.kernel.rmap.name
        if policy in EXACT:
            assert count == min(5, accessed)
        else:
            assert bool(count) <= bool(accessed) <= bool(count or flagged)
    rmaps.check()


@pytest.mark.slow
@pytest.mark.parametrize("policy", [*EXACT, *FLUSHING])
def test_a_query_answers_what_the_ptes_say(policy: str) -> None:
    @settings(max_examples=60, derandomize=True, database=None)
    @given(OPERATIONS)
    def run(operations: list[Operation]) -> None:
        rmaps = Rmaps(policy)
        for operation in operations:
            apply(rmaps, operation)

    run()


CAUGHT = {
    "vpte_list": "vpte-list-forgotten",
    "bloom": "bloom-not-inserted",
    "broadcast": "broadcast-skipped",
    "pv_entry": "pv-entry-forgotten",
}


@pytest.mark.parametrize("policy", sorted(CAUGHT))
def test_a_reverse_map_that_forgets_is_caught(policy: str) -> None:
    assert CAUGHT[policy] in MUTANTS
    rmaps = Rmaps(policy, (CAUGHT[policy],))
    for slot in range(PAGES, SLOTS):
        rmaps.enter(0, slot, 0, 7)
        rmaps.use(0, slot, 0, store=True)

    with pytest.raises(AssertionError):
        apply(rmaps, ("all", 0, 0, 0, 0))


# The size of a record.


def through_vptes(policy: str, count: int) -> Machine:
    """One pmap in which `count` addresses lead to one page each, of 8."""
    machine = Machine(policy, pages=16)
    obj, pmap = machine.object(), machine.pmap()
    machine.backing(pmap, obj, VPT, count, vpagetable=True)
    pages = [machine.page(obj, i) for i in range(8)]
    vpt = entry(VM_MAPTYPE_VPAGETABLE)

    async def fill() -> None:
        for i in range(count):
            await pmap_enter(pmap, VPT + i * PAGE, pages[i % 8], 5, False, vpt)

    machine.do(fill())
    return machine


@pytest.mark.parametrize(
    ("policy", "size"),
    [("pv_entry", 80), ("vpte_list", 24), ("notifier", 24), ("broadcast", 0), ("wired", 0)],
)
def test_bytes_a_mapping(policy: str, size: int) -> None:
    machine = through_vptes(policy, 96)
    statistics = machine.kernel.rmap.statistics()

    assert statistics.rmap_bytes == 96 * size

    pmap = machine.kernel.pmaps["p"]
    machine.do(pmap_remove(pmap, VPT, VPT + 96 * PAGE))
    assert machine.kernel.rmap.statistics().rmap_bytes == 0


def test_a_linear_mapping_takes_no_record() -> None:
    for policy in ("vpte_list", "notifier", "bloom", "hybrid"):
        rmaps = Rmaps(policy)
        for page in range(PAGES):
            rmaps.enter(0, 0, page, 7)
        assert rmaps.machine.kernel.rmap.statistics().rmap_bytes == 0


# Bloom.


@pytest.mark.slow
def test_bloom_is_wrong_one_time_in_a_hundred_at_its_design_load() -> None:
    machine = Machine("bloom")
    pmap = machine.pmap()
    rmap = machine.kernel.rmap
    assert isinstance(rmap, Bloom)
    held = rmap.filter(pmap)

    async def measure() -> int:
        for pfn in range(DESIGN_LOAD):
            await held.insert(pfn * 7)
        for pfn in range(DESIGN_LOAD):
            assert await held.test(pfn * 7)
        return sum([await held.test(pfn * 7 + 1) for pfn in range(20_000)])

    positives = machine.do(measure())

    assert 0.006 < positives / 20_000 < 0.014
    assert rmap.statistics().rmap_bytes == COUNTERS // 2
    assert 4.7 < rmap.statistics().rmap_bytes / DESIGN_LOAD < 4.9


def test_bloom_counters_return_to_zero() -> None:
    # Also when a PTE is replaced, which is an insertion and a withdrawal under one placemark.
    rmaps = Rmaps("bloom")
    rmap = rmaps.machine.kernel.rmap
    assert isinstance(rmap, Bloom)
    for page in (0, 1, 2, 0):
        rmaps.enter(0, 4, page, 7)
    assert rmap.filter(rmaps.pmaps[0]).state == 1

    rmaps.remove(0, 4)

    assert not any(rmap.filter(rmaps.pmaps[0]).counters)


def test_bloom_withdraws_once_a_page_that_two_take_away() -> None:
    """A fault replaces the PTE of X while X is taken from every pmap: each of the two tells of the
    same mapping, and what the filter says of another page with those counters stays true."""
    rmaps = Rmaps("bloom")
    machine, pmap = rmaps.machine, rmaps.pmaps[0]
    x, y = rmaps.pages[:2]
    rmap = machine.kernel.rmap
    assert isinstance(rmap, Bloom)
    rmaps.enter(0, 4, 0, 7)
    va = VPT + 4 * PAGE
    replacing = machine.spawn("a", pmap_enter(pmap, va, y, 7, False, entry(VM_MAPTYPE_VPAGETABLE)))
    for _ in range(3):
        machine.step(replacing)  # it has placemark and page table, and has seen X
    machine.do(pmap_remove_specific(pmap, x))
    machine.do(pmap_enter(pmap, VPT + 515 * PAGE, x, 7, False, entry(VM_MAPTYPE_VPAGETABLE)))

    machine.finish(replacing)

    assert rmap.filter(pmap).state == 2
    assert machine.do(rmap.filter(pmap).test(x.pfn))
    machine.do(pmap_remove_all(x))
    assert not rmaps.ptes(x)


def test_bloom_gives_back_the_filter_of_a_pmap_that_is_gone() -> None:
    machine = through_vptes("bloom", 8)
    assert machine.kernel.rmap.statistics().rmap_bytes == COUNTERS // 2
    pmap = machine.kernel.pmaps["p"]

    machine.do(pmap_remove(pmap, VPT, VPT + 8 * PAGE))
    machine.do(pmap_release(pmap))

    assert machine.kernel.rmap.statistics().rmap_bytes == 0


# Broadcast.


def test_broadcast_flushes_all_of_a_region_that_is_being_cut() -> None:
    """Between looking for the regions and flushing them an entry is clipped: the part that became
    an extent of its own is a region too."""
    k = Vkernel("broadcast")
    pde = k.tables(dict.fromkeys((1, 13), 10 << 12 | RW))
    k.vpagetable(pde, size=16 * PAGE)
    k.vpagetable(pde, start=17 * PAGE, size=16 * PAGE)
    for vpn in (1, 30):
        assert k.fault(vpn * PAGE, 2) == 0
    image = k.vnode.object
    assert image is not None
    m = image.memq[10]
    k.do(vm_page_busy_wait(m, "test"))
    removing = k.spawn("p", pmap_remove_all(m))
    for looking in (True, False):
        while bool(image.backing_lk.state[1]) is not looking:
            k.step(removing)

    async def clip() -> None:
        await k.own.vm_map.lock.acquire_exclusive()
        for found in await entries_clipped(k.own.vm_map, 17 * PAGE, 24 * PAGE):
            await vm_map_clip_end(k.own.vm_map, found, 24 * PAGE)
        await k.own.vm_map.lock.release()

    k.do(clip())
    k.finish(removing)

    assert [k.pte(vpn * PAGE) for vpn in (1, 30)] == [0, 0]


def test_broadcast_keeps_a_reference_that_was_there_before() -> None:
    rmaps = Rmaps("broadcast")
    rmaps.enter(0, 4, 0, 7)
    m = rmaps.pages[0]
    m.flags.state |= PG_REFERENCED

    rmaps.do(pmap_clearbit(m, PTE_A))

    assert rmaps.machine.flags(m) & PG_REFERENCED


# Shadow and the kernel's own accesses.


@pytest.mark.parametrize("policy", [*EXACT, *FLUSHING, "wired"])
def test_the_kernel_reads_and_writes_through_a_vpte(policy: str) -> None:
    k = Vkernel(policy)
    k.vpagetable(k.tables({1: 10 << 12 | RW}))

    for kind in (1, 2):
        m, result, _ = k.do(vm_fault_page(k.own.vm_map, PAGE, kind))
        assert result == 0
        assert m.pindex == 10
        k.do(vm_page_unhold(m))


# Wired.


def test_mlock_has_wires_of_its_own() -> None:
    """An INVAL of an mlocked NORMAL range takes PTEs with PTE_W; the wire is munlock's."""
    rmaps = Rmaps("wired")
    m = rmaps.pages[0]
    normal = entry(VM_MAPTYPE_NORMAL)
    rmaps.do(pmap_enter(rmaps.pmaps[0], LINEAR, m, 7, True, normal))
    assert rmaps.pmaps[0].pte(LINEAR).state & PTE_W
    m.wire_count.state += 1
    rmaps.do(vm_page_wakeup(m))

    rmaps.remove(0, 0)

    assert m.wire_count.state == 1

"""MADV_SETMAP and MADV_INVAL, and the advice nobody fights about."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol.errno import Errno
from vkprotocol.mman import (
    MADV_AUTOSYNC,
    MADV_CORE,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_INVAL,
    MADV_NOCORE,
    MADV_NORMAL,
    MADV_NOSYNC,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MADV_SETMAP,
    MADV_WILLNEED,
)

from tests.vkhost.vkernel import ROOT, RW, Vkernel
from vkhost.quirks import Quirks
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_page_queue import PQ_INACTIVE

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
SHARED, ANON, VPAGETABLE = 0x1, 0x1000, 0x2000


def madvise(k: Vkernel, start: int, end: int, behav: int, value: int = 0) -> int:
    result: int = k.do(vm_map_madvise(k.own.vm_map, start * PAGE, end * PAGE, behav, value))
    return result


def two_roots() -> Vkernel:
    """An image with two page tables: page 1 is frame 10 by one, frame 20 by the other."""
    k = Vkernel()
    k.tables({i: 10 + i << 12 | RW for i in range(8)})
    k.tables({i: 20 + i << 12 | RW for i in range(8)}, root=30)
    k.mmap(k.own, 0, 8 * PAGE, SHARED | VPAGETABLE)
    return k


OLD, NEW = ROOT << 12 | RW, 30 << 12 | RW


def test_setmap_gives_the_root_and_removes_what_the_old_one_mapped() -> None:
    k = two_roots()
    assert madvise(k, 0, 8, MADV_SETMAP, OLD) == 0
    k.fault(PAGE, 1)
    assert k.mapped(PAGE) == (11, 5)
    assert madvise(k, 0, 8, MADV_SETMAP, NEW) == 0

    assert k.mapped(PAGE) is None
    k.fault(PAGE, 1)
    assert k.mapped(PAGE) == (21, 5)
    assert k.kernel.vmmeter.vpagetable["vpagetable_setmap"].value == 2


def test_setmap_clips_to_its_range() -> None:
    k = Vkernel(quirks=Quirks(simplify_ignores_master_pde=False))
    k.mmap(k.own, 0, 8 * PAGE, SHARED | VPAGETABLE)
    madvise(k, 2, 5, MADV_SETMAP, 77)

    assert [(e.start // PAGE, e.end // PAGE, e.master_pde) for e in k.own.vm_map.entries] == [
        (0, 2, 0), (2, 5, 77), (5, 8, 0),
    ]  # fmt: skip


def test_w20_simplification_merges_entries_of_different_roots() -> None:
    k = two_roots()
    madvise(k, 0, 8, MADV_SETMAP, OLD)
    for page in (1, 6):
        k.fault(page * PAGE, 1)
    madvise(k, 0, 4, MADV_SETMAP, NEW)
    [entry] = k.own.vm_map.entries

    assert (entry.start, entry.end, entry.master_pde) == (0, 8 * PAGE, NEW)
    # The second half was never asked for, has the new root, and keeps the old translation.
    assert k.mapped(6 * PAGE) == (16, 5)
    assert k.mapped(PAGE) is None


def mixed(**options: Any) -> Vkernel:
    k = Vkernel(**options)
    k.mmap(k.own, 0, 2 * PAGE, SHARED | VPAGETABLE)
    k.mmap(k.own, 2 * PAGE, 2 * PAGE, SHARED)
    k.mmap(k.own, 4 * PAGE, 2 * PAGE, SHARED | VPAGETABLE, offset=8 * PAGE)
    return k


@pytest.mark.parametrize(("partial", "roots"), [(True, [5, 0, 5]), (False, [0, 0, 0])])
def test_w20_setmap_over_a_normal_entry(partial: bool, roots: list[int]) -> None:
    k = mixed(quirks=Quirks(setmap_partial=partial))

    assert madvise(k, 0, 6, MADV_SETMAP, 5) == Errno.EINVAL
    assert [e.master_pde for e in k.own.vm_map.entries] == roots
    # What is refused has not happened.
    assert len(k.named("setmap.begin", "setmap.end")) == (2 if partial else 0)


@pytest.mark.parametrize(("mutants", "stale"), [((), False), (("setmap-shared-lock",), True)])
def test_w19_a_fault_that_read_the_old_root_is_done_before_setmap(
    mutants: tuple[str, ...], stale: bool
) -> None:
    """Since SETMAP has the map lock to itself. The mutant shares it."""
    k = two_roots()
    madvise(k, 0, 8, MADV_SETMAP, OLD)
    for page in (1, 2):
        k.fault(page * PAGE, 1)
    madvise(k, 1, 2, MADV_INVAL)
    k.kernel.mutants = frozenset(mutants)

    async def fault() -> None:
        await vm_fault(k.own.vm_map, PAGE, 1)

    async def setmap() -> None:
        await vm_map_madvise(k.own.vm_map, 0, 8 * PAGE, MADV_SETMAP, NEW)

    worker = k.spawn("fault", fault())
    while k.until(worker, "vpte.read")[4] != 0:
        pass
    guest = k.spawn("setmap", setmap())
    while not guest.done:
        k.step(guest if guest.runnable else worker)
    while not worker.done:
        k.step(worker)

    assert k.mapped(PAGE) == ((11, 5) if stale else None)


# INVAL.


def test_inval_removes_the_range_of_both_kinds_and_skips_holes() -> None:
    k = mixed()
    k.tables({i: 10 + i << 12 | RW for i in range(16)})
    for i in (0, 2):
        k.own.vm_map.entries[i].master_pde = OLD
    for page in range(6):
        assert k.fault(page * PAGE, 1) == 0
    assert madvise(k, 1, 5, MADV_INVAL) == 0

    assert [bool(k.mapped(page * PAGE)) for page in range(6)] == [1, 0, 0, 0, 0, 1]
    assert [event[2:] for event in k.named("ilock.enter")][-3:] == [
        (PAGE, 2 * PAGE), (2 * PAGE, 4 * PAGE), (4 * PAGE, 5 * PAGE),
    ]  # fmt: skip
    assert madvise(k, 0, 100, MADV_INVAL) == 0
    assert madvise(k, 50, 60, MADV_INVAL) == 0


def test_inval_shares_the_map_lock() -> None:
    k = two_roots()
    madvise(k, 0, 8, MADV_INVAL)

    assert k.named("map.lock")[-1] == ("map.lock", "vkernel", False)


def test_inval_before_2017() -> None:
    k = Vkernel(inval_shared=False)
    k.mmap(k.own, 0, 8 * PAGE, SHARED | VPAGETABLE)
    madvise(k, 0, 8, MADV_INVAL)

    assert k.named("map.lock")[-1] == ("map.lock", "vkernel", True)
    assert k.named("ilock.enter") == []
    assert k.kernel.vmmeter.vpagetable["vpagetable_inval"].value == 1


@pytest.mark.parametrize(("dead", "count"), [(True, 0), (False, 1)])
def test_the_inval_counter_is_in_a_branch_inval_never_takes(dead: bool, count: int) -> None:
    k = Vkernel(quirks=Quirks(inval_counter_dead=dead))
    k.kernel.vmmeter.tunables["debug_vpagetable"] = 1
    k.mmap(k.own, 0, 8 * PAGE, SHARED)
    madvise(k, 2, 3, MADV_INVAL)

    assert k.kernel.vmmeter.vpagetable["vpagetable_inval"].value == count
    lines = [("console", f"MADV_INVAL: start=2000 end=3000 pid={k.proc.pid}")]
    assert k.named("console") == lines * count


def test_setmap_prints() -> None:
    k = two_roots()
    k.kernel.vmmeter.tunables["debug_vpagetable"] = 1
    madvise(k, 0, 8, MADV_SETMAP, 0x1007)

    assert k.named("console") == [
        ("console", f"MADV_SETMAP: start=0 end=8000 pde=1007 pid={k.proc.pid}")
    ]


def test_mutant_inval_without_the_interlock() -> None:
    k = two_roots()
    k.kernel.mutants = frozenset({"inval-without-ilock"})
    madvise(k, 0, 8, MADV_INVAL)

    assert k.named("ilock.enter") == []


# The rest.


def test_behaviours_kept_in_the_entry() -> None:
    k = Vkernel()
    k.mmap(k.own, 0, 8 * PAGE, SHARED)

    def flags(behav: int) -> int:
        assert madvise(k, 0, 8, behav) == 0
        eflags: int = k.own.vm_map.entries[0].eflags
        return eflags

    assert flags(MADV_SEQUENTIAL) == 0x40
    assert flags(MADV_RANDOM) == 0x80
    assert flags(MADV_NORMAL) == 0
    assert flags(MADV_NOSYNC) == 1
    assert flags(MADV_AUTOSYNC) == 0
    assert flags(MADV_NOCORE) == 0x400
    assert flags(MADV_CORE) == 0
    madvise(k, 2, 3, MADV_NOSYNC)
    assert [e.eflags for e in k.own.vm_map.entries] == [0, 1, 0]
    madvise(k, 2, 3, MADV_AUTOSYNC)
    assert len(k.own.vm_map.entries) == 1


def test_an_unknown_behaviour() -> None:
    assert madvise(Vkernel(), 0, 8, 99) == Errno.EINVAL


def test_dontneed_and_free() -> None:
    k = Vkernel("pv_entry")
    k.mmap(k.own, 0, 8 * PAGE, SHARED)
    k.fault(PAGE, 1)
    assert k.vnode.object is not None
    m = k.vnode.object.memq[1]
    m.dirty.state = 0xFF
    assert madvise(k, 0, 8, MADV_FREE) == 0
    assert m.dirty.value == 0xFF  # a file's content is not ours to forget
    assert madvise(k, 0, 8, MADV_WILLNEED) == 0
    assert madvise(k, 0, 8, MADV_DONTNEED) == 0

    assert m.queue == PQ_INACTIVE


def test_free_forgets_anonymous_memory() -> None:
    k = Vkernel("pv_entry")
    from vkhost.vm.vm_mmap import kern_mmap

    k.do(kern_mmap(k.own, k.proc, 0, 8 * PAGE, 7, ANON | 0x10, -1, 0))
    k.fault(PAGE, 2, flags=8)
    obj = k.own.vm_map.entries[0].ba.object
    assert obj is not None
    m = obj.memq[1]
    assert m.dirty.value == 0xFF
    madvise(k, 0, 8, MADV_FREE)

    assert m.dirty.value == 0
    assert m.queue == PQ_INACTIVE

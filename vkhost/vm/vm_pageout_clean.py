"""Laundering: write a dirty page, and its dirty neighbours with it.

DragonFly vm_pageout.c:vm_pageout_clean_helper, vm_pageout_flush.

The neighbours are where the trouble is (W07): they are chosen by dirty, wire and hold alone.
Nobody asks whether they have been referenced, so a page that every scan refuses to touch is
unmapped, written and cached because it lies next to one that is idle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkhost.kern.panic import kkassert
from vkhost.pc64.pmap_bits import PTE_M
from vkhost.vm.vm import VM_PROT_NONE, VM_PROT_READ
from vkhost.vm.vm_page import PG_NEED_COMMIT, PG_UNQUEUED, PG_WINATCFLS, VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_busy import (
    vm_page_busy_wait,
    vm_page_io_finish,
    vm_page_io_start,
    vm_page_lookup_busy_try,
    vm_page_wakeup,
)
from vkhost.vm.vm_page_cache import vm_page_try_to_cache
from vkhost.vm.vm_page_dirty import (
    vm_page_flag_clear,
    vm_page_flag_set,
    vm_page_protect,
    vm_page_test_dirty,
    vm_page_undirty,
)
from vkhost.vm.vm_page_lru import vm_page_deactivate
from vkhost.vm.vm_page_queue import PQ_ACTIVE, PQ_CACHE, PQ_INACTIVE
from vkhost.vm.vm_pageout_wakeup import paging_counts
from vkhost.vm.vm_pager import VM_PAGER_BAD, VM_PAGER_OK, vm_pager_put_pages

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.vm.vm_object import VmObject

# vm_object.h: how pages are to be written.
OBJPC_SYNC: Final = 0x1
OBJPC_INVAL: Final = 0x2
OBJPC_NOSYNC: Final = 0x4
OBJPC_TRY_TO_CACHE: Final = 0x20  # afterwards, the page is meant to be reused
OBJPC_ALLOW_ACTIVE: Final = 0x40  # neighbours may be on PQ_ACTIVE


async def vm_pageout_clean_helper(kernel: Kernel, m: VmPage, vmflush_flags: int) -> int:
    """Write m and the dirty run around it, within its aligned window. Eats m's busy.

    Returns how many pages were written.
    """
    obj = m.object
    assert obj is not None
    if await m.hold_count.load() or await m.flags.load() & PG_UNQUEUED:
        await vm_page_wakeup(m)
        return 0
    window = kernel.config.cluster_pages
    first = m.pindex - m.pindex % window
    before: list[VmPage] = []
    after: list[VmPage] = []
    async with obj.token:
        for pindex in range(m.pindex - 1, first - 1, -1):
            p = await _clusterable(obj, pindex, m, vmflush_flags)
            if p is None:
                break
            before.append(p)
        for pindex in range(m.pindex + 1, min(first + window, obj.size)):
            p = await _clusterable(obj, pindex, m, vmflush_flags)
            if p is None:
                break
            after.append(p)
    cluster = [*reversed(before), m, *after]
    for p in cluster:
        kernel.emit("pageout.launder", p.pfn, m.pfn, len(cluster))
    return await vm_pageout_flush(kernel, cluster, vmflush_flags)


async def _clusterable(
    obj: VmObject, pindex: int, leader: VmPage, vmflush_flags: int
) -> VmPage | None:
    """The page at pindex, busied, if it may be written along with the leader."""
    p, busy_elsewhere = await vm_page_lookup_busy_try(obj, pindex)
    if p is None or busy_elsewhere:
        return None
    if not await _may_launder(p, vmflush_flags):
        await vm_page_wakeup(p)
        return None
    # Keep the cluster together on its next round through the queue.
    if await leader.flags.load() & PG_WINATCFLS:
        await vm_page_flag_set(p, PG_WINATCFLS)
    else:
        await vm_page_flag_clear(p, PG_WINATCFLS)
    p.act_count = leader.act_count
    return p


async def _may_launder(p: VmPage, vmflush_flags: int) -> bool:
    flags = await p.flags.load()
    if p.queue == PQ_CACHE or flags & PG_UNQUEUED:
        return False
    await vm_page_test_dirty(p)
    if not await p.dirty.load() & p.valid and not flags & PG_NEED_COMMIT:
        return False
    # Wired: perhaps by the buffer cache. Held: perhaps under I/O.
    if await p.wire_count.load() or await p.hold_count.load():
        return False
    return p.queue == PQ_INACTIVE or bool(
        p.queue == PQ_ACTIVE and vmflush_flags & OBJPC_ALLOW_ACTIVE
    )


async def vm_pageout_flush(kernel: Kernel, cluster: list[VmPage], vmflush_flags: int) -> int:
    """Write the pages, which are hard-busied and neighbours in one object. Eats the busies."""
    obj = cluster[0].object
    assert obj is not None
    for m in cluster:
        kkassert(kernel, m.valid == VM_PAGE_BITS_ALL, f"vm_pageout_flush: page {m.pfn} invalid")
        if "flush-without-soft-busy" not in kernel.mutants:
            await vm_page_io_start(m)
    # From here on a write must fault, so that it is known to come after the I/O's snapshot. The
    # soft busy keeps the fault waiting; reads may go on. All this is as true as the reverse map.
    protection = VM_PROT_NONE if vmflush_flags & OBJPC_TRY_TO_CACHE else VM_PROT_READ
    for m in cluster:
        if "flush-without-protect" not in kernel.mutants:
            await vm_page_protect(m, protection)
        await vm_page_wakeup(m)
    await obj.paging_in_progress.add(len(cluster))
    if "clean-without-write" in kernel.mutants:
        statuses = [VM_PAGER_BAD] * len(cluster)
    else:
        statuses = await vm_pager_put_pages(obj, cluster, vmflush_flags)
    written = 0
    for m, status in zip(cluster, statuses, strict=True):
        if status == VM_PAGER_OK:
            written += 1
        elif status == VM_PAGER_BAD:
            await _lose_changes(m)
        # On VM_PAGER_FAIL - swap is full - the page stays dirty and is tried again later.
        await _io_done(kernel, m, vmflush_flags)
        await obj.paging_in_progress.add(-1)
    return written


async def _lose_changes(m: VmPage) -> None:
    """The page lies outside its object: pretend it was written."""
    await vm_page_busy_wait(m, "pgbad", also_m_busy=False)
    await m.kernel.rmap.clearbit(m, PTE_M)
    await vm_page_undirty(m)
    await vm_page_wakeup(m)


async def _io_done(kernel: Kernel, m: VmPage, vmflush_flags: int) -> None:
    """After the I/O, whatever came of it."""
    await vm_page_busy_wait(m, "pgouw", also_m_busy=False)
    if "flush-without-soft-busy" not in kernel.mutants:
        await vm_page_io_finish(m)
    if vmflush_flags & OBJPC_TRY_TO_CACHE:
        await vm_page_try_to_cache(m)
        return
    if kernel.vmmeter.count_severe(*await paging_counts(kernel)):
        await vm_page_deactivate(m)
    await vm_page_wakeup(m)

"""Taking pages out of an object, or their dirt. DragonFly vm_object.c:vm_object_page_remove,
vm_object_page_clean, vm_object_deallocate, vm_object_terminate.
"""

from __future__ import annotations

from vkhost.kern.panic import kkassert
from vkhost.vm.vm import VM_PROT_NONE, VM_PROT_READ
from vkhost.vm.vm_object import OBJT_VNODE, VmObject, vm_object_pip_wait
from vkhost.vm.vm_page import PG_CLEANCHK, PG_NOSYNC, VmPage
from vkhost.vm.vm_page_alloc import vm_page_free, vm_page_remove
from vkhost.vm.vm_page_busy import (
    vm_page_busy_try,
    vm_page_lookup_busy_try,
    vm_page_lookup_busy_wait,
    vm_page_sleep_busy,
    vm_page_wakeup,
)
from vkhost.vm.vm_page_dirty import (
    vm_page_flag_clear,
    vm_page_flag_set,
    vm_page_protect,
    vm_page_test_dirty,
)
from vkhost.vm.vm_page_queue import PQ_CACHE
from vkhost.vm.vm_page_wire import vm_page_hold, vm_page_unhold
from vkhost.vm.vm_pageout_clean import OBJPC_INVAL, OBJPC_NOSYNC, OBJPC_SYNC, vm_pageout_flush


async def vm_object_page_remove(obj: VmObject, start: int, end: int, clean_only: bool) -> None:
    """Free the resident pages of [start, end), end 0: all; the dirty ones too unless `clean_only`.

    A wired page keeps its place but not its mappings nor its content's worth.
    """
    async with obj.token:
        await obj.paging_in_progress.add(1)
        for pindex in sorted(p for p in obj.memq if start <= p < (end or p + 1)):
            m = await vm_page_lookup_busy_wait(obj, pindex, "vmopar")
            if m is not None:
                await _page_remove(m, clean_only)
        await obj.paging_in_progress.add(-1)


async def _page_remove(m: VmPage, clean_only: bool) -> None:
    """vm_object_page_remove_callback."""
    if await m.wire_count.load():
        await vm_page_protect(m, VM_PROT_NONE)
        if not clean_only:
            m.valid = 0
        await vm_page_wakeup(m)
        return
    if clean_only and await _is_dirty(m):
        await vm_page_wakeup(m)
        return
    await vm_page_protect(m, VM_PROT_NONE)
    # Taking the mappings away may have told of a change; to 5.4 nobody asked.
    if clean_only and not m.kernel.quirks.remove_tests_dirty_once and await _is_dirty(m):
        await vm_page_wakeup(m)
        return
    m.kernel.emit("page.discard", m.pfn)
    await vm_page_free(m)


async def _is_dirty(m: VmPage) -> bool:
    await vm_page_test_dirty(m)
    return bool(await m.dirty.load() & m.valid)


async def vm_object_page_clean(obj: VmObject, start: int, end: int, flags: int) -> None:
    """msync, fsync, the syncer: write the dirty pages of [start, end); end 0: to the end. `flags`:
    OBJPC_*. The caller has the vnode locked.

    Pass 1 write-protects the pages and marks them, pass 2 writes in clusters what is marked. From
    the protection on any store must fault, or it is lost (W12). Pass 1 is made for whole objects
    only, so that of a part of one nothing is written but what an earlier pass 1 has left marked.
    """
    if obj.handle is None:
        return
    async with obj.token:
        end = end or obj.size
        if start == 0 and end == obj.size:
            for pindex in sorted(obj.memq):
                await _mark(obj, pindex, flags)
        while not await _clean_marked(obj, start, end, flags):
            pass


async def _mark(obj: VmObject, pindex: int, flags: int) -> None:
    """vm_object_page_clean_pass1."""
    m = obj.memq.get(pindex)
    if m is None:
        return
    await vm_page_flag_set(m, PG_CLEANCHK)
    if flags & OBJPC_NOSYNC and await m.flags.load() & PG_NOSYNC:
        return
    if await vm_page_busy_try(m, also_m_busy=False):
        await vm_page_protect(m, VM_PROT_READ)
        await vm_page_wakeup(m)


async def _clean_marked(obj: VmObject, start: int, end: int, flags: int) -> bool:
    """One round of vm_object_page_clean_pass2 over [start, end); True when no page was busy."""
    through = True
    for pindex in sorted(p for p in obj.memq if start <= p < end):
        m = obj.memq.get(pindex)
        if m is None or not await m.flags.load() & PG_CLEANCHK:
            continue
        if not await vm_page_busy_try(m):
            await vm_page_sleep_busy(m, "vpcwai")
            through = False
        elif m.valid == 0 or m.queue == PQ_CACHE:
            await vm_page_wakeup(m)
        elif not await _is_dirty(m) or (flags & OBJPC_NOSYNC and await m.flags.load() & PG_NOSYNC):
            await vm_page_flag_clear(m, PG_CLEANCHK)
            await vm_page_wakeup(m)
        else:
            await _collect_flush(obj, m, flags)
    return through


async def _collect_flush(obj: VmObject, m: VmPage, flags: int) -> None:
    """vm_object_page_collect_flush: write m, busied, and its marked and dirty neighbours. They are
    held meanwhile; nobody asks whether they are wired, or on which queue."""
    window = m.kernel.config.cluster_pages
    first = m.pindex - m.pindex % window
    before: list[VmPage] = []
    after: list[VmPage] = []
    for pages, numbers in (
        (before, range(m.pindex - 1, first - 1, -1)),
        (after, range(m.pindex + 1, min(first + window, obj.size))),
    ):
        for pindex in numbers:
            p = await _collectable(obj, pindex)
            if p is None:
                break
            pages.append(p)
    cluster = [*reversed(before), m, *after]
    for p in cluster:
        await vm_page_flag_clear(p, PG_CLEANCHK)
        await vm_page_hold(p)
    await vm_pageout_flush(m.kernel, cluster, flags & (OBJPC_SYNC | OBJPC_INVAL))
    for p in cluster:
        await vm_page_unhold(p)


async def _collectable(obj: VmObject, pindex: int) -> VmPage | None:
    p, busy_elsewhere = await vm_page_lookup_busy_try(obj, pindex)
    if p is None or busy_elsewhere:
        return None
    if await p.flags.load() & PG_CLEANCHK:
        if p.queue != PQ_CACHE and await _is_dirty(p):
            return p
        await vm_page_flag_clear(p, PG_CLEANCHK)
    await vm_page_wakeup(p)
    return None


async def vm_object_deallocate(obj: VmObject) -> None:
    """Drop a reference. The last one of anonymous memory ends it; a file's object lives as long
    as the file is open or mapped."""
    before = await obj.ref_count.add(-1)
    kkassert(obj.kernel, before > 0, f"vm_object_deallocate: {obj.id} not referenced")
    if before != 1:
        return
    async with obj.token:
        if obj.dead or await obj.ref_count.load():
            return
        vp = obj.handle
        if vp is not None and await vp.opencount.load():
            return
        obj.dead = True
        await vm_object_terminate(obj)


async def vm_object_terminate(obj: VmObject) -> None:
    """The last reference is gone: free every page. Token held exclusively, dead set already."""
    kernel = obj.kernel
    await vm_object_pip_wait(obj, "objtrm")
    if obj.type == OBJT_VNODE:
        assert obj.handle is not None
        if not obj.handle.unlinked:
            await vm_object_page_clean(obj, 0, 0, OBJPC_SYNC)
    for pindex in sorted(obj.memq):
        m = await vm_page_lookup_busy_wait(obj, pindex, "vpooff")
        if m is not None:
            await _terminate_page(m)
    await kernel.swap.freespace_all(obj)
    kernel.objects.pop(obj.id, None)
    kernel.emit("object.destroy", obj.id)


async def _terminate_page(m: VmPage) -> None:
    """vm_object_terminate_callback."""
    if await m.wire_count.load():
        await vm_page_remove(m)
        await vm_page_wakeup(m)
        return
    await vm_page_protect(m, VM_PROT_NONE)
    m.kernel.emit("page.discard", m.pfn)
    await vm_page_free(m)

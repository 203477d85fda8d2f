"""Taking pages out of an object, or their dirt. DragonFly vm_object.c:vm_object_page_remove,
vm_object_page_clean, vm_object_terminate.
"""

from __future__ import annotations

from vkhost.vm.vm import VM_PROT_NONE, VM_PROT_READ
from vkhost.vm.vm_object import OBJT_VNODE, VmObject, vm_object_pip_wait
from vkhost.vm.vm_page import PG_CLEANCHK, PG_NOSYNC, VmPage
from vkhost.vm.vm_page_alloc import vm_page_free, vm_page_remove
from vkhost.vm.vm_page_busy import vm_page_lookup_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_dirty import (
    vm_page_flag_clear,
    vm_page_flag_set,
    vm_page_protect,
    vm_page_test_dirty,
)
from vkhost.vm.vm_pageout_clean import OBJPC_NOSYNC, OBJPC_SYNC, vm_pageout_clean_helper


async def vm_object_page_remove(obj: VmObject, start: int, end: int, clean_only: bool) -> None:
    """Free the resident pages of [start, end), the dirty ones too unless `clean_only`.

    A wired page keeps its place but not its mappings nor its content's worth.
    """
    async with obj.token:
        await obj.paging_in_progress.add(1)
        for pindex in sorted(p for p in obj.memq if start <= p < end):
            m = await vm_page_lookup_busy_wait(obj, pindex, "vmopar")
            if m is not None:
                await _page_remove(m, clean_only)
        await obj.paging_in_progress.add(-1)


async def _page_remove(m: VmPage, clean_only: bool) -> None:
    if await m.wire_count.load():
        await vm_page_protect(m, VM_PROT_NONE)
        if not clean_only:
            m.valid = 0
        await vm_page_wakeup(m)
        return
    if clean_only:
        await vm_page_test_dirty(m)
        if await m.dirty.load():
            await vm_page_wakeup(m)
            return
    await vm_page_protect(m, VM_PROT_NONE)
    m.kernel.emit("page.discard", m.pfn)
    await vm_page_free(m)


async def vm_object_page_clean(obj: VmObject, start: int, end: int, flags: int) -> None:
    """msync, fsync, the syncer: write the dirty pages of [start, end); end 0: to the
    end. `flags`: OBJPC_*.

    Pass 1 write-protects what is dirty and marks it, pass 2 writes it in clusters. From the
    protection on any store must fault, or it is lost (W12).
    """
    if obj.handle is None:
        return
    end = end or obj.size
    async with obj.token:
        wanted = sorted(p for p in obj.memq if start <= p < end)
        for pindex in wanted:
            m = await vm_page_lookup_busy_wait(obj, pindex, "vpcwai")
            if m is not None:
                await vm_page_flag_set(m, PG_CLEANCHK)
                await vm_page_protect(m, VM_PROT_READ)
                await vm_page_wakeup(m)
        for pindex in wanted:
            m = await vm_page_lookup_busy_wait(obj, pindex, "vpcwai")
            if m is not None:
                await _page_clean(m, flags)
        if flags & OBJPC_SYNC:
            await vm_object_pip_wait(obj, "vpcwait")


async def _page_clean(m: VmPage, flags: int) -> None:
    if not await vm_page_flag_clear(m, PG_CLEANCHK) & PG_CLEANCHK or m.valid == 0:
        await vm_page_wakeup(m)
        return
    await vm_page_test_dirty(m)
    if not await m.dirty.load() or (flags & OBJPC_NOSYNC and await m.flags.load() & PG_NOSYNC):
        await vm_page_wakeup(m)
        return
    await vm_pageout_clean_helper(m.kernel, m, flags)


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

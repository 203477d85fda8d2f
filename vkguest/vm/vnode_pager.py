"""Dirty pages are written, to their file or to swap. DragonFly `vm/vm_pageout.c`, `vm/vm_object.c`.

Of files there is no syncer: what a shared mapping has changed is written by msync, by the page
daemon when it takes the page, and when the mapping goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.mman import PROT_READ

from vkguest.kern.vkdisk import vkdisk_write
from vkguest.vkernel64.pmap_page import pmap_is_modified, pmap_page_protect
from vkguest.vm.swap_pager import swap_pager_putpage
from vkguest.vm.vm_page import (
    PQ_ACTIVE,
    vm_page_busy_try,
    vm_page_requeue,
    vm_page_sleep_busy,
    vm_page_wakeup,
)

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vm.vm_object import VmObject
    from vkguest.vm.vm_page import VmPage


async def vm_page_test_dirty(gd: GlobalData, m: VmPage) -> bool:
    """vm_page.c:vm_page_test_dirty: the page's own flag, or M in a VPTE."""
    async with m.spin:
        dirty = m.dirty
    return dirty or await pmap_is_modified(gd, m)


async def vm_pageout_flush(gd: GlobalData, m: VmPage) -> None:
    """vm_pageout.c:vm_pageout_flush: protect, mark clean, write: to its file, or to swap.

    The page stays mapped read-only. A write meanwhile faults, waits for the busy bit, and dirties
    it anew; that is why M must have been cleared together with RW, and with an INVAL.
    """
    await pmap_page_protect(gd, m, PROT_READ)
    async with m.spin:
        m.dirty = False
    obj = m.object
    assert obj is not None, "a queued page has an object, and keeps it while it is busied"
    async with obj.lock:
        if obj.disk is None:
            written = await swap_pager_putpage(gd, m)
        else:
            await vkdisk_write(gd, obj, m)
            written = True
    if not written:
        async with m.spin:
            m.dirty = True
        await vm_page_requeue(gd, m, PQ_ACTIVE)


async def vm_object_page_clean(gd: GlobalData, obj: VmObject, start: int, end: int) -> None:
    """vm_object.c:vm_object_page_clean: the dirty pages of a file, from `start` to before `end`."""
    for pindex in range(start, end):
        m = await _busied(obj, pindex)
        if m is not None:
            if await vm_page_test_dirty(gd, m):
                await vm_pageout_flush(gd, m)
            await vm_page_wakeup(m)


async def _busied(obj: VmObject, pindex: int) -> VmPage | None:
    while True:
        async with obj.lock:
            m = obj.pages.get(pindex)
            if m is None or await vm_page_busy_try(m):
                return m
        await vm_page_sleep_busy(m)

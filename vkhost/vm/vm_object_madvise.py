"""Advice about the pages of one object. DragonFly sys/vm/vm_object.c:vm_object_madvise.

Only the object itself is looked at, not the layers behind it. WILLNEED does nothing: it would only
bring in what the next fault brings in.
"""

from __future__ import annotations

from vkprotocol.mman import MADV_FREE, MADV_WILLNEED

from vkhost.pc64.pmap import pmap_clearbit
from vkhost.pc64.pmap_bits import PTE_M
from vkhost.vm.swap_pager import swap_pager_unswapped
from vkhost.vm.vm import VM_PROT_READ
from vkhost.vm.vm_object import OBJT_DEFAULT, OBJT_SWAP, VmObject
from vkhost.vm.vm_page import PG_NEED_COMMIT, PG_UNQUEUED, VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_busy import vm_page_lookup_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_cache import vm_page_dontneed
from vkhost.vm.vm_page_dirty import vm_page_protect, vm_page_undirty

UNFIT = PG_UNQUEUED | PG_NEED_COMMIT


async def vm_object_madvise(obj: VmObject, pindex: int, count: int, advise: int) -> None:
    """DONTNEED, FREE or WILLNEED for `count` pages from pindex on. FREE: of anonymous memory that
    nobody shares, whose content may go before it is written again."""
    if advise == MADV_WILLNEED:
        return
    if advise == MADV_FREE and obj.type not in (OBJT_DEFAULT, OBJT_SWAP):
        return
    async with obj.token:
        if advise == MADV_FREE and not await obj.onemapping.load():
            return
        there = {*obj.memq, *obj.swblocks}
        for index in sorted(i for i in there if pindex <= i < pindex + count):
            m = await vm_page_lookup_busy_wait(obj, index, "madvpo")
            if m is not None:
                await _advise(m, advise)
                await vm_page_wakeup(m)
            elif advise == MADV_FREE:
                await obj.kernel.swap.freespace(obj, index, index + 1)


async def _advise(m: VmPage, advise: int) -> None:
    flags = await m.flags.load()
    if m.valid != VM_PAGE_BITS_ALL or await m.wire_count.load() or flags & UNFIT:
        return
    if advise == MADV_FREE:
        if m.kernel.quirks.free_without_flush:
            await pmap_clearbit(m, PTE_M)
        else:
            await vm_page_protect(m, VM_PROT_READ)
        m.kernel.emit("page.discard", m.pfn)
        await vm_page_undirty(m)
        m.act_count = 0
        await swap_pager_unswapped(m)  # or the page comes back as it once was
    await vm_page_dontneed(m)

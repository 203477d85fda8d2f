"""Advice about the pages of one object. DragonFly sys/vm/vm_object.c:vm_object_madvise.

Only the object itself is looked at, not the layers behind it.
"""

from __future__ import annotations

from vkprotocol.mman import MADV_FREE, MADV_WILLNEED

from vkhost.pc64.pmap import pmap_clearbit
from vkhost.pc64.pmap_bits import PTE_M
from vkhost.vm.swap_pager import swap_pager_unswapped
from vkhost.vm.vm import VM_PROT_READ
from vkhost.vm.vm_object import OBJT_DEFAULT, OBJT_SWAP, VmObject
from vkhost.vm.vm_page import PG_NEED_COMMIT, PG_UNQUEUED, VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_busy import vm_page_lookup_busy_try, vm_page_sleep_busy, vm_page_wakeup
from vkhost.vm.vm_page_cache import vm_page_dontneed
from vkhost.vm.vm_page_dirty import vm_page_protect, vm_page_undirty
from vkhost.vm.vm_page_lru import vm_page_activate

UNFIT = PG_UNQUEUED | PG_NEED_COMMIT


async def vm_object_madvise(obj: VmObject, pindex: int, count: int, advise: int) -> None:
    """DONTNEED, FREE or WILLNEED for `count` pages from pindex on. FREE: of anonymous memory that
    nobody shares, whose content may go before it is written again, what is on swap at once."""
    async with obj.token:
        for index in _known(obj, pindex, pindex + count):
            # The token is lost in every sleep, for a page that is busy or a call that is answered.
            while advise != MADV_FREE or await _freeable(obj):
                m, busy = await vm_page_lookup_busy_try(obj, index)
                if not busy:
                    await _advise(obj, index, m, advise)
                    break
                assert m is not None
                await vm_page_sleep_busy(m, "madvpo")


def _known(obj: VmObject, start: int, end: int) -> list[int]:
    return sorted(i for i in {*obj.memq, *obj.swblocks} if start <= i < end)


async def _freeable(obj: VmObject) -> bool:
    return obj.type in (OBJT_DEFAULT, OBJT_SWAP) and bool(await obj.onemapping.load())


async def _advise(obj: VmObject, pindex: int, m: VmPage | None, advise: int) -> None:
    """m busied, and let go of here."""
    if m is not None:
        flags = await m.flags.load()
        if m.valid != VM_PAGE_BITS_ALL or await m.wire_count.load() or flags & UNFIT:
            await vm_page_wakeup(m)
            return
        if advise == MADV_WILLNEED:
            await vm_page_activate(m)
        elif advise == MADV_FREE:
            await _free(m)
        else:
            await vm_page_dontneed(m)
        await vm_page_wakeup(m)
    elif advise == MADV_FREE:
        await obj.kernel.swap.freespace(obj, pindex, pindex + 1)


async def _free(m: VmPage) -> None:
    if m.kernel.quirks.free_without_flush:
        await pmap_clearbit(m, PTE_M)
    else:
        await vm_page_protect(m, VM_PROT_READ)
    m.kernel.emit("page.discard", m.pfn)
    await vm_page_undirty(m)
    m.act_count = 0
    await vm_page_dontneed(m)
    await swap_pager_unswapped(m)  # or the page comes back as it once was

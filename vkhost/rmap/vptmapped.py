"""Patch #3389 as submitted ([P]): the extent scan plus one flag, PG_VPTMAPPED.

The flag says that a VPTE has led to the page once, so that the scan cannot be trusted. What each
query does about it is the patch to the letter, early returns included (facts 6.2): nothing ever
reaches the PTEs the scan misses.
"""

from __future__ import annotations

from vkhost.pc64.pmap_bits import PTE_M, PTE_RW
from vkhost.rmap.extent_scan import ExtentScan
from vkhost.vm.vm_page import (
    PG_MAPPED,
    PG_MAPPEDMULTI,
    PG_REFERENCED,
    PG_VPTMAPPED,
    PG_WRITEABLE,
    VmPage,
)
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_flag_clear, vm_page_flag_set


class Vptmapped(ExtentScan):
    name = "vptmapped"

    async def mapped_through_vpte(self, m: VmPage) -> None:
        await vm_page_flag_set(m, PG_VPTMAPPED)

    async def remove_all(self, m: VmPage) -> None:
        flags = await m.flags.load()
        if not flags & PG_MAPPED:
            return  # and PG_VPTMAPPED stays (W10)
        if flags & PG_VPTMAPPED:
            await vm_page_dirty(m)
            await vm_page_flag_set(m, PG_REFERENCED)
        await self.remove_found(m, None)
        await vm_page_flag_clear(m, PG_MAPPED | PG_MAPPEDMULTI | PG_WRITEABLE | PG_VPTMAPPED)

    async def testbit(self, m: VmPage, bit: int) -> bool:
        flags = await m.flags.load()
        if bit == PTE_M and not flags & PG_WRITEABLE:
            return False  # also when RW PTEs are left (W12)
        if flags & PG_VPTMAPPED:
            return True
        return await super().testbit(m, bit)

    async def clearbit(self, m: VmPage, bit: int) -> None:
        flags = await m.flags.load()
        if not flags & (PG_MAPPED | PG_WRITEABLE):
            return
        if flags & PG_VPTMAPPED:
            if bit == PTE_RW:
                await vm_page_dirty(m)
                await vm_page_flag_clear(m, PG_WRITEABLE)
            return  # even the PTEs the scan would find stay as they are
        await super().clearbit(m, bit)

    async def ts_referenced(self, m: VmPage) -> int:
        if await m.flags.load() & PG_VPTMAPPED:
            return 1
        return await super().ts_referenced(m)

"""The extent scan of May 2019 - January 2021 ([20]): no record of any PTE is kept.

An object knows the vm_map_backings that map parts of it. Where page `pindex` is mapped follows by
arithmetic, and the one PTE there is looked at. For a VPAGETABLE backing the arithmetic is wrong,
and is done all the same: if the PTE at that address happens to map the page, it is found.

DragonFly pc64 pmap.c:PMAP_PAGE_BACKING_SCAN, pmap_remove_all, pmap_remove_specific, pmap_testbit,
pmap_clearbit, pmap_ts_referenced. Every PTE is changed without its placemark, by compare-and-set;
pages on their way out of one are waited for by interlock_count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum

from vkprotocol.effects import CLOCK

from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_RW, PTE_W, pte_pfn
from vkhost.pc64.pmap_inval import pmap_inval_smp_cmpset, pte_clear_bits, pte_cmpset
from vkhost.pc64.pmap_pte import Pte
from vkhost.pc64.pmap_removed import pmap_interlock_wait, pmap_removed_am
from vkhost.rmap.interface import Rmap
from vkhost.vm.vm_page import PG_MAPPED, PG_MAPPEDMULTI, PG_WRITEABLE, VmPage
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_flag_clear


class Scan(Enum):
    """What the body of a scan says about going on."""

    NEXT = 0
    RETRY = 1  # the PTE changed: the same backing again
    DONE = 2


# Called with (pmap, PTE, its value) for each PTE that maps the page.
ScanBody = Callable[[Pmap, Pte, int], Awaitable[Scan]]


class ExtentScan(Rmap):
    """State: none but what vm_map keeps anyway."""

    name = "extent_scan"

    async def scan(self, m: VmPage, only: Pmap | None, body: ScanBody) -> Scan:
        """PMAP_PAGE_BACKING_SCAN. The page is busied, so its object and index stay.

        DONE when the body wanted no more.
        """
        verdict = Scan.NEXT
        obj = m.object
        if obj is None:
            return verdict
        position = m.pindex << 12
        await obj.backing_lk.acquire_shared()
        for ba in list(obj.backing_list):
            pmap: Pmap = ba.pmap
            if only is not None and pmap is not only:
                continue
            if not ba.offset <= position < ba.offset + (ba.end - ba.start):
                continue
            pte = pmap.pte(ba.start + position - ba.offset)
            verdict = await self.visit(m, pmap, pte, body)
            if verdict is Scan.DONE:
                break
        await obj.backing_lk.release()
        return verdict

    async def visit(self, m: VmPage, pmap: Pmap, pte: Pte, body: ScanBody) -> Scan:
        """One PTE, for as long as it maps the page and the body is not through with it."""
        while True:
            value: int = await pte.load()
            self.visited += 1
            if not value or pte_pfn(value) != m.pfn:
                return Scan.NEXT
            self.found += 1
            verdict = await body(pmap, pte, value)
            if verdict is not Scan.RETRY:
                return verdict

    async def remove_all(self, m: VmPage) -> None:
        if not await m.flags.load() & PG_MAPPED:
            return  # it is believed
        await self.remove_found(m, None)
        await vm_page_flag_clear(m, PG_MAPPED | PG_MAPPEDMULTI | PG_WRITEABLE)

    async def remove_specific(self, pmap: Pmap, m: VmPage) -> None:
        """PTEs on their way out are not waited for, and no flag is cleared but by the removal of a
        page's only PTE: where the scan is blind the page stays PG_MAPPED."""
        if await m.flags.load() & PG_MAPPED:
            await self.remove_found(m, pmap)

    async def remove_found(self, m: VmPage, only: Pmap | None) -> None:
        """Remove what the scan finds; from every pmap, until none is in flight."""

        async def remove(pmap: Pmap, pte: Pte, value: int) -> Scan:
            if not await pmap_inval_smp_cmpset(pmap, pte, value, 0, "remove_all"):
                return Scan.RETRY
            self.flushes += 1
            pmap.wired_count -= bool(value & PTE_W)
            await pmap_removed_am(m, value)
            await self.remove(pmap, m, pte, value)
            return Scan.NEXT

        since = CLOCK[0]
        await self.scan(m, only, remove)
        while only is None and await pmap_interlock_wait(m, since):
            await self.scan(m, only, remove)

    async def testbit(self, m: VmPage, bit: int) -> bool:
        if bit == PTE_M and not await m.flags.load() & PG_WRITEABLE:
            return False
        found = False

        async def test(pmap: Pmap, pte: Pte, value: int) -> Scan:
            nonlocal found
            found = bool(value & bit)
            done = found or "first-pte-only" in self.kernel.mutants
            return Scan.DONE if done else Scan.NEXT

        await self.scan(m, None, test)
        return found

    async def clearbit(self, m: VmPage, bit: int) -> None:
        flags = await m.flags.load()
        if not flags & (PG_MAPPED | PG_WRITEABLE):
            return
        if bit == PTE_RW:
            if flags & PG_WRITEABLE:
                await self._make_read_only(m)
            return

        async def clear(pmap: Pmap, pte: Pte, value: int) -> Scan:
            # No flush: a TLB that has the PTE cached goes on without telling.
            await pte_clear_bits(pmap, pte, bit, "clearbit")
            return Scan.NEXT

        await self.scan(m, None, clear)

    async def _make_read_only(self, m: VmPage) -> None:
        async def protect(pmap: Pmap, pte: Pte, value: int) -> Scan:
            if not value & PTE_RW:
                return Scan.NEXT
            if not await pmap_inval_smp_cmpset(
                pmap, pte, value, value & ~(PTE_RW | PTE_M), "clearbit"
            ):
                return Scan.RETRY
            self.flushes += 1
            if value & PTE_M and "protect-drops-modified" not in self.kernel.mutants:
                await vm_page_dirty(m)
            return Scan.NEXT

        since = CLOCK[0]
        await self.scan(m, None, protect)
        while await pmap_interlock_wait(m, since):
            await self.scan(m, None, protect)
        await vm_page_flag_clear(m, PG_WRITEABLE)

    async def ts_referenced(self, m: VmPage) -> int:
        count = 0

        max_references = 4  # pmap_ts_referenced stops counting after that

        async def reference(pmap: Pmap, pte: Pte, value: int) -> Scan:
            nonlocal count
            if not value & PTE_A:
                return Scan.NEXT
            if not await pte_cmpset(pmap, pte, value, value & ~PTE_A, "ts_referenced"):
                return Scan.RETRY
            count += 1
            return Scan.DONE if count > max_references else Scan.NEXT

        await self.scan(m, None, reference)
        return count

"""Option A as recommended (Phase 1): a flag, and for a flagged page a flush of whole regions.

Idea: PG_VPTMAPPED says that the scan cannot be trusted for this page. A query about such a page
does what a MADV_INVAL of every VPAGETABLE region that might hold it would do: after that no PTE of
the page is left but what the scan finds, A and M of the lost ones are the page's, and whoever still
needs the translation faults. Source: the analysis of patch #3389, section 7, Phase 1 step 4, which
the patch leaves out (its appendix C, future work 2).

Relies on: the page's busy, which keeps faults from entering the page again during the query.
Lock order: page busy, backing_lk (dropped before the flush), PTE placemark.
Cost: nothing to enter or remove; a query about a flagged page visits every PTE of every region of
the page's object, and everything flushed there has to be faulted in again.
"""

from __future__ import annotations

from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_A, PTE_M
from vkhost.pc64.pmap_remove import pmap_remove_pte
from vkhost.rmap.extent_scan import ExtentScan, Scan, ScanBody
from vkhost.vm.vm import VM_MAPTYPE_VPAGETABLE
from vkhost.vm.vm_page import PG_REFERENCED, PG_VPTMAPPED, VmPage
from vkhost.vm.vm_page_dirty import vm_page_flag_clear, vm_page_flag_set

Region = tuple[Pmap, int, int]  # [start, end) of it


class Broadcast(ExtentScan):
    name = "broadcast"

    async def mapped_through_vpte(self, m: VmPage) -> None:
        await vm_page_flag_set(m, PG_VPTMAPPED)

    async def scan(self, m: VmPage, only: Pmap | None, body: ScanBody) -> Scan:
        if await m.flags.load() & PG_VPTMAPPED and "broadcast-skipped" not in self.kernel.mutants:
            await self.flush_regions(m, only)
        return await super().scan(m, only, body)

    async def flush_regions(self, m: VmPage, only: Pmap | None) -> None:
        """Remove every PTE of the VPAGETABLE regions of m's object."""
        for pmap, start, end in await self._regions(m, only):
            ptes = await pmap.valid_ptes(start, end)
            self.visited += len(ptes)
            self.flushes += len(ptes)
            for pte in ptes:
                await pmap_remove_pte(pmap, pte, m)
        if only is None:
            # Entering it again needs the page's busy, which is ours.
            await vm_page_flag_clear(m, PG_VPTMAPPED)

    async def _regions(self, m: VmPage, only: Pmap | None) -> list[Region]:
        """By value: a clip that cuts an extent meanwhile has listed the other part before, so all
        that the page may be mapped in is in what the list said at any one moment."""
        obj = m.object
        assert obj is not None
        await obj.backing_lk.acquire_shared()
        regions = [
            (ba.pmap, ba.start, ba.end)
            for ba in obj.backing_list
            if ba.maptype == VM_MAPTYPE_VPAGETABLE and only in (None, ba.pmap)
        ]
        await obj.backing_lk.release()
        return regions

    async def testbit(self, m: VmPage, bit: int) -> bool:
        """The flush moves M and A to the page: then the page is what to ask."""
        flagged = await m.flags.load() & PG_VPTMAPPED
        if await super().testbit(m, bit):
            return True
        if not flagged:
            return False
        if bit == PTE_A:
            return bool(await m.flags.load() & PG_REFERENCED)
        return bool(bit == PTE_M and await m.dirty.load())

    async def clearbit(self, m: VmPage, bit: int) -> None:
        """What the flush makes of A is taken back; of M, it is the caller who undirties a page."""
        before = await m.flags.load() & PG_REFERENCED
        await super().clearbit(m, bit)
        if bit == PTE_A and not before and await m.flags.load() & PG_REFERENCED:
            await vm_page_flag_clear(m, PG_REFERENCED)

    async def ts_referenced(self, m: VmPage) -> int:
        """The flush moves A to PG_REFERENCED; that reference is counted, and used up, here."""
        flagged = await m.flags.load() & PG_VPTMAPPED
        before = await m.flags.load() & PG_REFERENCED
        count = await super().ts_referenced(m)
        if flagged and not before and await m.flags.load() & PG_REFERENCED:
            await vm_page_flag_clear(m, PG_REFERENCED)
            count += 1
        return count

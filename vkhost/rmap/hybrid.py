"""The analysis's recommendation: Phase 1 (flag and broadcast), then Phase 2 (lists) where it hurts.

Idea: most pages are never asked about, so they are only flagged. The first query about a page
flushes the regions that might map it; from then on that page's mappings are few and new, and are
kept on a list. Source: the analysis of patch #3389, section 7.

Relies on: what `broadcast` and `vpte_list` rely on; that a page becomes `tracked` in the very query
that has left it with no untracked mapping, under its busy.
Lock order: as both.
Cost: a flag for pages never reclaimed, 24 bytes a mapping for those that were asked about once, one
broadcast for each page and owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_pte import Pte
from vkhost.rmap.broadcast import Broadcast
from vkhost.rmap.extent_scan import Scan, ScanBody
from vkhost.rmap.vpte_list import VpteList
from vkhost.vm.vm_map import VmMapEntry
from vkhost.vm.vm_page import PG_VPTMAPPED, VmPage

if TYPE_CHECKING:
    from vkhost.kernel import Kernel


class Hybrid(Broadcast, VpteList):
    name = "hybrid"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        # Frame -> the generation of the owner whose mappings are all listed. Under the page's busy.
        self._tracked: dict[int, int] = {}

    async def enter(self, pmap: Pmap, m: VmPage, pte: Pte, entry: VmMapEntry | None) -> None:
        if self.tracks(m):
            await VpteList.enter(self, pmap, m, pte, entry)

    async def mapped_through_vpte(self, m: VmPage) -> None:
        if not self.tracks(m):
            await Broadcast.mapped_through_vpte(self, m)

    async def scan(self, m: VmPage, only: Pmap | None, body: ScanBody) -> Scan:
        if only is None and not self.tracks(m) and await m.flags.load() & PG_VPTMAPPED:
            await self.flush_regions(m, None)
            self._tracked[m.pfn] = m.frame.generation
        return await super().scan(m, only, body)

    def tracks(self, m: VmPage) -> bool:
        """Precondition: m busied."""
        return self._tracked.get(m.pfn) == m.frame.generation

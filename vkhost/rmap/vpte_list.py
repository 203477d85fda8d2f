"""Option B: a list a page of the host PTEs that a VPTE led to; the extent scan finds the others.

Idea: DragonFly's extents are right for NORMAL mappings, so only the mappings made through VPTEs
need a record. Source: the analysis of patch #3389, section 6.2 (struct vpte_rmap).

Relies on: nothing of the guest. An entry is on the list from before its PTE is installed (under the
page's busy and the PTE's placemark) until after the PTE is gone; a PTE on its way out is waited for
by interlock_count, as the scan's are.
Lock order: page busy, PTE placemark, list spinlock (PV_LIST).
Cost: about 24 bytes a mapping, always; a list operation a mapping made or removed; a query visits
the k mappings of its page, plus one PTE for each extent.
"""

from __future__ import annotations

from typing import Final

from vkprotocol.effects import Lock
from vkprotocol.guarded import guarded_by

from vkhost.kern.lockorder import PV_LIST
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_pte import Pte
from vkhost.rmap.extent_scan import ExtentScan, Scan, ScanBody
from vkhost.vm.vm import VM_MAPTYPE_VPAGETABLE
from vkhost.vm.vm_map import VmMapEntry
from vkhost.vm.vm_page import VmPage

VPTE_RMAP_BYTES: Final = 24  # struct vpte_rmap: pmap, va and half of its two links


@guarded_by("self", "ptes")
class VpteRmaps(Lock):
    """md.vpte_list and its spinlock. `ptes`: PTE -> pmap, in order of entry."""

    __slots__ = ("ptes",)

    def __init__(self, m: VmPage) -> None:
        super().__init__(("vpte_list", m.pfn), rank=PV_LIST)
        self.ptes: dict[Pte, Pmap] = {}


def vpte_rmaps(m: VmPage) -> VpteRmaps:
    if m.pv_list is None:
        m.pv_list = VpteRmaps(m)
    rmaps: VpteRmaps = m.pv_list
    return rmaps


class VpteList(ExtentScan):
    name = "vpte_list"

    async def enter(self, pmap: Pmap, m: VmPage, pte: Pte, entry: VmMapEntry | None) -> None:
        if entry is None or entry.maptype != VM_MAPTYPE_VPAGETABLE:
            return
        if "vpte-list-forgotten" in self.kernel.mutants:
            return
        rmaps = vpte_rmaps(m)
        async with rmaps:
            rmaps.ptes[pte] = pmap
            self.grow(VPTE_RMAP_BYTES)

    async def remove(self, pmap: Pmap, m: VmPage, pte: Pte, old: int) -> None:
        rmaps = vpte_rmaps(m)
        async with rmaps:
            if rmaps.ptes.pop(pte, None) is not None:
                self.grow(-VPTE_RMAP_BYTES)
        await super().remove(pmap, m, pte, old)

    async def scan(self, m: VmPage, only: Pmap | None, body: ScanBody) -> Scan:
        if await super().scan(m, only, body) is Scan.DONE:
            return Scan.DONE
        # New ones need the page's busy, which is ours; those that leave meanwhile are looked at
        # once too often, and their frame no longer compares.
        rmaps = vpte_rmaps(m)
        async with rmaps:
            listed = [(pmap, pte) for pte, pmap in rmaps.ptes.items() if only in (None, pmap)]
        for pmap, pte in listed:
            if await self.visit(m, pmap, pte, body) is Scan.DONE:
                return Scan.DONE
        return Scan.NEXT

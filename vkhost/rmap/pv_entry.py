"""One pv_entry for each host PTE, to 5.4 ([54]): exact, whatever the address says.

DragonFly [54] pc64 pmap.c: m->md.pv_list under the page's spinlock. An entry is on the list from
before its PTE is installed until after the PTE is gone and its A and M are the page's; and each
PTE is changed with its placemark (the pv lock) held. So an empty list means no PTE, none in
flight either: interlock_count is not needed (W33).
"""

from __future__ import annotations

from typing import Final

from vkprotocol.effects import Lock
from vkprotocol.guarded import guarded_by

from vkhost.kern.lockorder import PV_LIST
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_RW, PTE_W, pte_pfn
from vkhost.pc64.pmap_inval import pmap_inval_smp, pmap_inval_smp_cmpset, pte_clear_bits, pte_cmpset
from vkhost.pc64.pmap_pte import Pte
from vkhost.pc64.pmap_removed import pmap_removed_am
from vkhost.rmap.interface import Rmap
from vkhost.vm.vm_map import VmMapEntry
from vkhost.vm.vm_page import PG_MAPPED, PG_MAPPEDMULTI, PG_WRITEABLE, VmPage
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_flag_clear

PV_ENTRY_BYTES: Final = 80  # struct pv_entry: pmap, index, list and tree links, page, hold, flags


@guarded_by("self", "ptes")
class PvList(Lock):
    """md.pv_list and its spinlock. `ptes`: guarded by itself; PTE -> pmap, in order of entry."""

    __slots__ = ("ptes",)

    def __init__(self, m: VmPage) -> None:
        super().__init__(("pv_list", m.pfn), rank=PV_LIST)
        self.ptes: dict[Pte, Pmap] = {}


def pv_list(m: VmPage) -> PvList:
    if m.pv_list is None:
        m.pv_list = PvList(m)
    pvs: PvList = m.pv_list
    return pvs


class PvEntry(Rmap):
    name = "pv_entry"

    async def enter(self, pmap: Pmap, m: VmPage, pte: Pte, entry: VmMapEntry | None) -> None:
        if "pv-entry-forgotten" in self.kernel.mutants and pmap.resident_count % 2:
            return
        pvs = pv_list(m)
        async with pvs:
            pvs.ptes[pte] = pmap
            self.grow(PV_ENTRY_BYTES)

    async def remove(self, pmap: Pmap, m: VmPage, pte: Pte, old: int) -> None:
        pvs = pv_list(m)
        async with pvs:
            if pvs.ptes.pop(pte, None) is not None:
                self.grow(-PV_ENTRY_BYTES)
            if not pvs.ptes:
                await vm_page_flag_clear(m, PG_MAPPED | PG_MAPPEDMULTI | PG_WRITEABLE)

    async def remove_all(self, m: VmPage) -> None:
        if not await m.flags.load() & PG_MAPPED:
            return
        await self._remove_listed(m, None)
        await vm_page_flag_clear(m, PG_MAPPED | PG_MAPPEDMULTI | PG_WRITEABLE)

    async def remove_specific(self, pmap: Pmap, m: VmPage) -> None:
        if await m.flags.load() & PG_MAPPED:
            await self._remove_listed(m, pmap)

    async def _remove_listed(self, m: VmPage, only: Pmap | None) -> None:
        """One after the other, each with its placemark held instead of the list's spinlock."""
        while True:
            pvs = pv_list(m)
            async with pvs:
                pmap, pte = next(
                    ((p, t) for t, p in pvs.ptes.items() if only in (None, p)), (None, None)
                )
            if pmap is None or pte is None:
                return
            async with pte.locked(pmap):
                # Whoever held the placemark before us may have taken the PTE, and its pv_entry.
                value: int = await pte.load()
                self.visited += 1
                if not value or pte_pfn(value) != m.pfn:
                    continue
                self.found += 1
                self.flushes += 1
                value = await pmap_inval_smp(pmap, pte, 0, 0, "remove_all")
                pmap.wired_count -= bool(value & PTE_W)
                await pmap_removed_am(m, value)
                await self.remove(pmap, m, pte, value)

    async def testbit(self, m: VmPage, bit: int) -> bool:
        if bit == PTE_M and not await m.flags.load() & PG_WRITEABLE:
            return False
        pvs = pv_list(m)
        async with pvs:
            for pte in pvs.ptes:
                self.visited += 1
                self.found += 1
                value: int = await pte.load()
                if value & bit and pte_pfn(value) == m.pfn:
                    return True
                if "first-pte-only" in self.kernel.mutants:
                    break
        return False

    async def clearbit(self, m: VmPage, bit: int) -> None:
        if not await m.flags.load() & (PG_MAPPED | PG_WRITEABLE):
            return
        if bit == PTE_RW:
            await self._make_read_only(m)
            return
        pvs = pv_list(m)
        async with pvs:
            for pte, pmap in pvs.ptes.items():
                self.visited += 1
                self.found += 1
                if pte_pfn(await pte.load()) == m.pfn:
                    await pte_clear_bits(pmap, pte, bit, "clearbit")

    async def _make_read_only(self, m: VmPage) -> None:
        """The shootdown waits for other CPUs, so the spinlock is dropped for each PTE. Nobody
        makes another one writable meanwhile: that needs the page's busy."""
        while True:
            pvs = pv_list(m)
            async with pvs:
                found = await self._first_writable(m, pvs)
            if found is None:
                break
            pmap, pte, value = found
            if await pmap_inval_smp_cmpset(pmap, pte, value, value & ~(PTE_RW | PTE_M), "clearbit"):
                self.flushes += 1
                if value & PTE_M and "protect-drops-modified" not in self.kernel.mutants:
                    await vm_page_dirty(m)
        await vm_page_flag_clear(m, PG_WRITEABLE)

    async def _first_writable(self, m: VmPage, pvs: PvList) -> tuple[Pmap, Pte, int] | None:
        for pte, pmap in pvs.ptes.items():
            self.visited += 1
            self.found += 1
            value: int = await pte.load()
            if value & PTE_RW and pte_pfn(value) == m.pfn:
                return pmap, pte, value
        return None

    async def ts_referenced(self, m: VmPage) -> int:
        count = 0
        pvs = pv_list(m)
        max_references = 4
        async with pvs:
            for pte, pmap in pvs.ptes.items():
                self.visited += 1
                self.found += 1
                while (value := await pte.load()) & PTE_A and pte_pfn(value) == m.pfn:
                    if await pte_cmpset(pmap, pte, value, value & ~PTE_A, "ts_referenced"):
                        count += 1
                        break
                if count > max_references:
                    break
        return count

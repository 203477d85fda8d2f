"""Option F, the 2026 trees: what a VPAGETABLE entry maps is wired, so nobody ever needs to ask.

Idea: a wired page is skipped by every scan, by clustering and by try_to_cache; the reverse map of
its VPTE mappings is then never consulted for reclaim. The entry is wired, pmap_enter adds one wire
for each PTE, whoever removes the PTE drops it. Source: facts 0.1 and 6.4 (h); the forks of 2026.

Relies on: the balance of wires. One for each PTE, also when one frame is mapped twice; none for a
PTE that only becomes writable, nor for a PTE that is wired because its entry is mlocked.
Lock order: as the extent scan's; the wire count is atomic.
Cost: all that the guest has mapped is pinned, beyond v_page_max_wired and RLIMIT_MEMLOCK; no bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import curthread

from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_W
from vkhost.pc64.pmap_pte import Pte
from vkhost.rmap.extent_scan import ExtentScan
from vkhost.vm.vm import MAP_ENTRY_VPAGETABLE_WIRED
from vkhost.vm.vm_map import VmMapEntry
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_busy import vm_page_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_wire import vm_page_unwire, vm_page_wire

if TYPE_CHECKING:
    from vkhost.kernel import Kernel


class Wired(ExtentScan):
    name = "wired"
    wires_vpagetable = True

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        # (PTE, frame) that have a wire from here: not those of entries somebody has mlocked.
        self._wires: dict[tuple[Pte, int], None] = {}
        # By thread: pages that lost a wired PTE to it. Unwiring needs the page's busy, for which
        # nobody may wait who holds a placemark or another page.
        self._owed: dict[int, list[VmPage]] = {}

    async def enter(self, pmap: Pmap, m: VmPage, pte: Pte, entry: VmMapEntry | None) -> None:
        if entry is not None and entry.eflags & MAP_ENTRY_VPAGETABLE_WIRED:
            self._wires[pte, m.pfn] = None
            await vm_page_wire(m)

    async def remove(self, pmap: Pmap, m: VmPage, pte: Pte, old: int) -> None:
        await super().remove(pmap, m, pte, old)
        wired = self._wires.pop((pte, m.pfn), self) is None
        # munlock and munmap take PTE_W, and the wire, before the PTE.
        if wired and old & PTE_W and "wire-never-dropped" not in self.kernel.mutants:
            self._owed.setdefault(curthread().tid, []).append(m)

    async def settle(self, busied: VmPage | None = None) -> None:
        """Who has a page busied pays for that one; the rest when it has let go."""
        owed = self._owed.pop(curthread().tid, [])
        while owed:
            m = owed.pop()
            if m is busied:
                await vm_page_unwire(m, True)
            elif busied is None:
                await vm_page_busy_wait(m, "pmunw")
                await vm_page_unwire(m, True)
                await vm_page_wakeup(m)
            else:
                self._owed.setdefault(curthread().tid, []).append(m)

    async def remove_found(self, m: VmPage, only: Pmap | None) -> None:
        """As the scan's; the caller has the page busied, so what is owed for it is paid at once."""
        await super().remove_found(m, only)
        await self.settle(m)

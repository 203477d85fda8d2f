"""Option D: the host learns of every VPTE edit, because tables are write-protected while known.

Idea: a page that a walk reads VPTEs from is a *table*: it is write-protected in every mapping, the
guest's DMAP included, before the VPTE is read. A store to it faults; the fault takes away all host
PTEs that came from the table, lets the page be written, and it stops being a table until a walk
reads it again. So no host PTE ever outlives the VPTEs it came from, INVAL or not. Frames are looked
up in the same record by their list. Source: the analysis of patch #3389, section 6.4; the shadow
paging of VMMs (Adams, Agesen, ASPLOS 2006), which unshadow on write in the same way.

Relies on: no cooperation of the guest; of the host, that it does not write into a page table by way
of a page held since before the walk (vm_fault_page: a read(2) into a table). The table's busy makes
protection against walk, and store against protection, one after the other; a fault that walked a
table which was written since (the table's `edits` differ) does not enter what it found.
Progress: none is guaranteed. A store that has faulted is repeated, and a walk may protect the table
again before it is made; the two can undo each other's work for as long as the schedule is unkind,
so that no search of them ends. (VMMs emulate the store in the fault.)
Lock order: table busy, page busy, PTE placemark, list spinlock.
Cost: a write fault with shootdowns for each first edit of a table after a walk; 24 bytes a mapping
for the list and 16 for its place under the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.effects import Cell

from vkhost.pmap import Pmap
from vkhost.pmap_bits import PTE_RW
from vkhost.pmap_pte import Pte
from vkhost.pmap_remove import pmap_remove_pte
from vkhost.rmap.vpte_list import VpteList
from vkhost.vm import VM_MAPTYPE_VPAGETABLE, VM_PROT_WRITE
from vkhost.vm_fault_state import FaultState
from vkhost.vm_page import VmPage

if TYPE_CHECKING:
    from vkhost.kernel import Kernel

TABLE_LINK_BYTES: Final = 16


class Table:
    """What is known of a page as a table. `known`, `edits`: one atomic word, changed under the
    page's busy; `derived`: the PTEs that came from it, appended with their placemark held."""

    __slots__ = ("derived", "state")

    def __init__(self, name: str, pindex: int) -> None:
        self.state = Cell(("shadow", name, pindex), (False, 0))
        self.derived = Cell(("shadow.derived", name, pindex), ())


class Shadow(VpteList):
    name = "shadow"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        # By place in the image, not by frame: a table that is paged out and in stays one.
        self._tables: dict[tuple[str, int], Table] = {}

    def table(self, m: VmPage) -> Table | None:
        assert m.object is not None
        return self._tables.get((m.object.id, m.pindex))

    def _make_table(self, m: VmPage) -> Table:
        assert m.object is not None
        place = (m.object.id, m.pindex)
        table = self._tables.get(place)
        if table is None:
            table = self._tables[place] = Table(*place)
        return table

    async def walk_begin(self, fs: FaultState) -> None:
        fs.seen = []

    async def walk_through(self, fs: FaultState, m: VmPage) -> None:
        """Write-protect the table, then it may be read. Precondition: m busied."""
        table = self._make_table(m)
        known, edits = await table.state.load()
        if not known:
            if "shadow-dmap-unprotected" not in self.kernel.mutants:
                await self.clearbit(m, PTE_RW)
            await table.state.store((True, edits))
        if fs.seen is not None:  # vm_fault_page enters nothing, and so remembers nothing
            fs.seen.append((table, edits))

    async def protection(self, fs: FaultState, m: VmPage, fault_type: int) -> int:
        """A table is entered read-only for a read; a write makes it an ordinary page first."""
        table = self.table(m)
        if table is None:
            return fs.prot
        known, edits = await table.state.load()
        if not known:
            return fs.prot
        if not fault_type & VM_PROT_WRITE:
            return fs.prot & ~VM_PROT_WRITE
        await self.unshadow(table, edits)
        return fs.prot

    async def unshadow(self, table: Table, edits: int) -> None:
        """The table is about to be written: nothing that came from it stays."""
        # First the count, so that who has walked it and not yet entered does not enter.
        await table.state.store((False, edits + 1))
        derived = await table.derived.swap(())
        self.grow(-TABLE_LINK_BYTES * len(derived))
        for pmap, pte in derived:
            await pmap_remove_pte(pmap, pte)

    async def permits(self, fs: FaultState) -> bool:
        """With the placemark held: link the PTE under its tables, then look at them.

        In this order an edit between the two finds the PTE, if only to wait for its placemark.
        """
        if fs.entry.maptype != VM_MAPTYPE_VPAGETABLE:
            return True
        pte = fs.vm_map.pmap.pte(fs.va)
        for table, _ in fs.seen:
            await self._link(table, fs.vm_map.pmap, pte)
        for table, edits in fs.seen:
            if await table.state.load() != (True, edits):
                return False
        return True

    async def _link(self, table: Table, pmap: Pmap, pte: Pte) -> None:
        while True:
            old = await table.derived.load()
            if (pmap, pte) in old:
                return
            if await table.derived.cmpset(old, (*old, (pmap, pte))):
                self.grow(TABLE_LINK_BYTES)
                return

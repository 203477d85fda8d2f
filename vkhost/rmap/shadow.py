"""Option D: the host learns of every VPTE edit, because tables are write-protected while known.

Idea: a page that a walk reads VPTEs from is a *table*: before that it is write-protected in every
mapping, the guest's DMAP included. A store to it faults, and the fault does it in the CPU's place:
first the host PTEs that came from that VPTE go, then the word is written. So no host PTE outlives
the VPTEs it came from, INVAL or not, and no walk goes on below a VPTE that has been written since
it was read: neither to a PTE, nor to A and M in what is a table no more. Frames are looked up in
the same record by their list. Source: the analysis of patch #3389, section 6.4; the shadow paging
of VMMs (Adams, Agesen, ASPLOS 2006), which emulate the store in the fault: KVM x86.c:
emulator_write_phys, mmu.c:kvm_mmu_pte_write with mmu_lock held. (KVM writes first, and then takes
away: its guests flush. Here nothing is asked of the guest, so nobody may see the word first.)

Relies on: no cooperation of the guest; of the host, that it does not write into a page table by way
of a page held since before the walk (vm_fault_page: a read(2) into a table).
Exclusion: the table's busy keeps walks out from before its PTEs go until the word is written. What
has been read before is settled by the word's count of edits: a fault links its PTE under each word
it came from in a step that compares the count, so an edit either finds the link, and waits for the
placemark if the PTE is only being entered, or refuses the fault. Edits own the lock, A and M are
set sharing it; what is compared with the lock held stays so.
Progress: a store to a table is done in its fault, once, and is never repeated. A page becomes a
table once in its life as one, and that life ends only with an operation that is done: it is zeroed
or copied over, or the kernel writes it. So a store that found an ordinary page, and has to be
repeated, finds a table at the next try or such an operation has been done between. A fault starts
again only if a word of its path has been written: by an edit that, once it has counted, waits for
nobody but who is entering a PTE, and is then done. Every repetition is paid for by a store of
somebody else that is done. (What vm_fault does on its own account is another matter: it starts
again on a busy page, and two walks through each other's data page may chase each other for ever,
on any policy.) One fault may starve under edits without end, as in any VMM.
Lock order: table busy, shadow lock, PTE placemark, list spinlock.
Cost: a fault for every store to a table, with a shootdown for each PTE that came from the word; 24
bytes a mapping for the list and 16 for its place under each of the 4 tables; the latter stay when
INVAL or reclaim takes the PTE, one a page below the word, until the word is written: which then
looks at a PTE too many, or takes one that came by another way. Nothing for VPTEs that are not
written. VMMs also give up a table that is much written and little walked (KVM's
write_flooding_count): here one that is used again without being zeroed costs a fault a store.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from vkprotocol.effects import Cell, RWLock, Step

from vkhost.kern.lockorder import SHADOW_LOCK
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_RW
from vkhost.pc64.pmap_pte import Pte
from vkhost.pc64.pmap_remove import pmap_remove_pte
from vkhost.rmap.vpte_list import VpteList
from vkhost.vm.vm import VM_MAPTYPE_VPAGETABLE, VM_PROT_WRITE
from vkhost.vm.vm_fault_state import FaultState
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_dirty import vm_page_dirty

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.pc64.cpu_access import Write

TABLE_LINK_BYTES: Final = 16


class Word(Cell):
    """A VPTE that walks have read; state: (how often it has been written, how many PTEs came from
    it since). Written with the page busied and the shadow lock; a link is added without either.
    `derived`: those PTEs, and their pmaps; changes in the steps that write the state."""

    __slots__ = ("derived",)

    def __init__(self, key: tuple[Any, ...]) -> None:
        super().__init__(key, (0, 0))
        self.derived: dict[Pte, Pmap] = {}

    @property
    def edits(self) -> int:
        """With the page busied or the shadow lock."""
        edits: int = self.state[0]
        return edits


class Table:
    """What is known of a page as a table. `known`: it is write-protected; set and cleared with the
    page busied. `words`: those that walks have read; grows with the page hard-busied."""

    __slots__ = ("known", "place", "words")

    def __init__(self, place: tuple[str, int]) -> None:
        self.place = place
        self.known = Cell(("shadow", *place), False)
        self.words: dict[int, Word] = {}

    def word(self, idx: int) -> Word:
        word = self.words.get(idx)
        if word is None:
            word = self.words[idx] = Word(("shadow.vpte", *self.place, idx))
        return word


class Shadow(VpteList):
    name = "shadow"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        # By place in the image, not by frame: a table that is paged out and in stays one.
        self._tables: dict[tuple[str, int], Table] = {}
        self.lock = RWLock(("shadow_lock",), rank=SHADOW_LOCK)

    def table(self, m: VmPage) -> Table | None:
        assert m.object is not None
        return self._tables.get((m.object.id, m.pindex))

    def _make_table(self, m: VmPage) -> Table:
        assert m.object is not None
        place = (m.object.id, m.pindex)
        table = self._tables.get(place)
        if table is None:
            table = self._tables[place] = Table(place)
        return table

    # The walk.

    async def walk_begin(self, fs: FaultState) -> None:
        fs.seen = []  # of (word, its edits when it was read)

    async def walk_through(self, fs: FaultState, m: VmPage, idx: int) -> None:
        """Write-protect the table, then it may be read. Precondition: m hard-busied."""
        table = self._make_table(m)
        if not await table.known.load():
            if "shadow-dmap-unprotected" not in self.kernel.mutants:
                await self.clearbit(m, PTE_RW)
            await table.known.store(True)
        word = table.word(idx)
        fs.seen.append((word, word.edits))

    async def write_back_begin(self, fs: FaultState) -> bool:
        """Still a table, if the words above still lead here; the lock keeps them."""
        await self.lock.acquire_shared()
        if self._stands(fs):
            return True
        await self.lock.release()
        return False

    async def write_back_end(self, fs: FaultState) -> None:
        await self.lock.release()

    def _stands(self, fs: FaultState) -> bool:
        """Nothing that the walk, if there was one, has read has been written. Lock held."""
        return all(word.edits == edits for word, edits in fs.seen or ())

    # Entering.

    async def protection(self, fs: FaultState, m: VmPage) -> int:
        """A table is entered read-only, whatever the fault was: the store will come."""
        table = self.table(m)
        if table is not None and await table.known.load():
            return fs.prot & ~VM_PROT_WRITE
        return fs.prot

    async def permits(self, fs: FaultState) -> bool:
        """With the placemark held: link the PTE under each word it came from, if all are as they
        were. An edit that comes after finds it, if only to wait for the placemark."""
        if fs.entry.maptype != VM_MAPTYPE_VPAGETABLE:
            return True
        pmap = fs.vm_map.pmap
        for word, edits in fs.seen or ():
            if not await self._link(word, edits, pmap, pmap.pte(fs.va)):
                return False
        return True

    @coroutine
    def _link(self, word: Word, edits: int, pmap: Pmap, pte: Pte) -> Step:
        yield word._write
        if word.edits != edits:
            return False
        if pte not in word.derived:
            word.derived[pte] = pmap
            word.state = (edits, len(word.derived))
            self.grow(TABLE_LINK_BYTES)
        return True

    # Writing.

    async def intercepts(self, m: VmPage) -> bool:
        """What the fault writes leaves no M anywhere, and a laundering, which is soft-busy too, may
        be about to call the page clean."""
        table = self.table(m)
        return table is not None and bool(await table.known.load())

    async def emulate(self, fs: FaultState, m: VmPage) -> bool | None:
        """m, busied so that nobody walks it, is to be written through fs.va. If it is a table: take
        away what came from the word, then write it."""
        write, table = fs.write, self.table(m)
        if write is None or table is None or not await table.known.load():
            return None
        # The shortcut asks `intercepts` with its soft busy, and a page becomes a table hard-busied.
        assert not fs.msoftonly
        await self.lock.acquire_exclusive()
        stands = self._stands(fs) or "shadow-emulate-unchecked" in self.kernel.mutants
        if stands:
            await vm_page_dirty(m)
            await self._write(table, write, m)
        await self.lock.release()
        return stands

    async def _write(self, table: Table, write: Write, m: VmPage) -> None:
        if write.idx is None:
            words = list(table.words.values())
        else:
            words = [word for word in (table.words.get(write.idx),) if word is not None]
        late = "shadow-withdrawn-after-store" in self.kernel.mutants
        if late:
            await write.perform(m.frame)
        for word in words:
            await self._withdraw(word)
        if not late:
            await write.perform(m.frame)
        if write.idx is None:  # all new: it may be a table again, once it is walked
            await table.known.store(False)

    async def kernel_writes(self, m: VmPage) -> None:
        """As a write of all of it, only that it is still to come."""
        table = self.table(m)
        if table is None or not await table.known.load():
            return
        await self.lock.acquire_exclusive()
        for word in table.words.values():
            await self._withdraw(word)
        await table.known.store(False)
        await self.lock.release()

    async def _withdraw(self, word: Word) -> None:
        """Nothing that came from the word stays, or will be entered."""
        for pte, pmap in (await self._edited(word)).items():
            await pmap_remove_pte(pmap, pte)

    @coroutine
    def _edited(self, word: Word) -> Step:
        """One edit more; the links it finds."""
        yield word._write
        edits, derived = word.edits, word.derived
        if "shadow-edit-uncounted" not in self.kernel.mutants:
            edits += 1
        if "shadow-derived-kept" in self.kernel.mutants:
            word.state = (edits, len(derived))
            return {}
        word.derived = {}
        word.state = (edits, 0)
        self.grow(-TABLE_LINK_BYTES * len(derived))
        return derived

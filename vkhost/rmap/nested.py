"""Option E: nested paging. The CPU walks the guest's tables itself; no host PTE caches a VPTE.

Idea: what a VPTE names is a guest-physical page, a pindex of the memory image. Each image has a
*second-stage* table (EPT, NPT), an address space of its own in which one NORMAL entry maps the
image from 0 on; a CPU that misses its TLB in a VPAGETABLE entry walks the guest's tables through it
(nested_walk.py). A page that is not there is an EPT violation: vm_fault in that address space, at
the guest-physical address, the ordinary way. So the host maps each page of an image once, whatever
the guest's processes are; the combination of both stages is in TLBs only. Source: the analysis of
patch #3389, section 6.5; git a86ce0cd34 (vkernels with EPT, 2013); Bhargava et al., ASPLOS 2008.

Reverse map: the pv_entries of `pv_entry`, so that what differs from that policy is the walk alone.
Second-stage PTEs are where arithmetic says, so the extent scan would find them too.

Flushes: nothing finds the TLB entries that a guest-physical page is combined into. Taking a page
from the second stage flushes all of the TLB of every CPU that runs the guest, in whichever of its
address spaces. The guest's own edits it flushes by address: MADV_INVAL, which stands for the
guest's invlpg and IPIs, touches no PTE. No fault holds what a walk has found, so there is nothing
for an interlock to do, and vm_fault takes none.

A VPAGETABLE entry is known to the CPU by its root (nested_walk.Root), which the first fault in the
entry installs, the map lock shared, and whoever changes the entry takes away, the lock exclusive
(`unroot`); the last one of an image takes its second stage along. A root names one object, so an
entry that needs a copy is shadowed before it gets one.

Relies on: the guest, for its INVALs, and nothing else of it.
Lock order: map lock, second-stage map lock, vnode lock, EPT_LOCK, PTE placemark.
Cost: a miss is up to (4 + 1) * (4 + 1) - 1 = 24 loads where it was 4, the pages of the second-stage
tables, 80 bytes a page of an image that is mapped, a full flush for each page reclaimed, and before
it a step for each of the guest's processes, to see which CPUs run them: O(processes), where a
kernel that enters guests keeps one mask of the CPUs in guest mode.
Left out: a wired VPAGETABLE entry wires nothing (no call wires one); resident sets are those of the
second stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.effects import Lock, RWLock, fresh_key, key_text
from vkprotocol.guarded import guarded_by
from vkprotocol.param import VM_MAX_USER_ADDRESS

from vkhost.kern.lockorder import EPT_LOCK, EPT_MAP_LOCK
from vkhost.pc64.ept_table import Users
from vkhost.pc64.nested_walk import Root, Roots
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import pte_pfn
from vkhost.pc64.pmap_inval import pmap_inval_walks
from vkhost.pc64.pmap_pte import Pte
from vkhost.pc64.pmap_remove import pmap_remove_pte
from vkhost.rmap.pv_entry import PvEntry
from vkhost.vm.vm import KERN_SUCCESS, VM_MAPTYPE_NORMAL, VM_PROT_ALL
from vkhost.vm.vm_fault_state import FaultState, unlock_things
from vkhost.vm.vm_map import VmMapEntry, emit_map_insert, vm_map_entry_link
from vkhost.vm.vm_map_backing import copy_backing, vm_map_backing_replicated
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vmspace import Vmspace, vmspace_alloc, vmspace_rel

if TYPE_CHECKING:
    from vkhost.kernel import Kernel

PAGE_TABLE_BYTES: Final = 4096


@guarded_by("self", "of")
class SecondStages(Lock):
    """`of`: the second stage of each image, by the id of its object. Guards the users of all."""

    __slots__ = ("of",)

    def __init__(self) -> None:
        super().__init__(("epts",), rank=EPT_LOCK)
        self.of: dict[int | str, Vmspace] = {}


class Nested(PvEntry):
    name = "nested"
    walks = True
    interlocks = False
    frees_tables = False  # of the second stage, one by one

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._stages = SecondStages()
        self._tables: dict[Pmap, dict[tuple[int, int], None]] = {}  # counted in rmap_bytes

    def roots(self, pmap_id: int | str) -> Roots:
        return Roots(("roots", pmap_id), ())

    # Roots.

    async def enter_root(self, fs: FaultState) -> int:
        """A fault in a VPAGETABLE entry: let the CPU walk it from now on."""
        entry, vm_map = fs.entry, fs.vm_map
        pmap = vm_map.pmap
        async with self._stages:
            roots = await self._roots(pmap).load()
            if not any(root.start <= fs.va < root.end for root in roots):
                # One that covers less than the entry went when the entry grew, by a merge.
                assert not any(r.start < entry.end and entry.start < r.end for r in roots)
                ept = await self._second_stage(fs)
                # First a user, so that no walk begins there whose CPU a shootdown does not know of.
                await self._users(ept).count(pmap, 1)
                root = Root(
                    entry.start, entry.end, entry.ba.offset, entry.master_pde, entry.protection, ept
                )
                await self._roots(pmap).store((*roots, root))
        await unlock_things(fs)
        return KERN_SUCCESS

    async def unroot(self, pmap: Pmap, start: int, end: int) -> None:
        """The entries of the range are about to change, the map locked exclusively."""
        roots: tuple[Root, ...] = await self._roots(pmap).load()
        gone = [root for root in roots if root.start < end and start < root.end]
        if not gone:
            return
        await self._roots(pmap).store(tuple(root for root in roots if root not in gone))
        for root in gone:
            await pmap_inval_walks(pmap, root.start, root.end)
        for root in gone:
            await self._forget(root, pmap)

    async def _forget(self, root: Root, pmap: Pmap) -> None:
        """No walk from this root is left. The last user releases the second stage, when no fault
        is in it any more: one that sleeps holds no lock of its map."""
        ept = root.ept
        async with self._stages:
            if await self._users(ept).count(pmap, -1):
                return
            self._stages.of = {o: s for o, s in self._stages.of.items() if s is not ept}
        for cpu in self.kernel.cpus:
            await cpu.violation.wait(lambda stage: stage is not ept)
        await vmspace_rel(ept)

    @staticmethod
    def _roots(pmap: Pmap) -> Roots:
        assert pmap.roots is not None
        return pmap.roots

    @staticmethod
    def _users(ept: Vmspace) -> Users:
        assert ept.pmap.users is not None
        return ept.pmap.users

    async def flush_walks(self, pmap: Pmap, start: int, end: int) -> None:
        roots: tuple[Root, ...] = await self._roots(pmap).load()
        if any(root.start < end and start < root.end for root in roots):
            await pmap_inval_walks(pmap, start, end)

    # Second stages.

    async def _second_stage(self, fs: FaultState) -> Vmspace:
        """That of the entry's first object: pindex p of it at byte p << 12."""
        obj = fs.first_ba.object
        assert obj is not None
        ept = self._stages.of.get(obj.id)
        if ept is None:
            ept = self._stages.of[obj.id] = vmspace_alloc(
                self.kernel, f"ept {obj.id}", fs.vm_map.proc, key_text(fresh_key("ept"))
            )
            ept.pmap.users = Users(ept.pmap, self.frees_tables)
            await self._map_image(ept, fs.entry)
        return ept

    async def _map_image(self, ept: Vmspace, entry: VmMapEntry) -> None:
        """One entry over all of the address space: what is beyond the object its pager refuses."""
        vm_map = ept.vm_map
        vm_map.lock = RWLock(("vm_map", vm_map.pmap.id), rank=EPT_MAP_LOCK)
        vm_map.private = True  # until there is a root that leads here
        shift = entry.ba.offset
        chain = [copy_backing(ba) for ba in entry.backings()]
        for ba, below in zip(chain, [*chain[1:], None], strict=True):
            ba.maptype = VM_MAPTYPE_NORMAL
            ba.start, ba.end = 0, VM_MAX_USER_ADDRESS
            ba.offset -= shift
            ba.backing_ba = below
        image = VmMapEntry(chain[0], VM_PROT_ALL, VM_PROT_ALL, 0)
        await vm_map_backing_replicated(vm_map, image)
        vm_map_entry_link(vm_map, image)
        vm_map.size = VM_MAX_USER_ADDRESS
        emit_map_insert(vm_map, image)
        vm_map.private = False

    async def resident_pmap(self, pmap: Pmap) -> Pmap:
        roots: tuple[Root, ...] = await self._roots(pmap).load()
        return roots[0].ept.pmap if roots else pmap

    async def copied(self, m: VmPage) -> None:
        """vm_fault_page has put its copy, m, before what the second stage may still map."""
        assert m.object is not None
        async with self._stages:
            ept = self._stages.of.get(m.object.id)
        if ept is None:
            return
        pte = ept.pmap.pte(m.pindex << 12)
        old: int = await pte.load()
        if old and pte_pfn(old) != m.pfn:
            await pmap_remove_pte(ept.pmap, pte, m)

    # The memory that second-stage tables take.

    async def enter(self, pmap: Pmap, m: VmPage, pte: Pte, entry: VmMapEntry | None) -> None:
        level_shifts = (0, 9, 18, 27)  # of a page table's number, to that of a table above it
        if pmap.users is not None:
            known = self._tables.setdefault(pmap, {})
            before = len(known)
            for shift in level_shifts:
                known[shift, pte.table.slot >> shift] = None
            self.grow((len(known) - before) * PAGE_TABLE_BYTES)
            tables = pmap.users.tables
            if tables is not None:
                await tables[pte.table].link()
        await super().enter(pmap, m, pte, entry)

    async def free_table(self, m: VmPage) -> bool:
        """Under shortage: the second-stage table that the page is mapped in. False: there is none,
        or it is in use again."""
        assert m.object is not None
        async with self._stages:  # the second stage stays as long
            ept = self._stages.of.get(m.object.id)
            tables = None if ept is None else self._users(ept).tables
            if ept is None or tables is None:
                return False
            table = ept.pmap.pte(m.pindex << 12).table
            freed = await tables[table].free()
            if freed:
                del self._tables[ept.pmap][0, table.slot]
                self.grow(-PAGE_TABLE_BYTES)
            return freed

    def release(self, pmap: Pmap) -> None:
        self.grow(-len(self._tables.pop(pmap, ())) * PAGE_TABLE_BYTES)

"""Ours: sequence-counted invalidation, as Linux's mmu notifiers and KVM do it.

Idea: a fault notes the address space's sequence number before it walks. Whoever invalidates raises
`in_progress` first, removes the PTEs, then raises the sequence and lowers `in_progress`. What a
fault is about to do by what it has read - set A and M in a VPTE, enter the translation - it does
only if nothing is in progress and the sequence is what it was; else it starts again. So a walk is
never fenced, it is checked: the interlock's guarantee without anybody sleeping on anybody's walk.
The host's own reclaim finds PTEs by a list (KVM's spte rmap). Source: Linux mm/mmu_notifier.c:
mmu_interval_read_begin, mmu_interval_read_retry; virt/kvm mmu_invalidate_retry.

A and M: the VPTEs stand to the host PTEs as Linux's own page tables, the primary MMU, to KVM's.
KVM marks the primary's page accessed and dirty with mmu_lock held and after the retry check (mmu.c:
kvm_mmu_finish_page_fault, kvm_release_faultin_page), and so it is here. (KVM's walker of *guest*
tables, paging_tmpl.h:update_accessed_dirty_bits, does write without that; it is fenced by the
guest, whose shootdown IPI waits for the vCPU that walks. A vkernel sends none: INVAL is its IPI.)

Relies on: the guest's INVAL as before; the mmu lock, held shared over check and deed and taken
exclusively to begin: an invalidation either is seen by the check or comes after the deed.
Lock order: page busy, PTE placemark, mmu lock; an invalidation holds none when it begins.
Cost: two exclusive locks an invalidation, one shared a fault and one more for each VPTE that lacks
A or M; a retry for each fault that overlaps an invalidation of its address space, whatever the
address; 24 bytes a mapping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import Cell, RWLock

from vkhost.kern.lockorder import MMU_LOCK
from vkhost.pc64.pmap import Pmap
from vkhost.rmap.vpte_list import VpteList
from vkhost.vm.vm import VM_MAPTYPE_VPAGETABLE
from vkhost.vm.vm_fault_state import FaultState

if TYPE_CHECKING:
    from vkhost.kernel import Kernel


class Mmu:
    """Of one address space. `count`: (finished invalidations, those in progress), one word that
    is written under `lock`, exclusive."""

    __slots__ = ("count", "lock")

    def __init__(self, pmap: Pmap) -> None:
        self.count = Cell(("notifier", pmap.id), (0, 0))
        self.lock = RWLock(("mmu_lock", pmap.id), rank=MMU_LOCK)


def no_invalidation(state: tuple[int, int]) -> bool:
    return state[1] == 0


class Notifier(VpteList):
    name = "notifier"
    interlocks = False

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._mmus: dict[int | str, Mmu] = {}

    def mmu(self, pmap: Pmap) -> Mmu:
        mmu = self._mmus.get(pmap.id)
        if mmu is None:
            mmu = self._mmus[pmap.id] = Mmu(pmap)
        return mmu

    async def walk_begin(self, fs: FaultState) -> None:
        count = self.mmu(fs.vm_map.pmap).count
        # mmu_interval_read_begin waits as well: to walk now would be in vain. Nobody who is
        # invalidating waits for a fault, so the map lock may be kept.
        await count.wait(no_invalidation)
        fs.seen = await count.load()

    async def _begin(self, fs: FaultState, *, unchecked: bool) -> bool:
        """Does what the walk has read count? If so the lock is left shared."""
        mmu = self.mmu(fs.vm_map.pmap)
        await mmu.lock.acquire_shared()
        now: tuple[int, int] = await mmu.count.load()
        # A fault that has walked nothing (linear-shortcut) has nothing to compare.
        if unchecked or fs.seen is None or (now == fs.seen and not now[1]):
            return True
        await mmu.lock.release()
        return False

    async def write_back_begin(self, fs: FaultState) -> bool:
        unchecked = "notifier-write-back-unchecked" in self.kernel.mutants
        return await self._begin(fs, unchecked=unchecked)

    async def write_back_end(self, fs: FaultState) -> None:
        await self.mmu(fs.vm_map.pmap).lock.release()

    async def permits(self, fs: FaultState) -> bool:
        if fs.entry.maptype != VM_MAPTYPE_VPAGETABLE:
            return True
        return await self._begin(fs, unchecked="notifier-unchecked" in self.kernel.mutants)

    async def entered(self, fs: FaultState) -> None:
        if fs.entry.maptype == VM_MAPTYPE_VPAGETABLE:
            await self.mmu(fs.vm_map.pmap).lock.release()

    async def invalidate_begin(self, pmap: Pmap, start: int, end: int) -> None:
        await self._change(pmap, 0, 1)

    async def invalidate_end(self, pmap: Pmap, start: int, end: int) -> None:
        await self._change(pmap, 1, -1)

    async def _change(self, pmap: Pmap, finished: int, in_progress: int) -> None:
        mmu = self.mmu(pmap)
        await mmu.lock.acquire_exclusive()
        old = await mmu.count.load()
        await mmu.count.store((old[0] + finished, old[1] + in_progress))
        await mmu.lock.release()

    def release(self, pmap: Pmap) -> None:
        self._mmus.pop(pmap.id, None)

"""What a reverse-map policy answers, with the answers of a kernel that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from vkhost.pc64.pmap_removed import pmap_removed_pte
from vkhost.vm.vm_page import VmPage

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.pc64.nested_walk import Roots
    from vkhost.pc64.pmap import Pmap
    from vkhost.pc64.pmap_pte import Pte
    from vkhost.vm.vm_fault_state import FaultState
    from vkhost.vm.vm_map import VmMapEntry


class RmapStatistics(msgspec.Struct, frozen=True):
    """What a policy has cost so far."""

    visited_ptes: int  # PTEs looked at by queries
    found_ptes: int  # of those, PTEs of the page in question
    flushes: int  # PTEs changed with a TLB shootdown by queries
    rmap_bytes: int  # memory the reverse map takes now
    rmap_bytes_max: int  # and took at most


class Rmap:
    """Base of the policies. Page hard-busied in the five queries; PTEs change under them anyway.

    A policy keeps its own state under its own locks; the counters here are plain, and only ever
    read after a run.
    """

    name = ""
    # Pages are wired as they enter a VPAGETABLE entry (vm_fault and vm_map ask).
    wires_vpagetable = False
    # vm_fault and MADV_INVAL take the interlock.
    interlocks = True
    # CPUs walk VPAGETABLE entries themselves (nested_walk.py): vm_fault enters nothing there.
    walks = False

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.visited = 0
        self.found = 0
        self.flushes = 0
        self.bytes = 0
        self.bytes_max = 0

    def statistics(self) -> RmapStatistics:
        return RmapStatistics(self.visited, self.found, self.flushes, self.bytes, self.bytes_max)

    def grow(self, size: int) -> None:
        self.bytes += size
        self.bytes_max = max(self.bytes_max, self.bytes)

    def mmap_vpagetable_allowed(self) -> bool:
        """Does mmap accept MAP_VPAGETABLE? (else EOPNOTSUPP)"""
        return True

    # What is told of every PTE.

    async def enter(self, pmap: Pmap, m: VmPage, pte: Pte, entry: VmMapEntry | None) -> None:
        """Before a PTE of m is installed; pte_placemark held, m busied."""

    async def remove(self, pmap: Pmap, m: VmPage, pte: Pte, old: int) -> None:
        """After the PTE, which was `old`, is gone and its A and M are m's; pte_placemark held, m
        perhaps not busied.

        Not called when a PTE of m is replaced by another of m. Here: what pmap_removed_pte does to
        PG_MAPPED, which is all a kernel without a record of its PTEs can do.
        """
        await pmap_removed_pte(m)

    async def settle(self, busied: VmPage | None = None) -> None:
        """After PTEs were removed or replaced; no placemark held, no page busied but this."""

    def release(self, pmap: Pmap) -> None:
        """The pmap, which has no PTEs any more, is gone for good."""

    async def mapped_through_vpte(self, m: VmPage) -> None:
        """vm_fault F16 and vm_fault_page: m, busied, is about to be used through a VPTE."""

    # What a fault asks of a policy that has to know about the walk itself.

    async def walk_begin(self, fs: FaultState) -> None:
        """F6: a fault is about to walk the guest's page table."""

    async def walk_through(self, fs: FaultState, m: VmPage, idx: int) -> None:
        """F10: its walk has reached table page m, busied, and has not read VPTE `idx` yet."""

    async def write_back_begin(self, fs: FaultState) -> bool:
        """F11: A and M are about to be set in the VPTE of a busied table. May they? (else the
        fault starts again)"""
        return True

    async def write_back_end(self, fs: FaultState) -> None:
        """They have been, or the VPTE had changed."""

    async def protection(self, fs: FaultState, m: VmPage) -> int:
        """F16: what the PTE of m, busied, may allow."""
        return fs.prot

    async def intercepts(self, m: VmPage) -> bool:
        """Is a write of m, soft-busied, to be done by `emulate`? Then the shortcut is none."""
        return False

    async def emulate(self, fs: FaultState, m: VmPage) -> bool | None:
        """F17: fs.write, if there is one, of m, busied, may have to be done by the fault itself.

        None: it has not, m is to be entered. False: what the walk found is no longer so.
        """
        return None

    async def kernel_writes(self, m: VmPage) -> None:
        """vm_fault_page: m, hard-busied, is about to be written by the host kernel."""

    async def permits(self, fs: FaultState) -> bool:
        """F17, pte_placemark held: is what the walk found still so? (else it starts again)"""
        return True

    async def entered(self, fs: FaultState) -> None:
        """F17, pte_placemark held: what `permits` has permitted is done."""

    # What takes translations away tells before and after.

    async def invalidate_begin(self, pmap: Pmap, start: int, end: int) -> None:
        """MADV_INVAL or MADV_SETMAP is about to remove the PTEs of a range."""

    async def invalidate_end(self, pmap: Pmap, start: int, end: int) -> None:
        """It has."""

    # Of a policy that `walks`. What `roots` gives a pmap is None for the others.

    def roots(self, pmap_id: int | str) -> Roots | None:
        """For a new pmap: where CPUs walk."""
        return None

    async def enter_root(self, fs: FaultState) -> int:
        """F3, in place of all that follows: a VPAGETABLE entry; KERN_*, everything unlocked."""
        raise NotImplementedError

    async def unroot(self, pmap: Pmap, start: int, end: int) -> None:
        """Entries of the range are about to change or go; the map is locked exclusively."""

    async def flush_walks(self, pmap: Pmap, start: int, end: int) -> None:
        """pmap_remove: no translation of the range is left in any TLB."""

    async def copied(self, m: VmPage) -> None:
        """vm_fault_page: m, busied, is a copy that now shows in a VPAGETABLE entry."""

    async def resident_pmap(self, pmap: Pmap) -> Pmap:
        """Whose PTEs are the resident set of those who run on `pmap`."""
        return pmap

    # The queries.

    async def remove_all(self, m: VmPage) -> None:
        """pmap_remove_all."""
        raise NotImplementedError

    async def remove_specific(self, pmap: Pmap, m: VmPage) -> None:
        """pmap_remove_specific."""
        raise NotImplementedError

    async def testbit(self, m: VmPage, bit: int) -> bool:
        """pmap_testbit."""
        raise NotImplementedError

    async def clearbit(self, m: VmPage, bit: int) -> None:
        """pmap_clearbit."""
        raise NotImplementedError

    async def ts_referenced(self, m: VmPage) -> int:
        """pmap_ts_referenced."""
        raise NotImplementedError

"""pmap: the real page tables of one address space, and who is running on them.

DragonFly sys/platform/pc64/x86_64/pmap.c. The operations are in pmap_enter.py, pmap_remove.py,
pmap_protect.py, pmap_inval.py and pmap_switch.py, the reverse map behind `kernel.rmap` (rmap/).
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any, Final

from vkprotocol.effects import Cell, Effect, Lock, Step, fresh_key, key_text
from vkprotocol.param import PAGE_MASK, PAGE_SHIFT

from vkhost.config import MAXCPU
from vkhost.kern.lockorder import PLACEMARK
from vkhost.pc64.pmap_bits import PT_SHIFT, pte_pfn
from vkhost.pc64.pmap_pte import PageDirectory, Pte

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.pc64.ept_table import Users
    from vkhost.pc64.nested_walk import Roots
    from vkhost.vm.vm_page import VmPage

PM_PLACE_MASK: Final = 15  # PM_PLACE_BASE - 1: PTEs have the first of four zones of 16 slots
CPULOCK_EXCL: Final = 1 << MAXCPU  # the kernel has it in pm_active_lock, beside the mask


def not_excl(state: Any) -> bool:
    return not state & CPULOCK_EXCL


class Pmap:
    """LOCKING. PTEs and pm_active are atomic; wired_count, a statistic, changes with them.

    `pm_active`: a bit for each CPU that may hold translations of this pmap, and CPULOCK_EXCL while
    a shootdown is in progress.

    With nested paging `roots` is where the CPU walks the guest's own page tables, and `users` makes
    this the second stage of those walks: the pmaps they begin in. No CPU has a second stage in
    %cr3, so its own pm_active stays 0.

    `multi` is PMAP_MULTI: of a process with several threads (pmap_maybethreaded), so never of a
    vmspace made by vmspace_create.
    """

    __slots__ = (
        "_interlock", "_placemarks", "asid", "directory", "id", "kernel", "multi", "name",
        "pm_active", "roots", "users", "wired_count",
    )  # fmt: skip

    def __init__(self, kernel: Kernel, name: str, pmap_id: int | str | None = None) -> None:
        if pmap_id is None:
            pmap_id = key_text(fresh_key("pmap")).removeprefix("pmap.")
        self.kernel = kernel
        self.id = pmap_id
        self.name = name
        self.directory = PageDirectory(pmap_id)
        self.pm_active = Cell(("pm_active", pmap_id))
        self.wired_count = 0
        self.multi = False
        self.asid = pmap_id  # what a TLB tells this pmap's translations by
        self.roots: Roots | None = kernel.rmap.roots(pmap_id)
        self.users: Users | None = None
        self._placemarks: dict[int, Lock] = {}
        self._interlock = Effect(self.pm_active, "interlock", write=True, guard=not_excl)
        kernel.pmaps[pmap_id] = self

    def pte(self, va: int) -> Pte:
        """The PTE of a byte address (pmap_pte)."""
        vpn = va >> PAGE_SHIFT
        return self.directory.table(vpn >> PT_SHIFT).pte(vpn)

    def placemark(self, vpn: int) -> Lock:
        """pmap_placemarker_hash: the lock of a PTE, one of a few since 2019."""
        slot = vpn & PM_PLACE_MASK if self.kernel.quirks.hashed_placemarks else vpn
        lock = self._placemarks.get(slot)
        if lock is None:
            lock = self._placemarks[slot] = Lock(("placemark", self.id, slot), rank=PLACEMARK)
        return lock

    @coroutine
    def interlock(self) -> Step:
        """pmap_inval_init: set CPULOCK_EXCL, so that no CPU starts to run on these page tables.

        The mask of those that do now.
        """
        yield self._interlock
        mask = self.pm_active.state
        self.pm_active.state = mask | CPULOCK_EXCL
        return mask

    @coroutine
    def deinterlock(self) -> Step:
        """pmap_inval_done."""
        yield self.pm_active._write
        self.pm_active.state &= ~CPULOCK_EXCL

    @property
    def resident_count(self) -> int:
        """For reports; a kernel thread awaits pmap_resident_count."""
        return self.directory.resident_count

    async def valid_ptes(self, start: int, end: int) -> list[Pte]:
        """pmap_scan: the valid PTEs of the byte range, looked at page table by page table."""
        first, last = start >> PAGE_SHIFT, (end + PAGE_MASK) >> PAGE_SHIFT
        if last <= first:
            return []
        if first >> PT_SHIFT == (last - 1) >> PT_SHIFT:
            found: list[Pte] = await self.directory.table(first >> PT_SHIFT).valid(first, last)
            return found
        found = []
        tables = await self.directory.listed_in(first >> PT_SHIFT, (last - 1) >> PT_SHIFT)
        for table in tables:
            found += await table.valid(first, last)
        return found

    def __repr__(self) -> str:
        return f"<Pmap {self.id} {self.name} {self.resident_count} resident>"


async def pmap_resident_count(pmap: Pmap) -> int:
    resident: int = await pmap.directory.resident()
    return resident


async def pmap_resident_tlnw_count(pmap: Pmap) -> int:
    """Terminal PTEs that are not wired: what RLIMIT_RSS counts."""
    return await pmap_resident_count(pmap) - pmap.wired_count


async def pmap_extract(pmap: Pmap, va: int) -> int | None:
    """The frame mapped at va, if any."""
    pte: int = await pmap.pte(va).load()
    return pte_pfn(pte) if pte else None


# The reverse map, which only its policy knows how to consult. Page hard-busied in all of these.


async def pmap_remove_all(m: VmPage) -> None:
    """Take away every PTE of the page, as far as the reverse map finds them."""
    await m.kernel.rmap.remove_all(m)


async def pmap_remove_specific(pmap: Pmap, m: VmPage) -> None:
    """The same in one pmap."""
    await m.kernel.rmap.remove_specific(pmap, m)


async def pmap_testbit(m: VmPage, bit: int) -> bool:
    """Is the PTE bit set in any of the page's PTEs?"""
    return await m.kernel.rmap.testbit(m, bit)


async def pmap_clearbit(m: VmPage, bit: int) -> None:
    """Clear a PTE bit in all of them."""
    await m.kernel.rmap.clearbit(m, bit)


async def pmap_ts_referenced(m: VmPage) -> int:
    """How many of them had been accessed; their accessed bits are cleared."""
    return await m.kernel.rmap.ts_referenced(m)

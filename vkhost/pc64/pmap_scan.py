"""What pmap_remove, pmap_protect and pmap_pgscan do to each valid PTE of a range.

The real scan of one page takes the placemark and then the page table page's pv. That of a range has
the pv over all PTEs of a page table, and only tries each placemark: if that is taken, it lets go of
the pv, waits, and looks again. So nobody enters a PTE into a page table that is being scanned.

Here that is so with `host.scan_holds_table`. Without, a range is so many scans of one page, and
others may come in between: every execution of the real one is among these too, and a verdict of
`pass` covers it.

DragonFly pc64 pmap.c:pmap_scan, pmap_scan_callback, pv_placemarker_wait
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

from vkprotocol.effects import Effect, Lock, is_none, perform
from vkprotocol.param import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PT_SHIFT
from vkhost.pc64.pmap_pte import PageTable, Pte, PteLocks

# Takes and releases the locks; False ends the scan.
ScanFunc = Callable[[Pte, PteLocks], Awaitable[bool]]


class ScanLocks(PteLocks):
    """The placemark alone: the page table's lock is the scan's. `lost`: not all the time, so that
    others may have entered PTEs further on."""

    __slots__ = ("lost",)
    scanning = True

    def __init__(self, placemark: Lock, pt_pv: Lock) -> None:
        super().__init__(placemark, pt_pv)
        self.lost = False

    async def __aenter__(self) -> None:
        while not await self.placemark.try_acquire():
            await self.let_go()
            await perform(Effect(self.placemark, "pvplw", write=False, guard=is_none))
            await self.take_again()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:
            await self.placemark.release()

    async def let_go(self) -> None:
        self.lost = True
        await self.pt_pv.release()

    async def take_again(self) -> None:
        await self.pt_pv.acquire()


async def pmap_scan(pmap: Pmap, start: int, end: int, func: ScanFunc) -> None:
    if end - start <= PAGE_SIZE or not pmap.kernel.config.scan_holds_table:
        for pte in await pmap.valid_ptes(start, end):
            if not await func(pte, pte.locked(pmap)):
                return
        return
    first, last = start >> PAGE_SHIFT, (end + PAGE_MASK) >> PAGE_SHIFT
    tables = await pmap.directory.listed_in(first >> PT_SHIFT, (last - 1) >> PT_SHIFT)
    for table in tables:
        if not await _scan_table(pmap, table, first, last, func):
            return


async def _scan_table(pmap: Pmap, table: PageTable, first: int, last: int, func: ScanFunc) -> bool:
    """False: `func` has ended it."""
    await table.lock.acquire()
    again, go_on = True, True
    while again and go_on:
        again = False
        for pte in await table.valid(first, last):
            locks = ScanLocks(pmap.placemark(pte.vpn), table.lock)
            go_on = await func(pte, locks)
            first, again = pte.vpn + 1, locks.lost
            if again or not go_on:
                break
    await table.lock.release()
    return go_on

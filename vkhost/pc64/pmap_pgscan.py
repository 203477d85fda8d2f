"""Walking the real PTEs of an address space. DragonFly pc64 pmap.c:pmap_pgscan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_MANAGED, pte_pfn
from vkhost.pc64.pmap_pte import Pte, PteLocks
from vkhost.pc64.pmap_scan import pmap_scan
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_busy import vm_page_busy_try, vm_page_wakeup

# Returns False to end the scan.
ScanCallback = Callable[[int, VmPage], Awaitable[bool]]


async def pmap_pgscan(pmap: Pmap, start: int, end: int, callback: ScanCallback) -> None:
    """Call back for each resident page in the range, with it hard-busied and eaten by the callback.

    This walks real PTEs, so it does see what VPTEs led to.
    """

    async def found(pte: Pte, locks: PteLocks) -> bool:
        async with locks:
            old: int = await pte.load()
            if not old & PTE_MANAGED:
                return True
            m = pmap.kernel.pages[pte_pfn(old)]
            if not await vm_page_busy_try(m):
                return True
            again: int = await pte.load()
        if not again or pte_pfn(again) != m.pfn:
            await vm_page_wakeup(m)
            return True
        await locks.let_go()
        go_on = await callback(pte.va, m)
        await locks.take_again()
        return go_on

    await pmap_scan(pmap, start, end, found)

"""Reducing permissions by address. DragonFly pc64 pmap.c:pmap_protect, pmap_protect_callback."""

from __future__ import annotations

from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_RW, pte_pfn
from vkhost.pc64.pmap_inval import pmap_inval_smp_cmpset
from vkhost.pc64.pmap_pte import Pte, PteLocks
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.pc64.pmap_removed import pmap_removed_am
from vkhost.pc64.pmap_scan import pmap_scan
from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE


async def pmap_protect(pmap: Pmap, start: int, end: int, prot: int) -> None:
    """Write-protect the range, unless `prot` has WRITE; remove it if it is to be neither read nor
    executed. NX is never added: the kernel's own comment is "JG review for NX"."""
    if not prot & (VM_PROT_READ | VM_PROT_EXECUTE):
        await pmap_remove(pmap, start, end)
        return
    if prot & VM_PROT_WRITE:
        return

    async def protect(pte: Pte, locks: PteLocks) -> bool:
        async with locks:
            await _protect(pmap, pte)
        return True

    await pmap_scan(pmap, start, end, protect)


async def _protect(pmap: Pmap, pte: Pte) -> None:
    """To 5.4 the page is told of A and M before they leave the PTE. Since then after, and no
    interlock_count says so: in between M is nowhere, and the page looks clean (W45)."""
    kernel = pmap.kernel
    late = kernel.quirks.protect_dirties_late
    while old := await pte.load():
        m = kernel.pages[pte_pfn(old)]
        if not late:
            await pmap_removed_am(m, old)
        new = old & ~(PTE_RW | PTE_A | PTE_M)
        if new == old or await pmap_inval_smp_cmpset(pmap, pte, old, new, "protect"):
            if late:
                await pmap_removed_am(m, old)
            return

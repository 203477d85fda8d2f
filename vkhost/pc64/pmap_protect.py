"""Reducing permissions by address. DragonFly pc64 pmap.c:pmap_protect, pmap_protect_callback."""

from __future__ import annotations

from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_MANAGED, PTE_NX, PTE_RW, pte_pfn
from vkhost.pc64.pmap_inval import pmap_inval_smp_cmpset
from vkhost.pc64.pmap_pte import Pte
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_NONE, VM_PROT_WRITE
from vkhost.vm.vm_page import PG_REFERENCED, VmPage
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_flag_set


async def pmap_protect(pmap: Pmap, start: int, end: int, prot: int) -> None:
    """Take away what `prot` does not have; NONE removes."""
    if prot == VM_PROT_NONE:
        await pmap_remove(pmap, start, end)
        return
    keep = ~((0 if prot & VM_PROT_WRITE else PTE_RW) | PTE_A | PTE_M)
    add = 0 if prot & VM_PROT_EXECUTE else PTE_NX
    for pte in await pmap.valid_ptes(start, end):
        async with pte.placemark:
            await _protect(pmap, pte, keep, add)


async def _protect(pmap: Pmap, pte: Pte, keep: int, add: int) -> None:
    while (old := await pte.load()) & PTE_MANAGED:
        m: VmPage = pmap.kernel.pages[pte_pfn(old)]
        # Before the cmpset: the page must not look clean in between.
        if old & PTE_A:
            await vm_page_flag_set(m, PG_REFERENCED)
        if old & PTE_M:
            await vm_page_dirty(m)
        new = old & keep | add
        if new == old or await pmap_inval_smp_cmpset(pmap, pte, old, new, "protect"):
            return

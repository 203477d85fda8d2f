"""Page table pages of a guest pmap: from where they come and when they go.

DragonFly vkernel64 `platform/pmap.c`: pmap_pinit, pmap_allocpte, pmap_unuse_pt, pmap_release. A
directory entry is set from 0 without an INVAL, and zeroed by a plain store without an INVAL; the
tables are normally kept until the pmap is released, which is what makes that right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.insn import store, zero_page
from vkprotocol.param import PAGE_SHIFT, SEG_SHIFT
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_RW, VPTE_U, VPTE_V, VPTE_WIRED

from vkguest.kern.errors import VmWait
from vkguest.kern.param import NUPDE, NUPDPE, PDP_SHIFT, phys_to_dmap
from vkguest.vkernel64.dmap import access
from vkguest.vkernel64.globaldata import GlobalData
from vkguest.vkernel64.pv import pte_slot
from vkguest.vm.vm_page import (
    VM_ALLOC_NORMAL,
    VM_ALLOC_SYSTEM,
    VmPage,
    vm_page_alloc,
    vm_page_busy_try,
    vm_page_free,
    vm_page_unwire,
    vm_page_wakeup,
    vm_page_wire,
)

if TYPE_CHECKING:
    from vkguest.vkernel64.pmap import Pmap


async def pmap_pinit(gd: GlobalData, pmap: Pmap) -> None:
    """pmap.c:pmap_pinit: a root table, mapped into KVA. One that is cached is used again.

    Raises VmWait, with nothing done, when there is no frame for it.
    """
    if pmap.pm_pdirm is None:
        m = await vm_page_alloc(gd, None, 0, VM_ALLOC_NORMAL, f"pml4 {pmap.id:#x}")
        if m is None:
            raise VmWait
        await vm_page_wire(gd, m)
        await access(gd, zero_page(phys_to_dmap(m.frame)))
        await vm_page_wakeup(m)
        pmap.pm_pdirm = m
        pmap.pm_pml4 = await gd.kernel.kva.kmem_alloc_pageable(1)
        await gd.kernel.kva.pmap_kenter(gd, pmap.pm_pml4, m.frame)


def _parent(pmap: Pmap, ptepindex: int) -> tuple[int | None, int]:
    """(ptepindex of the table above, None when that is the root; the slot in it)."""
    if ptepindex >= NUPDE + NUPDPE:
        return None, ptepindex - NUPDE - NUPDPE
    if ptepindex >= NUPDE:
        return NUPDE + NUPDPE + ((ptepindex - NUPDE) >> 9), ptepindex - NUPDE
    return NUPDE + (ptepindex >> 9), ptepindex


async def pmap_allocpte(gd: GlobalData, pmap: Pmap, va: int, *, large: bool = False) -> VmPage:
    """pmap.c:pmap_allocpte: the page table of `va` - the directory, if `large` - held once more.

    The caller holds pm_pteobj. Raises VmWait, with nothing done: the kernel waits for a frame right
    here (VM_ALLOC_RETRY, the tokens lost over the sleep).
    """
    ptepindex = NUPDE + (va >> PDP_SHIFT) if large else va >> SEG_SHIFT
    m = pmap.pt_pages.get(ptepindex)
    if m is None:
        return await _pmap_allocpte(gd, pmap, ptepindex)
    m.hold_count += 1
    return m


async def _pmap_allocpte(gd: GlobalData, pmap: Pmap, ptepindex: int) -> VmPage:
    """pmap.c:_pmap_allocpte: a new table page, linked below its directory; held once.

    The table is zero before the directory entry makes it reachable.
    """
    m = await vm_page_alloc(gd, None, ptepindex, VM_ALLOC_SYSTEM, f"pt {pmap.id:#x}")
    if m is None:
        raise VmWait
    await vm_page_wire(gd, m)
    m.hold_count = 1
    above, slot = _parent(pmap, ptepindex)
    if above is None:
        entry = pmap.pm_pml4 + 8 * slot
    elif (table := pmap.pt_pages.get(above)) is not None:
        table.hold_count += 1
        entry = pte_slot(table.frame, slot)
    else:
        try:
            entry = pte_slot((await _pmap_allocpte(gd, pmap, above)).frame, slot)
        except VmWait:
            m.hold_count = 0
            await vm_page_unwire(gd, m)
            await vm_page_free(gd, m)
            raise
    bits = VPTE_RW | VPTE_V | VPTE_U | VPTE_A | VPTE_M | VPTE_WIRED
    zero, link = zero_page(phys_to_dmap(m.frame)), store(entry, (m.frame << PAGE_SHIFT) | bits)
    await access(gd, *((link, zero) if "table-before-zero" in gd.mutants else (zero, link)))
    pmap.pt_pages[ptepindex] = m
    await vm_page_wakeup(m)
    return m


async def pmap_unuse_pt(gd: GlobalData, pmap: Pmap, va: int) -> None:
    """pmap.c:pmap_unuse_pt: one VPTE less in the table of `va`. The caller holds pm_pteobj.

    PMAP_KEEP_PDIRS: an empty table stays where it is, for the next fault nearby.
    """
    if not pmap.id:
        return
    ptepindex = va >> SEG_SHIFT
    if ptepindex not in pmap.pt_pages:
        ptepindex = NUPDE + (va >> PDP_SHIFT)  # it was a PS entry
    m = pmap.pt_pages[ptepindex]
    m.hold_count -= 1
    if m.hold_count == 0 and "free-tables" in gd.mutants:
        await _pmap_unwire_pgtable(gd, pmap, ptepindex)


async def _pmap_unwire_pgtable(gd: GlobalData, pmap: Pmap, ptepindex: int) -> None:
    """pmap.c:pmap_unwire_pgtable, without PMAP_KEEP_PDIRS: unlink the table and free it.

    No INVAL: a walk that has read the directory entry already goes on into the freed frame (W16).
    """
    m = pmap.pt_pages[ptepindex]
    above, slot = _parent(pmap, ptepindex)
    if above is None:
        await access(gd, store(pmap.pm_pml4 + 8 * slot, 0))
    else:
        table = pmap.pt_pages[above]
        await access(gd, store(pte_slot(table.frame, slot), 0))
        table.hold_count -= 1
    await _free_table(gd, pmap, ptepindex, m)
    if above is not None and pmap.pt_pages[above].hold_count == 0:
        await _pmap_unwire_pgtable(gd, pmap, above)


async def _free_table(gd: GlobalData, pmap: Pmap, ptepindex: int, m: VmPage) -> None:
    took = await vm_page_busy_try(m)
    assert took, "a table page is busied by its owner alone"
    del pmap.pt_pages[ptepindex]
    m.hold_count = 0
    await vm_page_unwire(gd, m)
    await vm_page_free(gd, m)


async def pmap_release(gd: GlobalData, pmap: Pmap) -> None:
    """pmap.c:pmap_release: the host's vmspace is gone; so go the tables, from the leaves up.

    Each is unlinked with a plain store, no INVAL. The root stays: zeroed, wired, in KVA, cached.
    """
    async with pmap.pm_pteobj:
        assert not pmap.pvs, "pmap_release: still mapped"
        pmap.resident_count = 0
        pmap.wired_count = 0
        for ptepindex in sorted(pmap.pt_pages):
            m = pmap.pt_pages[ptepindex]
            above, slot = _parent(pmap, ptepindex)
            if above is not None:
                table = pmap.pt_pages[above]
                await access(gd, store(pte_slot(table.frame, slot), 0))
                table.hold_count -= 1
            await _free_table(gd, pmap, ptepindex, m)
        await access(gd, zero_page(pmap.pm_pml4))

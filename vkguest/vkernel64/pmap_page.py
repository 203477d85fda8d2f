"""What the pmap does to one guest page wherever it is mapped: the callers are the page daemon's.

DragonFly vkernel64 `platform/pmap.c`. The pv list is exact here, unlike the host's reverse map.
"""

from __future__ import annotations

from vkprotocol.mman import PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_RW, VPTE_WIRED

from vkguest.vkernel64.dmap import atomic_clear_long, load
from vkguest.vkernel64.globaldata import GlobalData
from vkguest.vkernel64.pmap import Pmap, pmap_note_bits, pmap_unlink_pv
from vkguest.vkernel64.pmap_inval import pmap_clean_pte, pmap_inval_cpu, pmap_inval_loadandclear
from vkguest.vkernel64.pmap_table import pmap_unuse_pt
from vkguest.vkernel64.pv import PvEntry
from vkguest.vm.vm_page import PG_WRITEABLE, VmPage


async def pmap_remove_all(gd: GlobalData, m: VmPage) -> None:
    """pmap.c:pmap_remove_all: no translation of `m` is left; M and A are with the page.

    The order of the locks is reversed - page, then pmap - so the first pv is only a hint of whose
    pm_pteobj to take, and is looked for again under it.
    """
    while True:
        async with m.spin:
            pmap = m.pv_list[0].pmap if m.pv_list else None
        if pmap is None:
            return
        await pmap_remove_specific(gd, pmap, m)


async def pmap_remove_specific(gd: GlobalData, pmap: Pmap, m: VmPage) -> None:
    """pmap.c:pmap_remove_specific: as pmap_remove_all, in one pmap. The page spinlock is held over
    the INVAL."""
    async with pmap.pm_pteobj:
        removed: list[PvEntry] = []
        async with m.spin:
            for pv in [pv for pv in m.pv_list if pv.pmap is pmap]:
                pte = await pmap_inval_loadandclear(gd, pv.ptep, pmap, pv.va)
                pmap.resident_count -= 1
                pmap.wired_count -= bool(pte & VPTE_WIRED)
                pmap_note_bits(m, pte)
                pmap_unlink_pv(m, pv)
                del pmap.pvs[pv.va]
                removed.append(pv)
        for pv in removed:
            await pmap_unuse_pt(gd, pmap, pv.va)


async def pmap_testbit(gd: GlobalData, m: VmPage, bit: int) -> bool:
    """pmap.c:pmap_testbit: is `bit` set in any VPTE of the page?"""
    async with m.spin:
        for pv in m.pv_list:
            if await load(gd, pv.ptep) & bit:
                return True
    return False


async def pmap_clearbit(gd: GlobalData, m: VmPage, bit: int) -> None:
    """pmap.c:pmap_clearbit. RW takes M with it, into the page; A is cleared without an INVAL.

    Clearing M alone needs an INVAL too, or the host never notices the next write; no caller does.
    """
    async with m.spin:
        for pv in list(m.pv_list):
            pte = await load(gd, pv.ptep)
            if not pte & bit:
                continue
            if bit == VPTE_RW:
                pbits = await pmap_clean_pte(gd, pv.ptep, pv.pmap, pv.va, m)
                if pbits & VPTE_M:
                    m.dirty = True
            elif bit == VPTE_M:
                await atomic_clear_long(gd, pv.ptep, VPTE_M)
                if pte & VPTE_RW:
                    await pmap_inval_cpu(gd, pv.pmap, pv.va, PAGE_SIZE)
            else:
                await atomic_clear_long(gd, pv.ptep, bit)
        if bit == VPTE_RW:
            m.flags &= ~PG_WRITEABLE


async def pmap_page_protect(gd: GlobalData, m: VmPage, prot: int) -> None:
    """pmap.c:pmap_page_protect."""
    if prot & PROT_WRITE:
        return
    if prot & PROT_READ:
        await pmap_clearbit(gd, m, VPTE_RW)
    else:
        await pmap_remove_all(gd, m)


async def pmap_is_modified(gd: GlobalData, m: VmPage) -> bool:
    return await pmap_testbit(gd, m, VPTE_M)


async def pmap_clear_modify(gd: GlobalData, m: VmPage) -> None:
    """pmap.c:pmap_clear_modify: in the RW form, so that the next write is seen."""
    await pmap_clearbit(gd, m, VPTE_RW)


async def pmap_clear_reference(gd: GlobalData, m: VmPage) -> None:
    await pmap_clearbit(gd, m, VPTE_A)


async def pmap_ts_referenced(gd: GlobalData, m: VmPage) -> int:
    """pmap.c:pmap_ts_referenced: how many VPTEs had A, which is cleared without an INVAL.

    A page in use through a host PTE that stays gets no new A, and looks idle from now on (W14).
    """
    count = 0
    ts_referenced_enough = 4
    async with m.spin:
        for pv in list(m.pv_list):
            m.pv_list.remove(pv)
            m.pv_list.append(pv)
            if await load(gd, pv.ptep) & VPTE_A:
                await atomic_clear_long(gd, pv.ptep, VPTE_A)
                count += 1
                if count > ts_referenced_enough:
                    break
    return count

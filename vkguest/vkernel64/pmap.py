"""The guest's pmap: software page tables made of VPTEs in the memory image, and its pv entries.

DragonFly vkernel64 `platform/pmap.c`. Every function keeps the real order of edits and INVALs; the
VPTEs are memory, reached through the DMAP, and the host looks at them only when it takes a fault.
"""

from __future__ import annotations

from vkprotocol.effects import Lock
from vkprotocol.guarded import guarded_by
from vkprotocol.insn import andn_bits, load
from vkprotocol.mman import PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SHIFT, PAGE_SIZE, SEG_MASK, SEG_SHIFT
from vkprotocol.vpte import (
    VPTE_A,
    VPTE_FRAME,
    VPTE_M,
    VPTE_MANAGED,
    VPTE_PS,
    VPTE_RW,
    VPTE_U,
    VPTE_V,
    VPTE_WIRED,
    vpte_frame,
)

from vkguest.kern.lockorder import PTEOBJ_LOCK
from vkguest.kern.param import KPT_FRAME, NUPDE, NUPDPE, PDP_SHIFT, PML4_SHIFT
from vkguest.vkernel64.dmap import access, atomic_clear_long, atomic_set_long, atomic_swap_long
from vkguest.vkernel64.globaldata import GlobalData
from vkguest.vkernel64.pmap_inval import (
    pmap_clean_pte,
    pmap_inval_loadandclear,
    pmap_inval_pde,
)
from vkguest.vkernel64.pmap_table import pmap_allocpte, pmap_unuse_pt
from vkguest.vkernel64.pv import PvEntry, pte_slot
from vkguest.vm.vm_page import PG_MAPPED, PG_REFERENCED, PG_WRITEABLE, VmPage


@guarded_by("pm_pteobj", "pt_pages", "pvs", "resident_count", "wired_count")
class Pmap:
    """struct pmap. Everything below `pm_pteobj` belongs to it.

    `id` is &vm->vm_pmap, by which the host knows the vmspace; 0 for kernel_pmap, which has none.
    """

    __slots__ = (
        "id", "pm_pdirm", "pm_pml4", "pm_pteobj", "pt_pages", "pvs", "resident_count",
        "wired_count",
    )  # fmt: skip

    def __init__(self, name: str, pmap_id: int) -> None:
        self.id = pmap_id
        self.pm_pteobj = Lock((name, "pm_pteobj", pmap_id), PTEOBJ_LOCK)
        self.pm_pml4 = 0  # KVA of the root table
        self.pm_pdirm: VmPage | None = None  # its frame
        self.pt_pages: dict[int, VmPage] = {}  # the table pages by ptepindex, root excluded
        self.pvs: dict[int, PvEntry] = {}  # by va
        self.resident_count = 0
        self.wired_count = 0


def pmap_pte(pmap: Pmap, va: int) -> int | None:
    """Address of the VPTE of `va`, of the PDE when that is a PS entry's table, None without table.

    The table pages are looked up in pm_pteobj, as pm_ptphint does, and not by reading directories.
    """
    if not pmap.id:
        return pte_slot(KPT_FRAME, va >> PAGE_SHIFT)
    m = pmap.pt_pages.get(va >> SEG_SHIFT)
    return None if m is None else pte_slot(m.frame, va >> PAGE_SHIFT)


def pmap_pde(pmap: Pmap, va: int) -> int | None:
    """Address of the PDE of `va`, None without a PD."""
    m = pmap.pt_pages.get(NUPDE + (va >> PDP_SHIFT))
    return None if m is None else pte_slot(m.frame, va >> SEG_SHIFT)


def pte_prot(prot: int) -> int:
    """pmap.c:pte_prot. A valid VPTE is readable and executable: NX is never set."""
    return VPTE_RW if prot & PROT_WRITE else 0


async def pmap_enter(
    gd: GlobalData, pmap: Pmap, va: int, m: VmPage, prot: int, *, wired: bool = False
) -> None:
    """pmap.c:pmap_enter: `va` maps managed page `m` from now on.

    0 and INVAL come first even when the same page is entered again, so `va` has no translation
    until the new VPTE is in (W31); that one goes in without an INVAL, as it replaces 0. Raises
    VmWait, with nothing done, when there is no frame for a table.
    """
    async with pmap.pm_pteobj:
        # The kernel's page tables are preallocated and have no vm_page.
        mpte = await pmap_allocpte(gd, pmap, va) if pmap.id else None
        ptep = pmap_pte(pmap, va)
        assert ptep is not None
        origpte = await pmap_inval_loadandclear(gd, ptep, pmap, va)
        assert not origpte & VPTE_PS, "pmap_enter: attempted pmap_enter on 2MB page"
        if origpte and vpte_frame(origpte) == m.frame:
            if mpte is not None:
                mpte.hold_count -= 1  # the mapping has one already
            pmap.wired_count += wired - bool(origpte & VPTE_WIRED)
            if origpte & VPTE_MANAGED:
                async with m.spin:
                    pmap_note_bits(m, origpte)
            pv = None
        else:
            if origpte:
                await pmap_removed_pte(gd, pmap, origpte, va)
            pv = pmap.pvs[va] = PvEntry(pmap, va, mpte)
            pmap.resident_count += 1
            pmap.wired_count += wired
        newpte = (m.frame << PAGE_SHIFT) | pte_prot(prot) | VPTE_V | VPTE_U | VPTE_MANAGED | VPTE_A
        if wired:
            newpte |= VPTE_WIRED
        # The page's spinlock serves as a lock of its VPTEs against pmap_page_protect, which must
        # find the new one if it finds the pv. "A bad hack (obviously)", the kernel says.
        async with m.spin:
            if pv is not None:
                m.pv_list.append(pv)
                m.flags |= PG_MAPPED
            if newpte & VPTE_RW:
                m.flags |= PG_WRITEABLE
            raced = await atomic_swap_long(gd, ptep, newpte)
            if raced & VPTE_M:
                gd.kernel.emit("console", f"{gd.kernel.name}: pmap [M] race @ {va:#x}")
                await atomic_set_long(gd, ptep, VPTE_M)


def pmap_note_bits(m: VmPage, pte: int) -> None:
    """What a VPTE that is gone, or cleaned, says about its page. The caller holds m.spin."""
    if pte & VPTE_M:
        m.dirty = True
    if pte & VPTE_A:
        m.flags |= PG_REFERENCED


def pmap_unlink_pv(m: VmPage, pv: PvEntry) -> None:
    """Off the page's list, and PG_MAPPED off with the last. The caller holds m.spin."""
    m.pv_list.remove(pv)
    if not m.pv_list:
        m.flags &= ~(PG_MAPPED | PG_WRITEABLE)


async def pmap_removed_pte(gd: GlobalData, pmap: Pmap, pte: int, va: int) -> None:
    """pmap.c:pmap_remove_pte behind the INVAL, and pmap_remove_entry. pm_pteobj is held."""
    pmap.resident_count -= 1
    pmap.wired_count -= bool(pte & VPTE_WIRED)
    if pte & VPTE_MANAGED:
        m = gd.kernel.vm_page_queues.pages[vpte_frame(pte)]
        pv = pmap.pvs.pop(va)
        async with m.spin:
            pmap_note_bits(m, pte)
            pmap_unlink_pv(m, pv)
    await pmap_unuse_pt(gd, pmap, va)


async def pmap_remove(gd: GlobalData, pmap: Pmap, sva: int, eva: int) -> None:
    """pmap.c:pmap_remove: one loadandclear a page. A VPTE that is 0 already gets no INVAL."""
    async with pmap.pm_pteobj:
        va = sva
        while va < eva:
            va_next = min(_va_next(pmap, va), eva)
            pde = pmap_pde(pmap, va)
            if pde is not None and pmap_pte(pmap, va) is None:
                (old,) = await access(gd, load(pde))
                if old & VPTE_PS:
                    await pmap_inval_pde(gd, pde, pmap, va)
                    await pmap_unuse_pt(gd, pmap, va)
            else:
                for at, _ in await _valid_ptes(gd, pmap, va, va_next):
                    ptep = pmap_pte(pmap, at)
                    assert ptep is not None
                    pte = await pmap_inval_loadandclear(gd, ptep, pmap, at)
                    await pmap_removed_pte(gd, pmap, pte, at)
            va = va_next


def _va_next(pmap: Pmap, va: int) -> int:
    """Where the next page table begins. A directory that is not there is passed as a whole."""
    span = SEG_SHIFT
    if pmap.id and pmap_pde(pmap, va) is None:
        has_pdp = NUPDE + NUPDPE + (va >> PML4_SHIFT) in pmap.pt_pages
        span = PDP_SHIFT if has_pdp else PML4_SHIFT
    return (va >> span) + 1 << span


async def _valid_ptes(gd: GlobalData, pmap: Pmap, sva: int, eva: int) -> list[tuple[int, int]]:
    """(va, VPTE) of what is not 0 in a range of one page table. pm_pteobj keeps V from changing."""
    first = pmap_pte(pmap, sva)
    if first is None:
        return []
    count = (eva - sva) >> PAGE_SHIFT
    ptes = await access(gd, *(load(first + 8 * n) for n in range(count)))
    return [(sva + n * PAGE_SIZE, pte) for n, pte in enumerate(ptes) if pte]


async def pmap_protect(gd: GlobalData, pmap: Pmap, sva: int, eva: int, prot: int) -> None:
    """pmap.c:pmap_protect. Write permission goes page by page, by pmap_clean_pte; NX is never set.

    A clear A needs no INVAL, and so gets none (W14).
    """
    if not prot & PROT_READ:
        await pmap_remove(gd, pmap, sva, eva)
        return
    if prot & PROT_WRITE:
        return
    async with pmap.pm_pteobj:
        va = sva
        while va < eva:
            va_next = min(_va_next(pmap, va), eva)
            for at, pte in await _valid_ptes(gd, pmap, va, va_next):
                ptep = pmap_pte(pmap, at)
                assert ptep is not None
                if not pte & VPTE_MANAGED:
                    await pmap_clean_pte(gd, ptep, pmap, at, None)
                    continue
                m = gd.kernel.vm_page_queues.pages[vpte_frame(pte)]
                async with m.spin:
                    pbits = await pmap_clean_pte(gd, ptep, pmap, at, m)
                    pmap_note_bits(m, pbits)
                    if pbits & VPTE_A:
                        await atomic_clear_long(gd, ptep, VPTE_A)
            va = va_next


async def pmap_remove_pages(gd: GlobalData, pmap: Pmap) -> None:
    """pmap.c:pmap_remove_pages, which is pmap_remove by now: wired pages go too. Where they are is
    known here from the pmap's own pv list."""
    async with pmap.pm_pteobj:
        for va, pv in list(pmap.pvs.items()):
            pte = await pmap_inval_loadandclear(gd, pv.ptep, pmap, va)
            await pmap_removed_pte(gd, pmap, pte, va)


async def pmap_enter_large(gd: GlobalData, pmap: Pmap, va: int, frame: int, prot: int) -> None:
    """A PS entry in the PD: 512 frames from `frame` on, unmanaged, wired. `va` is 2 MB aligned.

    There is a page table below it or a PS entry, never both. Raises VmWait, with nothing done.
    """
    assert not va & SEG_MASK
    async with pmap.pm_pteobj:
        assert pmap_pte(pmap, va) is None, "pmap_enter_large: page table in the way"
        mpd = await pmap_allocpte(gd, pmap, va, large=True)
        pde = (frame << PAGE_SHIFT) & VPTE_FRAME
        pde |= pte_prot(prot) | VPTE_V | VPTE_U | VPTE_PS | VPTE_WIRED | VPTE_A
        await atomic_swap_long(gd, pte_slot(mpd.frame, va >> SEG_SHIFT), pde)


async def pmap_unwire(gd: GlobalData, pmap: Pmap, va: int) -> None:
    """pmap.c:pmap_unwire. The host does not know of VPTE_WIRED, so it is not told."""
    async with pmap.pm_pteobj:
        ptep = pmap_pte(pmap, va)
        assert ptep is not None, "pmap_unwire: not mapped"
        (pte,) = await access(gd, andn_bits(ptep, VPTE_WIRED))
        pmap.wired_count -= bool(pte & VPTE_WIRED)


async def pmap_extract(gd: GlobalData, pmap: Pmap, va: int) -> int | None:
    """pmap.c:pmap_extract: the frame `va` maps, None if none."""
    async with pmap.pm_pteobj:
        ptep = pmap_pte(pmap, va)
        if ptep is None:
            return None
        (pte,) = await access(gd, load(ptep))
    return vpte_frame(pte) if pte & VPTE_V else None

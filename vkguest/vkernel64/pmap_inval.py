"""Editing a VPTE and telling the host, always in this order: edit, then INVAL.

DragonFly vkernel64 `platform/pmap_inval.c` (non-VMM mode). No guest CPU is stopped and no guest
IPI is sent: the host's pmap_remove shoots down whatever real CPU has the pmap active. What the
host answers is ignored, everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.errno import errno_name
from vkprotocol.insn import swap
from vkprotocol.mman import MADV_INVAL
from vkprotocol.param import KERNEL_KVA_SIZE, KERNEL_KVA_START, PAGE_SIZE, SEG_MASK, SEG_SIZE
from vkprotocol.vpte import VPTE_M, VPTE_RW

from vkguest.kern.errors import GuestPanic
from vkguest.vkernel64.dmap import access, atomic_cmpset_long, load, store
from vkguest.vkernel64.globaldata import GlobalData

if TYPE_CHECKING:
    from vkguest.vkernel64.pmap import Pmap
    from vkguest.vm.vm_page import VmPage


async def pmap_inval_cpu(gd: GlobalData, pmap: Pmap, va: int, size: int) -> None:
    """pmap_inval.c:pmap_inval_cpu. The range is what it is: nobody rounds it."""
    if "async-inval" in gd.mutants:
        gd.deferred.append((pmap, va, size))
        return
    await _inval(gd, pmap, va, size)


async def _inval(gd: GlobalData, pmap: Pmap, va: int, size: int) -> None:
    if pmap is gd.kernel.kernel_pmap:
        reply = await gd.madvise(va, size, MADV_INVAL)
    else:
        reply = await gd.vmspace_mcontrol(pmap.id, va, size, MADV_INVAL, 0)
    if reply.errno and "check-inval" in gd.mutants:
        raise GuestPanic(f"INVAL {va:#x} + {size:#x} refused: {errno_name(reply.errno)}")


async def flush_deferred(gd: GlobalData) -> None:
    """What async-inval left for the end of the trap."""
    while gd.deferred:
        await _inval(gd, *gd.deferred.pop(0))


async def _zero_and_inval(gd: GlobalData, ptep: int, pmap: Pmap, va: int, size: int) -> int:
    """The VPTE becomes 0, then the host forgets it; what was there.

    Once V is clear the host sets no bits here, so the value swapped out has the final A and M.
    """
    late = "inval-before-edit" not in gd.mutants
    if not late:
        await pmap_inval_cpu(gd, pmap, va, size)
    if "m-race" in gd.mutants:
        pte = await load(gd, ptep)
        await store(gd, ptep, 0)
    else:
        (pte,) = await access(gd, swap(ptep, 0))
    if late:
        await pmap_inval_cpu(gd, pmap, va, size)
    return pte


async def pmap_inval_pte(gd: GlobalData, ptep: int, pmap: Pmap, va: int) -> None:
    """pmap_inval.c:pmap_inval_pte and _quick: A and M are thrown away."""
    await _zero_and_inval(gd, ptep, pmap, va, PAGE_SIZE)


async def pmap_inval_pde(gd: GlobalData, ptep: int, pmap: Pmap, va: int) -> None:
    """pmap_inval.c:pmap_inval_pde: 2 MB from `va` on, which the callers do not round down (W17)."""
    if "round-pde-inval" in gd.mutants:
        va &= ~SEG_MASK
    await _zero_and_inval(gd, ptep, pmap, va, SEG_SIZE)


async def pmap_inval_loadandclear(gd: GlobalData, ptep: int, pmap: Pmap, va: int) -> int:
    """pmap_inval.c:pmap_inval_loadandclear."""
    return await _zero_and_inval(gd, ptep, pmap, va, PAGE_SIZE)


async def pmap_clean_pte(gd: GlobalData, ptep: int, pmap: Pmap, va: int, m: VmPage | None) -> int:
    """pmap_inval.c:pmap_clean_pte: RW and M off, INVAL if RW was on; the value before.

    The caller holds m.spin, over the INVAL too: another clearer that finds RW off sends no INVAL
    of its own, so it must not get to look before ours has returned (W03). Of an unmanaged page
    m is None, and nobody else clears.
    """
    early = "inval-before-edit" in gd.mutants
    clear = VPTE_RW | VPTE_M
    if "clear-m-without-inval" in gd.mutants:
        clear = VPTE_M
    pte = await load(gd, ptep)
    if early and pte & VPTE_RW:
        await pmap_inval_cpu(gd, pmap, va, PAGE_SIZE)
    while not await atomic_cmpset_long(gd, ptep, pte, pte & ~clear):
        pte = await load(gd, ptep)
    if pte & clear & VPTE_RW and not early:
        if m is not None and "second-clearer-elides" in gd.mutants:
            await m.spin.release()
            await pmap_inval_cpu(gd, pmap, va, PAGE_SIZE)
            await m.spin.acquire()
        else:
            await pmap_inval_cpu(gd, pmap, va, PAGE_SIZE)
    gd.kernel.emit("guest.clean", gd.kernel.proc, pmap.id, va)
    return pte


async def pmap_invalidate_range(gd: GlobalData, pmap: Pmap, sva: int, eva: int) -> None:
    """pmap_inval.c:pmap_invalidate_range: the INVAL of many edits at once."""
    await pmap_inval_cpu(gd, pmap, sva, eva - sva)


async def cpu_invlpg(gd: GlobalData, va: int) -> None:
    await pmap_inval_cpu(gd, gd.kernel.kernel_pmap, va, PAGE_SIZE)


async def cpu_invltlb(gd: GlobalData) -> None:
    """pmap_inval.c:cpu_invltlb: the whole KVA. (smp_invltlb does nothing at all.)"""
    await pmap_inval_cpu(gd, gd.kernel.kernel_pmap, KERNEL_KVA_START, KERNEL_KVA_SIZE)

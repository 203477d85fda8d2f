"""Removing translations by address. DragonFly pc64 pmap.c:pmap_remove, pmap_remove_callback."""

from __future__ import annotations

from vkhost.kern.panic import kkassert
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_MANAGED, PTE_W, pte_pfn
from vkhost.pc64.pmap_inval import pmap_inval_smp, pte_swap
from vkhost.pc64.pmap_pte import Pte, PteLocks
from vkhost.pc64.pmap_removed import pmap_interlock_drop, pmap_interlock_hold, pmap_removed_am
from vkhost.pc64.pmap_scan import pmap_scan
from vkhost.pc64.tlb import INVLTLB
from vkhost.vm.vm_page import VmPage


async def pmap_remove(pmap: Pmap, start: int, end: int, busied: VmPage | None = None) -> None:
    """No translation in [start, end) when this returns, in any PTE or TLB.

    `busied`: the page that the caller has busied, if any.
    """
    rmap = pmap.kernel.rmap
    flush = "remove-without-shootdown" not in pmap.kernel.mutants

    async def remove(pte: Pte, locks: PteLocks) -> bool:
        await _remove(pmap, pte, locks, flush=flush)
        if not locks.scanning:
            await rmap.settle(busied)
        return True

    await pmap_scan(pmap, start, end, remove)
    await rmap.settle(busied)
    if rmap.walks and flush:
        await rmap.flush_walks(pmap, start, end)


async def pmap_remove_pte(pmap: Pmap, pte: Pte, busied: VmPage | None = None) -> None:
    """One PTE, valid or about to be: whoever is entering it holds the placemark."""
    flush = "remove-without-shootdown" not in pmap.kernel.mutants
    await _remove(pmap, pte, pte.locked(pmap), flush=flush)
    await pmap.kernel.rmap.settle(busied)


async def pmap_remove_pages(pmap: Pmap, start: int, end: int) -> None:
    """The same where nobody runs any more: no IPIs, one local flush at the end (W23)."""

    async def remove(pte: Pte, locks: PteLocks) -> bool:
        await _remove(pmap, pte, locks, flush=False)
        if not locks.scanning:
            await pmap.kernel.rmap.settle()
        return True

    await pmap_scan(pmap, start, end, remove)
    await pmap.kernel.rmap.settle()
    cpu = pmap.kernel.curcpu()
    if cpu is not None:
        await cpu.tlb.flush(pmap, INVLTLB)


async def _remove(pmap: Pmap, pte: Pte, locks: PteLocks, *, flush: bool) -> None:
    """pmap_remove_callback. The placemark goes before the count, in pmap_enter after it."""
    async with locks:
        old: int = await pte.load()
        if not old & PTE_MANAGED:
            return
        # The PTE says which page, and nothing keeps that page the one that was entered (W08).
        m: VmPage = pmap.kernel.pages[pte_pfn(old)]
        await pmap_interlock_hold(m)
        if flush:
            old = await pmap_inval_smp(pmap, pte, 0, 0, "remove")
        else:
            old = await pte_swap(pmap, pte, 0, 0, "remove")
        if old:
            pmap.wired_count -= bool(old & PTE_W)
            await pmap_removed_am(m, old)
            await pmap.kernel.rmap.remove(pmap, m, pte, old)
    await pmap_interlock_drop(m)


async def pmap_release(pmap: Pmap) -> None:
    """The address space is gone for good, and nobody is on it."""
    active = pmap.pm_active.state
    kkassert(pmap.kernel, not active, f"pmap still active! {active:#x}")
    del pmap.kernel.pmaps[pmap.id]
    pmap.kernel.rmap.release(pmap)
    for cpu in pmap.kernel.cpus:
        cpu.tlb.forget(pmap)

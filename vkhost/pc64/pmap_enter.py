"""pmap_enter: install the translation of one address. DragonFly pc64 pmap.c:pmap_enter."""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING

from vkprotocol.effects import Step

from vkhost.kern.panic import kkassert
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_MANAGED, PTE_RW, PTE_W, pte_make, pte_pfn
from vkhost.pc64.pmap_inval import pmap_inval_smp, pte_swap
from vkhost.pc64.pmap_pte import Pte
from vkhost.pc64.pmap_removed import (
    pmap_interlock_drop,
    pmap_interlock_hold,
    pmap_removed_am,
    pmap_removed_pte,
)
from vkhost.vm.vm_page import PG_MAPPED, PG_MAPPEDMULTI, PG_WRITEABLE, VmPage

if TYPE_CHECKING:
    from vkhost.vm.vm_fault_state import FaultState
    from vkhost.vm.vm_map import VmMapEntry


async def pmap_enter(
    pmap: Pmap,
    va: int,
    m: VmPage,
    prot: int,
    wired: bool,
    entry: VmMapEntry | None,
    fs: FaultState | None = None,
) -> bool:
    """Map m at va with exactly `prot`. m is hard-busied; what was mapped there is not.

    False: the reverse map no longer stands by what the fault `fs` has found; nothing is mapped.
    """
    pte = pmap.pte(va)
    new = pte_make(m.pfn, prot, PTE_A | PTE_MANAGED | (PTE_W if wired else 0))
    async with pte.locked(pmap):
        if fs is not None and not await pmap.kernel.rmap.permits(fs):
            return False
        old: int = await pte.load()
        # A concurrent fault may have done it all: what the hardware adds makes no difference.
        if (old ^ new) & ~(PTE_A | PTE_M):
            await _enter(pmap, pte, old, new, m, entry)
        if fs is not None:
            await pmap.kernel.rmap.entered(fs)
        await _assert_mapped(pmap, m)
    return True


async def _enter(
    pmap: Pmap, pte: Pte, old: int, new: int, m: VmPage, entry: VmMapEntry | None
) -> None:
    oldm = pmap.kernel.pages[pte_pfn(old)] if old else None
    # First the list, then the flags: whoever takes away the only other PTE of m meanwhile finds
    # either the list empty, and PG_MAPPED is set again, or not empty, and leaves it.
    if oldm is not m:
        await pmap.kernel.rmap.enter(pmap, m, pte, entry)
    await _set_mapped_flags(m, new)
    if oldm is None:
        # 0 -> valid needs no shootdown: nobody caches that there is nothing.
        await pte_swap(pmap, pte, new, m.frame.generation, "enter")
        pmap.wired_count += bool(new & PTE_W)
        return
    kkassert(
        pmap.kernel,
        entry is not None,
        f"pmap_enter: no entry to replace a managed pte at {pte.va:#x}",
    )
    # We hold no busy of oldm: until its A, M and flags are settled, the count keeps
    # pmap_remove_all from believing that there is nothing left of it (W33).
    await pmap_interlock_hold(oldm)
    old = await pmap_inval_smp(pmap, pte, new, m.frame.generation, "enter")
    pmap.wired_count += bool(new & PTE_W and not old & PTE_W)
    await pmap_removed_am(oldm, old)
    # 0: pmap_remove_all was there first, and oldm may long be mapped anew or another's.
    if old and oldm is not m:
        await pmap.kernel.rmap.remove(pmap, oldm, pte, old)
    elif old and pmap.kernel.quirks.enter_removes_same:
        # Harmless as long as PG_MAPPED was set before, since then PG_MAPPEDMULTI is (W46).
        await pmap_removed_pte(oldm)
    await pmap_interlock_drop(oldm)


@coroutine
def _set_mapped_flags(m: VmPage, new: int) -> Step:
    """PG_MAPPED, PG_WRITEABLE; PG_MAPPEDMULTI whenever it is mapped already, even if here."""
    word = m.flags
    yield word._write
    old: int = word.state
    bits = 0 if "enter-without-mapped" in m.kernel.mutants else PG_MAPPED
    if new & PTE_RW:
        bits |= PG_WRITEABLE
    if old & PG_MAPPED:
        bits |= PG_MAPPEDMULTI
    if bits & ~old:
        word.state = old | bits
        m.kernel.emit("page.flags", m.pfn, bits & ~old, 0)


async def _assert_mapped(pmap: Pmap, m: VmPage) -> None:
    """The `done` label. After a reverse map that missed this PTE has cleared PG_MAPPED, entering
    the identical translation again gets here with nothing set (W09)."""
    kkassert(
        pmap.kernel,
        await m.flags.load() & PG_MAPPED,
        f"pmap_enter: page {m.pfn} entered but not PG_MAPPED",
    )

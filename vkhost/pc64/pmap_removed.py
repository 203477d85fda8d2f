"""What becomes of a page when one of its PTEs is gone. DragonFly pc64 pmap.c:pmap_removed_pte.

The thread that took the PTE away has not busied the page: pmap_remove goes by the frame number in
the PTE, whoever owns that frame now (W08).
"""

from __future__ import annotations

from types import coroutine
from typing import Any, Final

from vkprotocol.effects import CLOCK, Step

from vkhost.kern.panic import panic
from vkhost.kern.token import tsleep_until
from vkhost.pc64.pmap_bits import PTE_A, PTE_M
from vkhost.vm.vm_page import PG_MAPPED, PG_MAPPEDMULTI, PG_REFERENCED, PG_WRITEABLE, VmPage
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_flag_set

INTERLOCK_WAITER: Final = 1 << 62
INTERLOCK_COUNT: Final = INTERLOCK_WAITER - 1
NS: Final = 1_000_000_000
GIVE_UP_NS: Final = 60 * NS


async def pmap_removed_am(m: VmPage, pte: int) -> None:
    """Carry the hardware's M and A of a removed PTE over to its page."""
    if pte & PTE_M and "remove-drops-modified" not in m.kernel.mutants:
        await vm_page_dirty(m)
    if pte & PTE_A:
        await vm_page_flag_set(m, PG_REFERENCED)


@coroutine
def pmap_removed_pte(m: VmPage) -> Step:
    """The only PTE of a page mapped once is gone: so are PG_MAPPED and PG_WRITEABLE.

    A page that was ever mapped twice keeps them until pmap_remove_all.
    """
    word = m.flags
    yield word._write
    old: int = word.state
    if old & PG_MAPPEDMULTI and "removed-pte-ignores-multi" not in m.kernel.mutants:
        return
    gone = old & (PG_MAPPED | PG_WRITEABLE)
    if gone:
        word.state = old & ~gone
        m.kernel.emit("page.flags", m.pfn, 0, gone)


async def pmap_interlock_hold(m: VmPage) -> None:
    """m->md.interlock_count + 1, before a PTE of m is swapped out."""
    if "no-interlock-count" not in m.kernel.mutants:
        await m.interlock_count.add(1)


@coroutine
def pmap_interlock_drop(m: VmPage) -> Step:
    """- 1, once A, M and the flags are m's; the last to leave wakes who waits in
    pmap_interlock_wait, by clearing the waiter bit it sleeps on."""
    if "no-interlock-count" in m.kernel.mutants:
        return
    word = m.interlock_count
    yield word._write
    word.state = 0 if word.state == INTERLOCK_WAITER | 1 else word.state - 1


def _no_waiter(state: Any) -> bool:
    return not state & INTERLOCK_WAITER


@coroutine
def _want(m: VmPage) -> Step:
    """True: PTEs of m are in flight, and we are down as waiting for them."""
    word = m.interlock_count
    yield word._write
    if not word.state & INTERLOCK_COUNT:
        return False
    word.state |= INTERLOCK_WAITER
    return True


async def pmap_interlock_wait(m: VmPage, since: int) -> bool:
    """After a scan for the PTEs of m: are there some on the way out that it may have missed?
    Then sleep ("pgunm", one tick at most) and answer True: scan again.

    `since`: when the caller began (virtual ns); there is an end to patience.
    """
    if not await _want(m):
        return False
    if CLOCK[0] - since > GIVE_UP_NS:
        panic(m.kernel, f"pmap_remove_all: cannot return interlock_count {m.pfn}")
    await tsleep_until(m.interlock_count, _no_waiter, "pgunm", NS // m.kernel.config.hz)
    return True

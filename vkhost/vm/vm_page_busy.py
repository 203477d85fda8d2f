"""Hard and soft busy. DragonFly vm_page.c:vm_page_busy_try, vm_page_busy_wait, vm_page_wakeup.

Hard busy (PBUSY_LOCKED) is exclusive and owns the page; soft busy is a count of I/Os in progress.
PBUSY_WANTED and its wakeup are the executor's: a waiter here is a guard on busy_count.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING, Any

from vkprotocol.effects import Step

from vkhost.kern.panic import kkassert
from vkhost.kern.token import tsleep_until
from vkhost.vm.vm_page import PBUSY_LOCKED, PBUSY_MASK, VmPage

if TYPE_CHECKING:
    from vkhost.vm.vm_object import VmObject

_TAKEN = PBUSY_LOCKED | PBUSY_MASK


def vm_page_not_busy(state: Any) -> bool:
    return not state & _TAKEN


def _not_locked(state: Any) -> bool:
    return not state & PBUSY_LOCKED


@coroutine
def vm_page_busy_try(m: VmPage, also_m_busy: bool = True) -> Step:
    """True: the page is ours. False: somebody has it hard-busied (or, by default, soft-busied)."""
    word = m.busy_count
    yield word._write
    if word.state & (_TAKEN if also_m_busy else PBUSY_LOCKED):
        return False
    word.state |= PBUSY_LOCKED
    m.kernel.emit("page.busy", m.pfn, "hard")
    return True


async def vm_page_busy_wait(m: VmPage, wmesg: str, also_m_busy: bool = True) -> None:
    """Busy the page; tokens are lost while it is somebody else's."""
    while not await vm_page_busy_try(m, also_m_busy):
        await tsleep_until(m.busy_count, vm_page_not_busy if also_m_busy else _not_locked, wmesg)


async def vm_page_sleep_busy(m: VmPage, wmesg: str, also_m_busy: bool = True) -> None:
    """Wait until the page is not busy, without taking it; tokens are lost meanwhile."""
    await tsleep_until(m.busy_count, vm_page_not_busy if also_m_busy else _not_locked, wmesg)


@coroutine
def vm_page_wakeup(m: VmPage) -> Step:
    """Give up the hard busy and wake who waits for it."""
    word = m.busy_count
    yield word._write
    kkassert(m.kernel, word.state & PBUSY_LOCKED, f"vm_page_wakeup: page {m.pfn} not busy")
    word.state &= ~PBUSY_LOCKED
    m.kernel.emit("page.unbusy", m.pfn, "hard")


@coroutine
def vm_page_io_start(m: VmPage) -> Step:
    """Soft-busy a hard-busied page: keeps others from busying it once the hard busy is gone."""
    yield m.busy_count._write
    m.busy_count.state += 1
    m.kernel.emit("page.busy", m.pfn, "soft")


@coroutine
def vm_page_io_finish(m: VmPage) -> Step:
    word = m.busy_count
    yield word._write
    kkassert(m.kernel, word.state & PBUSY_MASK, f"vm_page_io_finish: page {m.pfn} not soft-busy")
    word.state -= 1
    m.kernel.emit("page.unbusy", m.pfn, "soft")


async def vm_page_lookup_busy_try(obj: VmObject, pindex: int) -> tuple[VmPage | None, bool]:
    """(page, False): resident and now busied. (page, True): busy elsewhere. (None, False): none.

    Token of `obj` held, shared or exclusive.
    """
    m = obj.memq.get(pindex)
    if m is None:
        return None, False
    return m, not await vm_page_busy_try(m)


async def vm_page_lookup_busy_wait(obj: VmObject, pindex: int, wmesg: str) -> VmPage | None:
    """As above, waiting; the object's token is lost while it waits, so the lookup is repeated."""
    while (m := obj.memq.get(pindex)) is not None:
        if await vm_page_busy_try(m):
            return m
        await vm_page_sleep_busy(m, wmesg)
    return None

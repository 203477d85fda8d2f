"""Wiring and holding. DragonFly vm_page.c:vm_page_wire, vm_page_unwire, vm_page_hold.

A wired page is on no queue the pageout daemon looks at; a held one may lose its object and its
mappings, but its frame is not given to anybody else.
"""

from __future__ import annotations

from types import coroutine

from vkprotocol.effects import Step

from vkhost.kern.panic import kkassert
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_lru import vm_page_activate, vm_page_deactivate, vm_page_unqueue
from vkhost.vm.vm_page_queue import PQ_FREE, PQ_HOLD, PQ_NONE


async def vm_page_wire(m: VmPage) -> None:
    """One more wiring; the first takes the page off its queue. Page busied."""
    if await _wire_add(m, 1) == 0:
        await m.kernel.vmstats.v_wire_count.add(1)
        if m.queue != PQ_NONE:
            await vm_page_unqueue(m)


async def vm_page_unwire(m: VmPage, activate: bool) -> None:
    """One wiring less; the last puts the page on a queue again. Page busied."""
    before = await _wire_add(m, -1)
    kkassert(m.kernel, before > 0, f"vm_page_unwire: invalid wire count: {before - 1}")
    if before == 1:
        await m.kernel.vmstats.v_wire_count.add(-1)
        if activate:
            await vm_page_activate(m)
        else:
            await vm_page_deactivate(m)


@coroutine
def _wire_add(m: VmPage, delta: int) -> Step:
    yield m.wire_count._write
    old = m.wire_count.state
    m.wire_count.state = old + delta
    m.kernel.emit("page.wire", m.pfn, old + delta)
    return old


async def vm_page_hold(m: VmPage) -> None:
    """Keep the frame from reuse. Page busied, or already held."""
    before = await m.hold_count.add(1)
    m.kernel.emit("page.hold", m.pfn, before + 1)


async def vm_page_unhold(m: VmPage) -> None:
    """The last hold of a page freed meanwhile sends its frame from PQ_HOLD to PQ_FREE."""
    before = await m.hold_count.add(-1)
    m.kernel.emit("page.hold", m.pfn, before - 1)
    kkassert(m.kernel, before > 0, f"vm_page_unhold: page {m.pfn} not held")
    if before != 1:
        return
    hold = m.kernel.queues.of(PQ_HOLD, m.pc)
    async with hold:
        leave = m.queue == PQ_HOLD and await m.hold_count.load() == 0
        if leave:
            hold.remove(m)
    if leave:
        free = m.kernel.queues.of(PQ_FREE, m.pc)
        async with free:
            free.insert_tail(m)
            m.kernel.emit("page.queue", m.pfn, PQ_HOLD, PQ_FREE)
            m.kernel.emit("page.free", m.pfn, m.frame.generation)
            if m.kernel.goes_on:
                m.frame.forget_words()

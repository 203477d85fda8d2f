"""Moving pages between the queues. DragonFly vm_page.c:vm_page_activate, vm_page_deactivate ...

The page is hard-busied in all of these; that is what keeps m.queue still.
"""

from __future__ import annotations

from vkhost.kern.panic import kkassert
from vkhost.vm.vm_page import ACT_INIT, PG_WINATCFLS, VmPage
from vkhost.vm.vm_page_dirty import vm_page_flag_clear, vm_page_reusable
from vkhost.vm.vm_page_queue import PQ_ACTIVE, PQ_CACHE, PQ_INACTIVE, PQ_NONE
from vkhost.vm.vm_pageout_wakeup import pagedaemon_wakeup


async def vm_page_unqueue_nowakeup(m: VmPage) -> None:
    """Take the page off whatever queue it is on."""
    queue = m.kernel.queues.of_page(m)
    if queue is not None:
        await queue.acquire()
        old = m.queue
        queue.remove(m)
        m.kernel.emit("page.queue", m.pfn, old, PQ_NONE)
        await queue.release()
        if old == PQ_CACHE:
            await vm_page_reusable(m, False)


async def vm_page_unqueue(m: VmPage) -> None:
    """As above; leaving the cache means less free memory, so the pagedaemon is told."""
    cached = m.queue == PQ_CACHE
    await vm_page_unqueue_nowakeup(m)
    if cached:
        await pagedaemon_wakeup(m.kernel)


async def vm_page_enqueue(m: VmPage, kind: int, *, at_head: bool = False) -> None:
    """_vm_page_add_queue_spinlocked: a page on no queue goes on one."""
    queue = m.kernel.queues.of(kind, m.pc)
    await queue.acquire()
    kkassert(m.kernel, m.queue == PQ_NONE, f"page {m.pfn} is on a queue already")
    if at_head:
        queue.insert_head(m)
    else:
        queue.insert_tail(m)
    m.kernel.emit("page.queue", m.pfn, PQ_NONE, kind)
    await queue.release()


async def vm_page_requeue(m: VmPage) -> None:
    """To the tail of its own queue."""
    queue = m.kernel.queues.of_page(m)
    if queue is not None:
        async with queue:
            queue.remove(m)
            queue.insert_tail(m)


async def vm_page_activate(m: VmPage) -> None:
    if m.queue == PQ_ACTIVE:
        if m.act_count < ACT_INIT:
            m.act_count = ACT_INIT
        return
    cached = m.queue == PQ_CACHE
    await vm_page_unqueue_nowakeup(m)
    if await m.wire_count.load() == 0:
        if m.act_count < ACT_INIT:
            m.act_count = ACT_INIT
        await vm_page_enqueue(m, PQ_ACTIVE)
    if cached:
        await pagedaemon_wakeup(m.kernel)


async def vm_page_deactivate(m: VmPage, *, at_head: bool = False) -> None:
    """To PQ_INACTIVE, whose tail is looked at last."""
    if m.queue == PQ_INACTIVE:
        return
    await vm_page_unqueue(m)
    if await m.wire_count.load() == 0:
        await vm_page_flag_clear(m, PG_WINATCFLS)
        await vm_page_enqueue(m, PQ_INACTIVE, at_head=at_head)

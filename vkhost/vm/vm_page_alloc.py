"""Getting frames, and giving them back. DragonFly vm_page.c:vm_page_alloc, vm_page_free_toq,
vm_page_insert, vm_page_remove, vm_page_list_find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkhost.kern.panic import kkassert
from vkhost.vm.vm import VM_PROT_NONE
from vkhost.vm.vm_page import PG_MAPPED, VmPage
from vkhost.vm.vm_page_busy import vm_page_busy_try, vm_page_not_busy, vm_page_wakeup
from vkhost.vm.vm_page_dirty import (
    vm_page_protect,
    vm_page_reusable,
    vm_page_undirty,
)
from vkhost.vm.vm_page_lru import vm_page_deactivate, vm_page_enqueue, vm_page_unqueue_nowakeup
from vkhost.vm.vm_page_queue import PQ_CACHE, PQ_FREE, PQ_HOLD, PQ_NONE
from vkhost.vm.vm_pageout_wakeup import pagedaemon_wakeup, paging_counts, vm_page_free_wakeup

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.vm.vm_object import VmObject

VM_ALLOC_NORMAL: Final = 0x01  # may take from the cache queue
VM_ALLOC_SYSTEM: Final = 0x02  # may go below free_reserved
VM_ALLOC_INTERRUPT: Final = 0x04  # may take the last page
VM_ALLOC_NULL_OK: Final = 0x20  # the index may be taken meanwhile: None then


async def vm_page_alloc(obj: VmObject, pindex: int, page_req: int) -> VmPage | None:
    """A hard-busied page with none of its former flags, inserted in `obj`; None when there is none.

    Token of `obj` held exclusively. What the frame holds is what its last owner left there.
    """
    kernel = obj.kernel
    m = await _select(kernel, pindex, page_req)
    if m is None:
        await kernel.pagedaemon.vm_pageout_deficit.add(1)
        await pagedaemon_wakeup(kernel)
        return None
    await _reset(m)
    m.frame.generation += 1
    if not await vm_page_insert(m, obj, pindex):
        kkassert(kernel, page_req & VM_ALLOC_NULL_OK, f"vm_page_alloc: {obj.id}[{pindex}] exists")
        await vm_page_free(m)
        return None
    kernel.emit("page.alloc", m.pfn, m.frame.generation, obj.id, pindex)
    await pagedaemon_wakeup(kernel)
    return m


async def _select(kernel: Kernel, pindex: int, page_req: int) -> VmPage | None:
    """A busied page off the queues. PQ_FREE while there are enough; then, for those who may wait,
    clean pages of PQ_CACHE, each freed and looked for again."""
    meter = kernel.vmmeter
    while True:
        free, cache = await paging_counts(kernel)
        if (
            free >= meter.v_free_reserved
            or (page_req & VM_ALLOC_INTERRUPT and free > 0)
            or (page_req & VM_ALLOC_SYSTEM and cache == 0 and free > meter.v_interrupt_free_min)
        ):
            m = await _select_free(kernel, pindex)
            if m is not None:
                return m
            continue
        if not page_req & VM_ALLOC_NORMAL:
            return None
        m = await _select_cache(kernel, pindex)
        if m is None:
            return None
        dirty = await m.dirty.load()
        kkassert(kernel, dirty == 0, f"Found dirty cache page {m.pfn}")
        await vm_page_protect(m, VM_PROT_NONE)
        await vm_page_free(m)


async def _select_free(kernel: Kernel, color: int) -> VmPage | None:
    """A free page, busied and off its queue in one critical section of the queue. None when there
    was none to be had; the counts may have changed."""
    queues = kernel.queues
    leaving: VmPage | None = None
    for i in range(queues.colors):
        queue = queues.of(PQ_FREE, (color + i) % queues.colors)
        async with queue:
            for m in queue:
                assert isinstance(m, VmPage)
                if await vm_page_busy_try(m):
                    queue.remove(m)
                    kernel.emit("page.queue", m.pfn, PQ_FREE, PQ_NONE)
                    return m
                leaving = m
    if leaving is not None:
        # Its former owner has queued it and is about to unbusy it, for which it needs nothing.
        await leaving.busy_count.wait(vm_page_not_busy)
    return None


async def _select_cache(kernel: Kernel, pindex: int) -> VmPage | None:
    """vm_page_select_cache: a cached page that nobody wired, held or dirtied since; busied."""
    while True:
        m = await vm_page_list_find(kernel, PQ_CACHE, pindex)
        if m is None:
            return None
        if (
            await m.wire_count.load() == 0
            and await m.hold_count.load() == 0
            and await m.dirty.load() == 0
        ):
            return m
        await vm_page_deactivate(m)
        await vm_page_wakeup(m)


async def vm_page_list_find(kernel: Kernel, kind: int, color: int) -> VmPage | None:
    """A page of the queue that could be busied, of `color` or the next colour that has one."""
    queues = kernel.queues
    for i in range(queues.colors):
        queue = queues.of(kind, (color + i) % queues.colors)
        async with queue:
            for link in queue:
                if isinstance(link, VmPage) and await vm_page_busy_try(link):
                    return link
    return None


async def _reset(m: VmPage) -> None:
    """A page as vm_page_alloc hands it out (PG_KEEP_NEWPAGE_MASK is 0)."""
    kernel = m.kernel
    dirty = await vm_page_reusable(m, False)
    kkassert(kernel, dirty == 0, f"vm_page_alloc: free/cache page {m.pfn} was dirty")
    flags = await m.flags.swap(0)
    if flags:
        kernel.emit("page.flags", m.pfn, 0, flags)
    m.act_count = 0
    m.valid = 0


async def vm_page_insert(m: VmPage, obj: VmObject, pindex: int) -> bool:
    """Give the page an identity. Page busied, token exclusive. False: the place is taken."""
    if pindex in obj.memq:
        return False
    m.object = obj
    m.pindex = pindex
    obj.memq[pindex] = m
    obj.resident_page_count += 1
    return True


async def vm_page_remove(m: VmPage) -> None:
    """Take the page's identity away. Page busied; the token is taken here (it recurses)."""
    obj = m.object
    if obj is None:
        return
    async with obj.token:
        del obj.memq[m.pindex]
        obj.resident_page_count -= 1
        m.object = None


async def vm_page_free(m: VmPage) -> None:
    """The frame is anybody's. Page busied, which is eaten; no mapping may be left."""
    kernel = m.kernel
    flags = await m.flags.load()
    kkassert(kernel, not flags & PG_MAPPED, f"vm_page_free_toq: page {m.pfn} is still mapped")
    wired = await m.wire_count.load()
    kkassert(kernel, wired == 0, f"vm_page_free: freeing wired page {m.pfn}")
    kkassert(kernel, m.queue != PQ_FREE, f"vm_page_free: freeing free page {m.pfn}")
    await vm_page_unqueue_nowakeup(m)
    await vm_page_remove(m)
    m.valid = 0
    await vm_page_undirty(m)
    await vm_page_reusable(m, True)
    held = await m.hold_count.load()
    if held:
        await vm_page_enqueue(m, PQ_HOLD)
    else:
        await vm_page_enqueue(m, PQ_FREE)
        kernel.emit("page.free", m.pfn, m.frame.generation)
        if kernel.goes_on:
            m.frame.forget_words()
    await vm_page_wakeup(m)
    await vm_page_free_wakeup(kernel)

"""Clean pages that can be had for nothing: PQ_CACHE. DragonFly vm_page.c:vm_page_cache,
vm_page_try_to_cache, vm_page_try_to_free, vm_page_dontneed.

A cached page keeps its identity - a fault finds it again - but nobody may map it.
"""

from __future__ import annotations

from vkhost.kern.panic import kkassert
from vkhost.vm.vm import VM_PROT_NONE
from vkhost.vm.vm_page import PBUSY_MASK, PG_MAPPED, PG_NEED_COMMIT, PG_UNQUEUED, VmPage
from vkhost.vm.vm_page_alloc import vm_page_free
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_protect, vm_page_reusable, vm_page_test_dirty
from vkhost.vm.vm_page_lru import vm_page_deactivate, vm_page_enqueue, vm_page_unqueue_nowakeup
from vkhost.vm.vm_page_queue import PQ_ACTIVE, PQ_CACHE
from vkhost.vm.vm_pageout_wakeup import vm_page_free_wakeup


async def vm_page_cache(m: VmPage) -> None:
    """Put a clean page on PQ_CACHE. Page busied, which is eaten.

    Removing the mappings may turn up that it was dirty after all: then it is deactivated.
    """
    flags = await m.flags.load()
    if flags & (PG_UNQUEUED | PG_NEED_COMMIT) or await _pinned(m):
        await vm_page_wakeup(m)
        return
    if m.queue == PQ_CACHE:
        kkassert(m.kernel, not flags & PG_MAPPED, f"vm_page_cache: page {m.pfn} is mapped")
        await vm_page_wakeup(m)
        return
    if m.kernel.quirks.cache_dirty_panic:
        # The caller has looked, but pmap_remove on another CPU dirties a page without its busy.
        dirty = await m.dirty.load()
        kkassert(m.kernel, not dirty, f"vm_page_cache: caching a dirty page {m.pfn}")
    if "cache-without-protect" in m.kernel.mutants:
        flags = 0
    else:
        await vm_page_protect(m, VM_PROT_NONE)
        flags = await m.flags.load()
    if "cache-without-recheck" not in m.kernel.mutants:
        if flags & (PG_UNQUEUED | PG_MAPPED) or await _pinned(m):
            await vm_page_wakeup(m)
            return
        if await m.dirty.load():
            await vm_page_deactivate(m)
            await vm_page_wakeup(m)
            return
    await vm_page_unqueue_nowakeup(m)
    await vm_page_reusable(m, True)
    await vm_page_enqueue(m, PQ_CACHE)
    await vm_page_wakeup(m)
    await vm_page_free_wakeup(m.kernel)


async def _pinned(m: VmPage) -> bool:
    """Under I/O, wired or held."""
    busy = await m.busy_count.load() & PBUSY_MASK
    return bool(busy or await m.wire_count.load() or await m.hold_count.load())


async def vm_page_try_to_cache(m: VmPage) -> bool:
    """The same, if nothing speaks against it. Page busied, which is eaten either way.

    Since 2019 a page that turns out dirty leaves the active queue: its caller wants it nearer.
    """
    nearer = m.kernel.quirks.try_to_cache_deactivates
    if await _in_use(m) or (nearer and m.queue == PQ_CACHE):
        await vm_page_wakeup(m)
        return False
    await vm_page_test_dirty(m)
    if await m.dirty.load():
        if nearer and m.queue == PQ_ACTIVE:
            await vm_page_deactivate(m)
        await vm_page_wakeup(m)
        return False
    await vm_page_cache(m)
    return True


async def vm_page_try_to_free(m: VmPage) -> bool:
    """The same, to PQ_FREE."""
    if await _in_use(m):
        await vm_page_wakeup(m)
        return False
    await vm_page_test_dirty(m)
    if await m.dirty.load():
        await vm_page_wakeup(m)
        return False
    await vm_page_protect(m, VM_PROT_NONE)
    if await m.dirty.load():
        await vm_page_wakeup(m)
        return False
    await vm_page_free(m)
    return True


async def _in_use(m: VmPage) -> bool:
    return bool(
        await m.dirty.load()
        or await m.hold_count.load()
        or await m.wire_count.load()
        or await m.flags.load() & (PG_UNQUEUED | PG_NEED_COMMIT)
    )


async def vm_page_dontneed(m: VmPage) -> None:
    """MADV_DONTNEED: a page that has outlived its use, though perhaps dirty. Page busied.

    The kernel mixes in some of its own opinion (dnw counter); here every such page goes to the
    head of the inactive queue, where the next scan begins.
    """
    await vm_page_test_dirty(m)
    await vm_page_deactivate(m, at_head=await m.dirty.load() == 0)

"""The cache scan: clean, unmapped pages become free. DragonFly vm_pageout.c:vm_pageout_scan_cache.

A page on PQ_CACHE is taken to have no mapping anywhere. Here, and in vm_page_alloc, is where a
reverse map that missed one turns into a frame with two owners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkhost.kern.panic import kkassert
from vkhost.vm.vm_page import PG_MAPPED, PG_NEED_COMMIT, PG_UNQUEUED
from vkhost.vm.vm_page_alloc import vm_page_list_find
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_lru import vm_page_deactivate
from vkhost.vm.vm_page_queue import PQ_CACHE
from vkhost.vm.vm_pageout_page import vm_pageout_page_free
from vkhost.vm.vm_pageout_wakeup import pagedaemon_wakeup

if TYPE_CHECKING:
    from vkhost.kernel import Kernel

PQ_PRIME2: Final = 13  # the stride of the rover


async def vm_pageout_scan_cache(kernel: Kernel, rover: int) -> int:
    """Free cached pages until half the way to the target. Returns where the next one starts."""
    meter = kernel.vmmeter
    while await meter.vmstats.v_free_count.load() < (meter.v_free_min + meter.v_free_target) // 2:
        m = await vm_page_list_find(kernel, PQ_CACHE, rover % kernel.config.pqcolors)
        if m is None:
            break
        await pagedaemon_wakeup(kernel)
        flags = await m.flags.load()
        if (
            flags & (PG_UNQUEUED | PG_NEED_COMMIT)
            or await m.hold_count.load()
            or await m.wire_count.load()
        ):
            await vm_page_deactivate(m)
            await vm_page_wakeup(m)
            continue
        kkassert(kernel, not flags & PG_MAPPED, f"cached page {m.pfn} is mapped")
        kkassert(kernel, await m.dirty.load() == 0, f"cached page {m.pfn} is dirty")
        kernel.emit("pageout.page", m.pfn, "free-cached")
        await vm_pageout_page_free(m)
        meter.count("v_dfree")
        rover += PQ_PRIME2
    return rover

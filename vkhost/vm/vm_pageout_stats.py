"""Ageing while nothing is short, so that the active queue is in order when something is.

DragonFly vm_pageout.c:vm_pageout_page_stats, vm_pageout_scan_hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkhost.vm.vm import VM_PROT_NONE
from vkhost.vm.vm_page import ACT_ADVANCE, ACT_DECLINE, ACT_MAX, PG_REFERENCED, VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_flag_clear, vm_page_protect
from vkhost.vm.vm_page_lru import vm_page_deactivate, vm_page_requeue, vm_page_unqueue_nowakeup
from vkhost.vm.vm_page_queue import PQ_ACTIVE, PQ_HOLD
from vkhost.vm.vm_page_wire import vm_page_hold, vm_page_unhold
from vkhost.vm.vm_pageout_scan import PageScan

if TYPE_CHECKING:
    from vkhost.kernel import Kernel


async def vm_pageout_page_stats(kernel: Kernel, color: int, *, full: bool) -> None:
    """One sub-queue; a full round looks at all of it, the others at a part of its size."""
    meter = kernel.vmmeter
    free, cache = await meter.vmstats.free_and_cache()
    inactive = await meter.vmstats.v_inactive_count.load()
    wanted = meter.v_inactive_target + meter.v_cache_max + meter.v_free_min
    if wanted - (free + inactive + cache) <= 0:
        return
    scan = PageScan(kernel, PQ_ACTIVE, color)
    await scan.start(divider=1)
    scan.left -= 1
    if not full:
        part = meter.v_free_target * scan.left // meter.v_page_count + 1
        scan.left = min(scan.left, part)
    while (m := await scan.busy_next()) is not None:
        if await m.wire_count.load():
            await vm_page_unqueue_nowakeup(m)
        elif not await m.hold_count.load():
            await _age(m)
        await vm_page_wakeup(m)
    await scan.finish()


async def _age(m: VmPage) -> None:
    actcount = 0
    if await m.flags.load() & PG_REFERENCED:
        await vm_page_flag_clear(m, PG_REFERENCED)
        actcount = 1
    actcount += await m.kernel.rmap.ts_referenced(m)
    if actcount:
        m.act_count = min(m.act_count + ACT_ADVANCE + actcount, ACT_MAX)
    elif m.act_count == 0:
        m.kernel.emit("pageout.page", m.pfn, "stats-deactivate")
        await vm_page_protect(m, VM_PROT_NONE)
        await vm_page_deactivate(m)
        return
    else:
        m.act_count -= min(m.act_count, ACT_DECLINE)
    if m.queue == PQ_ACTIVE:
        await vm_page_requeue(m)


async def vm_pageout_scan_hold(kernel: Kernel, color: int) -> None:
    """A page freed while held waits on PQ_HOLD; if its last unhold missed that, free it now."""
    queue = kernel.queues.of(PQ_HOLD, color)
    async with queue:
        link = next((link for link in queue if isinstance(link, VmPage)), None)
        if link is None or await link.hold_count.load():
            return
        await vm_page_hold(link)
    await vm_page_unhold(link)  # which frees it

"""The pageout daemon: two threads, one loop. DragonFly vm_pageout.c:vm_pageout_thread.

    inactive scan   free, cache or launder          until free + cache reach the target
    active scan     deactivate                      until enough pages are inactive
    cache scan      free                            until enough of the available are free
    and again, sleeping longer the longer a shortage lasts

The emergency pager watches the primary. It starts when pages are needed and the primary has not
been heard of for two seconds, and only touches what cannot have stuck it: no vnodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.effects import CLOCK, curthread

from vkhost.kern.token import tsleep
from vkhost.vm.vm_oom import oom
from vkhost.vm.vm_pageout_active import vm_pageout_scan_active
from vkhost.vm.vm_pageout_cache import vm_pageout_scan_cache
from vkhost.vm.vm_pageout_inactive import vm_pageout_scan_inactive
from vkhost.vm.vm_pageout_page import Laundry
from vkhost.vm.vm_pageout_scan import MAXSCAN_DIVIDER, pqaverage
from vkhost.vm.vm_pageout_stats import vm_pageout_page_stats, vm_pageout_scan_hold
from vkhost.vm.vm_pageout_wakeup import NS_PER_SECOND, VM_PAGE_FREE_HYSTERESIS, paging_counts

if TYPE_CHECKING:
    from vkhost.kernel import Kernel

EMERGENCY_AFTER_NS: Final = 2 * NS_PER_SECOND


class Pageout:
    """One of the two threads: which, how many passes in vain, and where its scans go on."""

    def __init__(self, kernel: Kernel, isep: bool) -> None:
        self.kernel = kernel
        self.daemon = kernel.pagedaemon
        self.meter = kernel.vmmeter
        self.isep = isep
        self.passes = 0  # `pass`: passes in a row that left a shortage
        self.inactive_color = 0
        self.active_color = 0
        self.hold_color = 0
        self.cache_rover = kernel.config.pqcolors // 2 if isep else 0
        self.stats_seconds = 0

    @property
    def rounds(self) -> int:
        """A pass looks at a tenth of the queues."""
        return self.passes // MAXSCAN_DIVIDER

    async def paging_target(self) -> int:
        return self.meter.paging_target(*await self.meter.vmstats.free_and_cache())

    async def paging_needed(self) -> bool:
        return self.meter.paging_needed(*await self.meter.vmstats.free_and_cache())

    async def stamp(self) -> None:
        """vm_pagedaemon_time: the primary is alive."""
        if not self.isep:
            await self.daemon.vm_pagedaemon_time.store(CLOCK[0])

    def colors(self, start: int) -> list[int]:
        """Every sub-queue once; the two threads go round in opposite directions."""
        colors = self.kernel.config.pqcolors
        step = -1 if self.isep else 1
        return [(start + step * i) % colors for i in range(colors)]


async def vm_pageout_thread(kernel: Kernel, emergency: bool = False) -> None:
    """The loop of `pagedaemon`, and of `emergpager`."""
    p = Pageout(kernel, emergency)
    if emergency:
        kernel.pagedaemon.emergpager = curthread()
    else:
        kernel.pagedaemon.pagethread = curthread()
    while True:
        if not await (_emergency(p) if emergency else _asked(p)):
            continue
        p.meter.count("v_pdwakeups")
        await vm_pageout_pass(p)


async def vm_pageout_pass(p: Pageout) -> None:
    """One pass: the three scans, then what the shortage that is left calls for."""
    await p.stamp()
    avail_shortage = await p.paging_target() + await p.daemon.vm_pageout_deficit.swap(0)
    p.kernel.emit("pageout.pass", p.passes, avail_shortage)
    laundry = Laundry(max_launder=0)
    if avail_shortage > 0:
        avail_shortage = await _scan_inactive(p, avail_shortage, laundry)
    await p.stamp()
    avail_shortage, recycle_count = await _scan_active(p, avail_shortage)
    await p.stamp()
    p.cache_rover = await vm_pageout_scan_cache(p.kernel, p.cache_rover)
    if not p.isep:
        await oom(p.kernel, avail_shortage, p.rounds, recycle_count)
    if avail_shortage > 0:
        await _try_again(p)
    else:
        await _relax(p)


async def _asked(p: Pageout) -> bool:
    """The primary waits until pages are needed; while they are not, it ages the active queue."""
    daemon = p.daemon
    await vm_pageout_scan_hold(p.kernel, p.hold_color)
    p.hold_color = (p.hold_color + 1) % p.kernel.config.pqcolors
    if await daemon.vm_pages_needed.load():
        return True
    interval = p.meter.tunables["pageout_stats_interval"]
    woken = await tsleep(daemon.vm_pages_needed_chan, interval * NS_PER_SECOND)
    if not woken and not await p.paging_needed() and not await daemon.vm_pages_needed.load():
        p.stats_seconds += interval
        full = p.stats_seconds >= p.meter.tunables["pageout_full_stats_interval"]
        if full:
            p.stats_seconds = 0
        for color in p.colors(0):
            await vm_pageout_page_stats(p.kernel, color, full=full)
        return False
    await p.stamp()
    await daemon.vm_pages_needed.store(1)
    await daemon.vm_pagedaemon_time_chan.wakeup()
    return True


async def _emergency(p: Pageout) -> bool:
    """Pages are needed and the primary is stuck."""
    daemon = p.daemon
    needed = await daemon.vm_pages_needed.load()
    await tsleep(daemon.vm_pagedaemon_time_chan, (1 if needed else 10) * NS_PER_SECOND)
    if await daemon.vm_pages_needed.load():
        silence = CLOCK[0] - await daemon.vm_pagedaemon_time.load()
        if silence >= EMERGENCY_AFTER_NS:
            return True
    p.passes = 0
    return False


async def _scan_inactive(p: Pageout, avail_shortage: int, laundry: Laundry) -> int:
    """The inactive scan over all sub-queues; the shortage it leaves."""
    share = pqaverage(avail_shortage, p.kernel.config.pqcolors)
    delta = 0
    for color in p.colors(p.inactive_color):
        delta += await vm_pageout_scan_inactive(
            p.kernel, p.rounds, color, share, laundry, isep=p.isep
        )
        p.inactive_color = color + (-1 if p.isep else 1)
        if avail_shortage - delta <= 0:
            break
        # Somebody may have freed a lot meanwhile.
        counts = await paging_counts(p.kernel)
        if not p.meter.count_target(*counts) and not p.meter.count_min(
            *counts, VM_PAGE_FREE_HYSTERESIS
        ):
            return -delta
    return avail_shortage - delta


async def _scan_active(p: Pageout, avail_shortage: int) -> tuple[int, int]:
    """The active scan, if inactive pages are too few. (shortage left, pages recycled)."""
    meter = p.meter
    inactive_shortage = meter.v_inactive_target - await meter.vmstats.v_inactive_count.load()
    if avail_shortage > 0:
        inactive_shortage += min(avail_shortage * 2, meter.v_inactive_target // 10)
    if p.isep:
        inactive_shortage = max(inactive_shortage, meter.tunables["emerg_launder"])
    delta = recycled = 0
    if inactive_shortage <= 0:
        return avail_shortage, recycled
    colors = p.kernel.config.pqcolors
    for color in p.colors(p.active_color):
        age = await vm_pageout_scan_active(
            p.kernel,
            p.rounds,
            color,
            pqaverage(avail_shortage, colors),
            pqaverage(inactive_shortage, colors),
            isep=p.isep,
        )
        delta += age.delta
        recycled += age.recycle_count
        p.active_color = color + (-1 if p.isep else 1)
        if inactive_shortage - delta <= 0 and avail_shortage - delta <= 0:
            break
        if await meter.vmstats.v_inactive_count.load() > meter.v_inactive_target:
            break
    return avail_shortage - delta, recycled


async def _try_again(p: Pageout) -> None:
    """Still short: another pass, the later the longer this has gone on."""
    p.passes += 1
    tick = NS_PER_SECOND // p.kernel.config.hz
    chan = p.daemon.vm_pages_needed_chan
    swap_full = await p.kernel.swap.full()
    passes_patient = 10  # rounds over the whole queues before the daemon naps between passes
    if p.rounds < passes_patient:
        if await p.daemon.vm_pages_needed.load() > 1:
            if swap_full:
                await tsleep(chan, NS_PER_SECOND // 5)
            return  # more threads have asked meanwhile
        if not p.isep:
            await p.daemon.vm_pages_needed.store(1)
        await tsleep(chan, 2 * tick)
    else:
        await tsleep(chan, NS_PER_SECOND if swap_full else NS_PER_SECOND // 10)


async def _relax(p: Pageout) -> None:
    """The shortage is made up for; let the waiters go on, if nobody drained memory meanwhile."""
    p.passes = 0
    daemon = p.daemon
    if not await daemon.vm_pages_needed.load():
        return
    counts = await paging_counts(p.kernel)
    if not p.meter.paging_needed(*counts):
        await daemon.vm_pages_needed.store(0)
    else:
        await daemon.vm_pages_needed.store(2)  # go on, and keep the count from growing
        if p.meter.count_min(*counts, VM_PAGE_FREE_HYSTERESIS):
            return
    await daemon.v_free_count_chan.wakeup()
    p.kernel.emit("pageout.wakeup", counts[0])

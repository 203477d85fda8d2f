"""How threads that want pages and the threads that make them free wake each other.

DragonFly vm_pageout.c:pagedaemon_wakeup; vm_page.c:vm_wait, vm_wait_pfault, vm_page_free_wakeup.

The words here are written without a lock, and lost updates among them are harmless by design: the
daemon looks again after a timeout, and a waiter for pages sleeps for at most a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.effects import Cell, Thread, WaitChannel

if TYPE_CHECKING:
    from vkhost.kernel import Kernel

NS_PER_SECOND: Final = 1_000_000_000
VM_PAGE_FREE_HYSTERESIS: Final = 16  # vm_page_free_hysteresis


class Pagedaemon:
    """What the two pageout threads and everyone else share.

    `vm_pages_needed`: 0 nobody asked, 1 somebody did, more: they keep asking.
    """

    def __init__(self) -> None:
        self.vm_pages_needed = Cell("vm_pages_needed", 0)
        self.vm_pages_needed_chan = WaitChannel(("vm_pages_needed", "chan"))
        self.vm_pageout_deficit = Cell("vm_pageout_deficit", 0)
        self.vm_pagedaemon_time = Cell("vm_pagedaemon_time", 0)  # virtual ns
        self.vm_pagedaemon_time_chan = WaitChannel(("vm_pagedaemon_time", "chan"))
        # wakeup(&vmstats.v_free_count): where allocations wait.
        self.v_free_count_chan = WaitChannel(("vmstats", "v_free_count", "chan"))
        self.pagethread: Thread | None = None
        self.emergpager: Thread | None = None
        self.lastkill: int | None = None  # virtual ns; pagedaemon only


async def paging_counts(kernel: Kernel) -> tuple[int, int]:
    """(free, cache), the two numbers every threshold is about."""
    counts: tuple[int, int] = await kernel.vmmeter.vmstats.free_and_cache()
    return counts


async def pagedaemon_wakeup(kernel: Kernel) -> None:
    """Called after a page has left FREE or CACHE: start the daemon early enough."""
    daemon = kernel.pagedaemon
    meter = kernel.vmmeter
    free, cache = await paging_counts(kernel)
    if not meter.paging_needed(free, cache):
        return
    if await daemon.vm_pages_needed.load() <= 1:
        await daemon.vm_pages_needed.store(1)
        await daemon.vm_pages_needed_chan.wakeup()
    elif meter.count_min(free, cache):
        await daemon.vm_pages_needed.add(1)


async def vm_page_free_wakeup(kernel: Kernel) -> None:
    """Called after a page has become free or cached: let the waiters try again."""
    daemon = kernel.pagedaemon
    meter = kernel.vmmeter
    if not await daemon.vm_pages_needed.load():
        return
    free, cache = await paging_counts(kernel)
    if not meter.paging_needed(free, cache):
        await daemon.vm_pages_needed.store(0)
        await _wake_waiters(kernel, free)
    elif not meter.count_min(free, cache, VM_PAGE_FREE_HYSTERESIS):
        await _wake_waiters(kernel, free)


async def _wake_waiters(kernel: Kernel, free: int) -> None:
    chan = kernel.pagedaemon.v_free_count_chan
    await chan.wakeup()
    kernel.emit("pageout.wakeup", free)

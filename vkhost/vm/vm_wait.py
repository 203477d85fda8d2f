"""Waiting for memory. DragonFly vm_page.c:vm_wait_pfault, vm_page2.h:vm_page_count_severe ..."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkhost.kern.token import tsleep
from vkhost.vm.vm_pageout_wakeup import NS_PER_SECOND, pagedaemon_wakeup, paging_counts

if TYPE_CHECKING:
    from vkhost.kern.lwp import Proc
    from vkhost.kernel import Kernel


async def vm_page_count_severe(kernel: Kernel) -> bool:
    """So little is free that nobody but the pageout path may have any."""
    return kernel.vmmeter.count_severe(*await paging_counts(kernel))


async def vm_wait_pfault(kernel: Kernel, proc: Proc | None = None) -> None:
    """A faulting thread lets the pagedaemon work: "pfault", a second at a time while severe, or
    until the thread's process is to be killed for its memory.

    The caller holds no lock, though it may hold a map interlock (W30).
    """
    daemon = kernel.pagedaemon
    while await vm_page_count_severe(kernel):
        await pagedaemon_wakeup(kernel)
        kernel.emit("pageout.wait", "pfault")
        await tsleep(daemon.v_free_count_chan, NS_PER_SECOND)
        if proc is not None and await proc.lowmemkill.load():
            break

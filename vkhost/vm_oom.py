"""Who is killed when neither memory nor swap is left. DragonFly vm_pageout.c:vm_pageout_scan_cache
(its second half), vm_pageout_scan_callback; vm_map.c:vmspace_anonymous_count, vmspace_swap_count.

Only anonymous pages and swap count. A vkernel's memory image is a file: it never fills swap, so it
may never come to a kill, and when it does an innocent process goes (W11).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.effects import CLOCK

from vkhost.proc import killproc
from vkhost.vm_object import OBJT_DEFAULT, OBJT_SWAP
from vkhost.vm_pageout_wakeup import NS_PER_SECOND, paging_counts

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.lwp import Proc
    from vkhost.vm_map import VmMap

INIT_PID: Final = 1
LOW_PID: Final = 48  # not killed while there is any swap


def vmspace_anonymous_count(vm_map: VmMap) -> int:
    """Resident anonymous pages, by the objects mapped first. A snapshot without locks: the
    numbers may be off, as the kernel's are."""
    return sum(
        backing.object.resident_page_count
        for entry in vm_map.entries
        if (backing := entry.ba).object is not None
        and backing.object.type in (OBJT_DEFAULT, OBJT_SWAP)
    )


def vmspace_swap_count(vm_map: VmMap) -> int:
    """Swap blocks of the objects mapped first; no entry counts for more than its own size."""
    count = 0
    for entry in vm_map.entries:
        obj = entry.ba.object
        if obj is not None and obj.type == OBJT_SWAP:
            count += min(len(obj.swblocks), (entry.end - entry.start) >> 12)
    return count


def oom_victim(kernel: Kernel) -> tuple[Proc, int] | None:
    """The process with the most anonymous memory, and how many pages that is."""
    best: tuple[Proc, int] | None = None
    for proc in kernel.procs:
        if proc.pid == INIT_PID or (proc.pid < LOW_PID and kernel.config.swap_pages):
            continue
        vm_map = proc.p_vmspace.vm_map
        size = vmspace_anonymous_count(vm_map) + vmspace_swap_count(vm_map)
        if size > (best[1] if best else 0):
            best = proc, size
    return best


async def oom(kernel: Kernel, avail_shortage: int, passes: int, recycle_count: int) -> None:
    """Warn when swap is nearly full; kill when it is full and passes did not help. Primary only."""
    counts = await paging_counts(kernel)
    low = kernel.vmmeter.count_min(*counts, recycle_count) or avail_shortage > 0
    if await kernel.swap.almost_full() and passes > 0 and low:
        kernel.emit("console", f"Warning: system low on memory+swap shortage {avail_shortage}!")
    if not (await kernel.swap.full() and passes > 1 and avail_shortage > 0):
        return
    if kernel.vmmeter.paging_target(*counts) <= 0:
        return
    daemon = kernel.pagedaemon
    if daemon.lastkill is not None and CLOCK[0] - daemon.lastkill < NS_PER_SECOND:
        return  # the last victim may still be giving its memory back
    daemon.lastkill = CLOCK[0]
    choice = oom_victim(kernel)
    if choice is None:
        return
    proc, pages = choice
    kernel.emit("console", f"Try to kill process {proc.pid} {proc.name}")
    kernel.emit("oom.kill", proc.pid, pages, "out of swap space")
    await proc.lowmemkill.store(True)
    await killproc(proc)
    await daemon.v_free_count_chan.wakeup()

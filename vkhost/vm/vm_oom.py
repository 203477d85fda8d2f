"""Who is killed when neither memory nor swap is left. DragonFly vm_pageout.c:vm_pageout_scan_cache
(its second half), vm_pageout_scan_callback; vm_map.c:vmspace_anonymous_count, vmspace_swap_count.

Only anonymous pages and swap count. A vkernel's memory image is a file: it never fills swap, so it
may never come to a kill, and when it does an innocent process goes (W11).
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING

from vkprotocol.effects import CLOCK, Effect, RWLock, Step
from vkprotocol.param import atop

from vkhost.kern.proc import killproc
from vkhost.vm.vm_object import OBJT_DEFAULT, OBJT_SWAP
from vkhost.vm.vm_pageout_wakeup import NS_PER_SECOND, paging_counts

if TYPE_CHECKING:
    from vkhost.kern.lwp import Proc
    from vkhost.kernel import Kernel
    from vkhost.vm.vm_map import VmMap


async def vmspace_anonymous_count(vm_map: VmMap) -> int:
    """Resident anonymous pages, by the objects mapped first. Map locked."""
    count = 0
    for entry in vm_map.entries:
        obj = entry.ba.object
        if obj is not None and obj.type in (OBJT_DEFAULT, OBJT_SWAP):
            await obj.token.acquire_shared()
            count += obj.resident_page_count
            await obj.token.release()
    return count


async def vmspace_swap_count(vm_map: VmMap) -> int:
    """Swap blocks of the objects mapped first; no entry counts for more than its own size. Map
    locked."""
    count = 0
    for entry in vm_map.entries:
        obj = entry.ba.object
        if obj is not None and obj.type == OBJT_SWAP:
            await obj.token.acquire_shared()
            count += min(len(obj.swblocks), atop(entry.end - entry.start))
            await obj.token.release()
    return count


async def _size(vm_map: VmMap) -> int:
    """What a process holds, 0 when its map is locked just now.

    The kernel looks without any lock. Here the map is tried, never waited for: the pageout daemon
    must not depend on somebody who may be waiting for memory.
    """
    if not await _try_shared(vm_map.lock):
        return 0
    size = await vmspace_anonymous_count(vm_map) + await vmspace_swap_count(vm_map)
    await vm_map.lock.release()
    return size


@coroutine
def _try_shared(lock: RWLock) -> Step:
    me = yield Effect(lock, "try_shared", write=True)
    owner, readers, want = lock.state
    if owner is not None or want:
        return False
    if me.held is not None:
        me.held.append(lock)  # a try cannot deadlock, so no order applies
    lock.state = (owner, tuple(sorted((*readers, me.tid))), want)
    return True


async def oom_victim(kernel: Kernel) -> tuple[Proc, int] | None:
    """The process with the most anonymous memory, and how many pages that is."""
    best: tuple[Proc, int] | None = None
    init_pid = 1
    low_pid = 48  # not killed while there is any swap
    for proc in list(kernel.procs):
        if proc.pid == init_pid or (proc.pid < low_pid and kernel.config.swap_pages):
            continue
        size = await _size(proc.p_vmspace.vm_map)
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
    choice = await oom_victim(kernel)
    if choice is None:
        return
    proc, pages = choice
    kernel.emit("console", f"Try to kill process {proc.pid} {proc.name}")
    kernel.emit("oom.kill", proc.pid, pages, "out of swap space")
    await proc.lowmemkill.store(True)
    await killproc(proc)
    await daemon.v_free_count_chan.wakeup()

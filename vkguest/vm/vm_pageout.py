"""The guest's page daemon: makes free frames by ageing, laundering to swap, and freeing.

DragonFly `vm/vm_pageout.c`, cut down. It is the caller of everything in pmap_page.py, and on
another vCPU than the programs whose pages it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkguest.kern.kern_sig import STATUS_KILLED, killproc
from vkguest.vkernel64.pmap_page import (
    pmap_remove_all,
    pmap_ts_referenced,
)
from vkguest.vm.vm_page import (
    ACT_ADVANCE,
    ACT_DECLINE,
    ACT_MAX,
    PG_REFERENCED,
    PQ_ACTIVE,
    PQ_FREE,
    PQ_INACTIVE,
    VmPage,
    vm_page_busy_try,
    vm_page_free,
    vm_page_requeue,
    vm_page_wakeup,
)
from vkguest.vm.vnode_pager import vm_page_test_dirty, vm_pageout_flush

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData

VM_PAGES_NEEDED: Final = "vm_pages_needed"  # the wait channel


class PageDaemon:
    """The daemon's kernel thread: on the run queue when wanted, runs to completion on one vCPU."""

    async def switch_out(self) -> None:
        """It uses no FPU."""

    async def run(self, gd: GlobalData) -> None:
        """vm_pageout.c:vm_pageout_thread."""
        vpq = gd.kernel.vm_page_queues
        fruitless = 0
        passes_max = 8  # fruitless ones, before a process is killed
        while True:
            async with vpq.lock:
                free = len(vpq.free)
                if free >= vpq.free_target or fruitless >= passes_max:
                    vpq.pageout_wanted = False
                    short = free <= vpq.free_reserved + vpq.deficit
                    vpq.deficit = 0
                    break
            await vm_pageout_scan(gd, PQ_INACTIVE, fruitless)
            await vm_pageout_scan(gd, PQ_ACTIVE, fruitless)
            async with vpq.lock:
                fruitless = 0 if len(vpq.free) > free else fruitless + 1
        if short and await _out_of_swap(gd):
            await vm_pageout_oom(gd)
        await gd.kernel.sched.wakeup(VM_PAGES_NEEDED)


async def vm_wait(gd: GlobalData, lp: Lwp) -> bool:
    """vm_page.c:vm_wait: True when `lp` sleeps until the daemon is done, False to try again now.

    Whoever failed to allocate has started the daemon. If it is over already there is no wakeup to
    wait for.
    """
    vpq = gd.kernel.vm_page_queues
    async with vpq.lock:
        if not vpq.pageout_wanted:
            return False
        await gd.kernel.sched.tsleep(lp, VM_PAGES_NEEDED)
        return True


async def _out_of_swap(gd: GlobalData) -> bool:
    """vm_pageout.c:vm_pageout_scan_cache: to be short is no reason to kill while there is swap.

    Here it is one, too, when nothing is left that could go there, as every frame is a page table or
    otherwise wired; the kernel would hang.
    """
    if await gd.kernel.swap.full():
        return True
    vpq = gd.kernel.vm_page_queues
    async with vpq.lock:
        return all(m.wire_count or m.queue == PQ_FREE for m in vpq.pages.values())


async def vm_pageout_oom(gd: GlobalData) -> None:
    """vm_pageout.c:vm_pageout_scan_callback: kill whoever has most, unless somebody is dying."""
    kernel = gd.kernel
    async with kernel.proc_token:
        procs = [proc for proc in kernel.allproc if not proc.zombie]
        if any(proc.dying.value for proc in procs):
            return
        sizes = []
        for proc in procs:
            pmap = proc.vmspace.pmap
            async with pmap.pm_pteobj:
                sizes.append((pmap.resident_count, proc.pid))
    if sizes:
        _, pid = max(sizes)
        victim = next(proc for proc in procs if proc.pid == pid)
        kernel.emit("console", f"{kernel.name}: Try to kill process {victim.program.name} {pid}")
        await killproc(gd, victim, STATUS_KILLED)


async def vm_pageout_scan(gd: GlobalData, queue: str, passes: int) -> None:
    """One round over one queue, or over as much of it as there is a shortage.

    Pages are taken from the head, busied under the queue lock, and end up elsewhere or at the tail.
    """
    vpq = gd.kernel.vm_page_queues
    async with vpq.lock:
        maxscan = len(vpq.queues[queue])
    for _ in range(maxscan):
        async with vpq.lock:
            if len(vpq.free) >= vpq.free_target or not vpq.queues[queue]:
                return
            frame, m = next(iter(vpq.queues[queue].items()))
            del vpq.queues[queue][frame]
            vpq.queues[queue][frame] = m
            if m.hold_count or not await vm_page_busy_try(m):
                continue
        if queue == PQ_INACTIVE:
            await vm_pageout_page(gd, m, passes)
        else:
            await vm_pageout_active(gd, m, passes)


async def _referenced(gd: GlobalData, m: VmPage) -> int:
    count = await pmap_ts_referenced(gd, m)
    async with m.spin:
        count += bool(m.flags & PG_REFERENCED)
        m.flags &= ~PG_REFERENCED
    return count


async def vm_pageout_active(gd: GlobalData, m: VmPage, passes: int) -> None:
    """vm_pageout.c:vm_pageout_scan_active: age it; act_count runs down while it is not used."""
    count = await _referenced(gd, m)
    async with gd.kernel.vm_page_queues.lock:
        if count and not passes:
            m.act_count = min(m.act_count + ACT_ADVANCE + count, ACT_MAX)
        else:
            m.act_count = max(m.act_count - ACT_DECLINE * (1 + 4 * passes), 0)
        idle = m.act_count == 0
    if idle:
        await vm_page_requeue(gd, m, PQ_INACTIVE)
    await vm_page_wakeup(m)


async def vm_pageout_page(gd: GlobalData, m: VmPage, passes: int) -> None:
    """vm_pageout.c:vm_pageout_page: activate, launder, or free an inactive page. It is busied."""
    if await _referenced(gd, m) and passes < 2:
        await vm_page_requeue(gd, m, PQ_ACTIVE)
    elif await vm_page_test_dirty(gd, m):
        await vm_pageout_flush(gd, m)
    elif await _cache(gd, m):
        return
    await vm_page_wakeup(m)


async def _cache(gd: GlobalData, m: VmPage) -> bool:
    """vm_page.c:vm_page_cache, and on to the free list: True when the frame is free.

    Dirtiness is asked for again when no translation is left: until then it may be written.
    """
    await pmap_remove_all(gd, m)
    async with m.spin:
        if m.dirty and "free-without-recheck" not in gd.mutants:
            return False
    obj = m.object
    assert obj is not None, "a queued page has an object, and keeps it while it is busied"
    async with obj.lock:
        await vm_page_free(gd, m)
    return True

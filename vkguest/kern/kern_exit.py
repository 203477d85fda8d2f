"""How guest processes end. DragonFly `kern/kern_exit.c`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.errno import Errno

from vkguest.kern.kern_descrip import fdfree
from vkguest.kern.kern_ktrace import ktrname
from vkguest.kern.kern_sig import killproc
from vkguest.kern.proc import BadExit, Lwp, Proc, Result, register_checksum
from vkguest.kern.sched import PPWAIT
from vkguest.vkernel64.npx import npxexit
from vkguest.vm.vm_kern import kmem_free
from vkguest.vm.vmspace import vmspace_terminate

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData


def wait_channel(proc: Proc) -> str:
    return f"wait {proc.pid}"


def ppwait_channel(proc: Proc) -> str:
    return f"{PPWAIT} {proc.pid}"


def join_channel(proc: Proc) -> str:
    return f"lwp {proc.pid}"


async def exit1(gd: GlobalData, lp: Lwp, status: int) -> None:
    """kern_exit.c:exit1: the process is to end with `status`; the calling lwp is gone at once."""
    await killproc(gd, lp.proc, status, register_checksum(lp.regs))
    await lwp_exit(gd, lp)


async def lwp_exit(gd: GlobalData, lp: Lwp) -> None:
    """kern_exit.c:lwp_exit: the last one out takes the process with it."""
    proc = lp.proc
    await npxexit(gd, lp)
    if lp.kstack:
        await kmem_free(gd, lp.kstack, 1)
    async with gd.kernel.proc_token:
        del proc.lwps[lp.tid]
        last = not proc.lwps
        proc.vmspace.refs -= last
        unused = not proc.vmspace.refs
    if last:
        await fdfree(gd, proc)
        gd.kernel.emit("user.exit", ktrname(gd, proc.pid))
        if unused:
            await vmspace_terminate(gd, proc.vmspace)
        await _proc_zombie(gd, proc)
    else:
        await gd.kernel.sched.wakeup(join_channel(proc))


async def _proc_zombie(gd: GlobalData, proc: Proc) -> None:
    """Resources are gone; the parent may collect the status. A parent that is gone itself, or is
    the kernel, does not care."""
    kernel = gd.kernel
    async with kernel.proc_token:
        proc.zombie = True
        for pid, child in list(proc.children.items()):
            child.parent = None
            if child.zombie:
                del proc.children[pid]
        parent = proc.parent
        ppwait, proc.ppwait = proc.ppwait, False
        kernel.allproc.remove(proc)
        if parent is None and proc.md is not None and proc.exit_status:
            kernel.failed.append(BadExit(proc.pid, proc.program.name, proc.exit_status))
        kernel.results[proc.pid] = Result(proc.program.name, proc.exit_status, proc.checksum)
        over = not kernel.allproc
    if parent is not None:
        await kernel.sched.wakeup(wait_channel(parent))
        if ppwait:
            await kernel.sched.wakeup(ppwait_channel(parent))
    if over:
        await kernel.sched.shutdown(len(kernel.cpus))


async def kern_wait(gd: GlobalData, lp: Lwp, pid: int) -> int | None:
    """kern_exit.c:kern_wait: the status of child `pid`, or ECHILD; None when `lp` sleeps."""
    proc = lp.proc
    async with gd.kernel.proc_token:
        child = proc.children.get(pid)
        if child is None:
            return -Errno.ECHILD
        if child.zombie:
            del proc.children[pid]
            return child.exit_status
        # Asleep before the token is given up: the child cannot become a zombie in between.
        if "wait-sleeps-late" not in gd.mutants:
            await gd.kernel.sched.tsleep(lp, wait_channel(proc))
            return None
    await gd.kernel.sched.tsleep(lp, wait_channel(proc))
    return None

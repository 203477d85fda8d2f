"""How guest processes end. DragonFly `kern/kern_exit.c`, and the killing half of `kern_sig.c`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.errno import Errno
from vkprotocol.vkernel import SIGKILL, SIGUSR1

from vkguest.kern.kern_ktrace import ktrname
from vkguest.kern.proc import BadExit, Lwp, Proc, Result, register_checksum
from vkguest.vkernel64.globaldata import RQF_AST_SIGNAL
from vkguest.vkernel64.npx import npxexit
from vkguest.vm.vmspace import vmspace_terminate

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData

STATUS_SIGNAL: Final = 128  # plus the signal: exit status of a process that was killed
STATUS_KILLED: Final = STATUS_SIGNAL + SIGKILL


def wait_channel(proc: Proc) -> str:
    return f"wait {proc.pid}"


def join_channel(proc: Proc) -> str:
    return f"lwp {proc.pid}"


async def exit1(gd: GlobalData, lp: Lwp, status: int) -> None:
    """kern_exit.c:exit1: the process is to end with `status`; the calling lwp is gone at once."""
    await killproc(gd, lp.proc, status, register_checksum(lp.regs))
    await lwp_exit(gd, lp)


async def killproc(gd: GlobalData, proc: Proc, status: int, checksum: int | None = None) -> None:
    """kern_sig.c:killproc: every lwp of it ends on its next way back to user mode.

    The flag is set before the AST is sent. Who is between its own look at the flag and RUN when the
    AST comes sees it at the next trap, or at the end of its quantum (W38).
    """
    async with gd.kernel.proc_token:
        if proc.zombie or not await proc.dying.cmpset(False, True):
            return
        proc.exit_status = status
        proc.checksum = checksum
        lwps = list(proc.lwps.values())
    for lp in lwps:
        await gd.kernel.sched.unsleep(lp)
    for other in gd.kernel.cpus:
        if other is not gd and await other.curproc.load() == proc.pid:
            await other.reqflags.set_bits(RQF_AST_SIGNAL)
            await gd.kill(other.cpuid, SIGUSR1)


async def lwp_exit(gd: GlobalData, lp: Lwp) -> None:
    """kern_exit.c:lwp_exit: the last one out takes the process with it."""
    proc = lp.proc
    await npxexit(gd, lp)
    async with gd.kernel.proc_token:
        del proc.lwps[lp.tid]
        last = not proc.lwps
    if last:
        from vkguest.kern.kern_descrip import fdfree

        await fdfree(gd, proc)
        gd.kernel.emit("user.exit", ktrname(gd, proc.pid))
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
        kernel.allproc.remove(proc)
        if parent is None and proc.md is not None and proc.exit_status:
            kernel.failed.append(BadExit(proc.pid, proc.program.name, proc.exit_status))
        kernel.results[proc.pid] = Result(proc.program.name, proc.exit_status, proc.checksum)
        over = not kernel.allproc
    if parent is not None:
        await kernel.sched.wakeup(wait_channel(parent))
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
        await gd.kernel.sched.tsleep(lp, wait_channel(proc))
        return None

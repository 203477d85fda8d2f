"""New processes and threads. DragonFly `kern/kern_fork.c`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from vkprotocol.errno import Errno

from vkguest.kern.kern_ktrace import ktrname
from vkguest.kern.proc import PIDS_PER_PARENT, Lwp, Proc
from vkguest.vm.vmspace import vmspace_fork, vmspace_terminate

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData


async def sys_fork(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """The child starts after the call with 0 in r0. Answers its pid."""

    async def first(child: Proc) -> Lwp:
        return lp.copied(child)

    return await fork1(gd, lp, first)


async def fork1(
    gd: GlobalData, lp: Lwp, first: Callable[[Proc], Awaitable[Lwp]], *, vfork: bool = False
) -> int:
    """kern_fork.c:fork1: a copy of the process, whose one lwp `first` makes. Answers its pid.

    `vfork`, RFMEM and RFPPWAIT: in the same address space, for which the parent is to wait.
    """
    parent = lp.proc
    kernel = gd.kernel
    async with kernel.proc_token:
        if parent.forked + 1 >= PIDS_PER_PARENT:
            return -Errno.EAGAIN
        parent.forked += 1
        pid = parent.pid * PIDS_PER_PARENT + parent.forked
    vmspace = None
    try:
        if not vfork:
            vmspace = await vmspace_fork(gd, parent.vmspace)
        name = "user.vfork" if vfork else "user.fork"
        kernel.emit(name, ktrname(gd, parent.pid), lp.tid, ktrname(gd, pid))
        child = Proc(kernel.name, pid, parent, vmspace or parent.vmspace, parent.program)
        clp = await first(child)
    except BaseException as error:
        if vmspace is not None and not isinstance(error, GeneratorExit):
            await vmspace_terminate(gd, vmspace)
        async with kernel.proc_token:
            parent.forked -= 1
        raise
    async with kernel.proc_token:
        child.lwps[0] = clp
        child.ppwait = vfork
        child.vmspace.refs += vfork
        parent.children[pid] = child
        kernel.allproc.append(child)
    await kernel.sched.setrunqueue(clp)
    return pid


async def sys_lwp_create(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """kern_fork.c:lwp_create1: another context in this address space, at pc r1 with r2 in its r1.

    Answers its tid.
    """
    proc = lp.proc
    async with gd.kernel.proc_token:
        tid = proc.next_tid
        proc.next_tid += 1
        new = Lwp(proc, tid, args[0], (0, args[1], *lp.regs[2:-1], 0))
        proc.lwps[tid] = new
    await gd.kernel.sched.setrunqueue(new)
    return tid

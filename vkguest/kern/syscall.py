"""System calls of guest programs. DragonFly `kern/syscalls.master`, vkernel64 `x86_64/trap.c`.

Number in r0, arguments from r1 on; the result comes back in r0 and the errno - the carry flag's
part - in r15. Until a call is done `lp.pc` stays on its syscall instruction, so one that has to
sleep starts again from there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

from vkprotocol.errno import Errno

from vkguest.kern.errors import VmWait
from vkguest.kern.kern_exec import sys_execve
from vkguest.kern.kern_exit import exit1, join_channel, kern_wait, lwp_exit
from vkguest.kern.kern_fork import sys_fork, sys_lwp_create
from vkguest.kern.kern_ktrace import ktrsyscall, ktrsysret
from vkguest.kern.kern_sig import STATUS_KILLED, killproc
from vkguest.kern.proc import Wrong
from vkguest.kern.sys_pipe import sys_pipe, sys_pipe_close, sys_pipe_read, sys_pipe_write
from vkguest.kern.sys_shm import sys_shm_unlink
from vkguest.vkernel64.copyio import fuword64, suword64
from vkguest.vm.vm_mmap import sys_madvise, sys_mmap, sys_mprotect, sys_msync, sys_munmap
from vkguest.vm.vm_pageout import vm_wait

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData

STATUS_FAIL = 99  # exit status of a program that found its own memory wrong

# A call answers its result, or minus an errno, or None when the lwp is not this vCPU's any more.
Call: TypeAlias = "Callable[[GlobalData, Lwp, tuple[int, ...]], Awaitable[int | None]]"


class Sys(IntEnum):
    """DragonFly's numbers, and from 1000 on calls that only a test program needs."""

    EXIT = 1
    FORK = 2
    WAIT4 = 7
    GETPID = 20
    KILL = 37
    PIPE = 42
    EXECVE = 59
    MSYNC = 65
    MUNMAP = 73
    MPROTECT = 74
    MADVISE = 75
    MMAP = 197
    YIELD = 321
    EXTEXIT = 494
    LWP_CREATE = 495
    FAIL = 1000
    FUWORD = 1001  # read(2) of one word, as seen by the kernel: r1 = va
    SUWORD = 1002  # write(2) into user memory: r1 = va, r2 = value
    LWP_JOIN = 1003
    PIPE_READ = 1004
    PIPE_WRITE = 1005
    PIPE_CLOSE = 1006
    SHM_UNLINK = 1007


# What concerns the memory of its program.
TRACED = {
    int(n): n.name.lower()
    for n in (
        Sys.FORK, Sys.FUWORD, Sys.MADVISE, Sys.MMAP, Sys.MPROTECT, Sys.MUNMAP, Sys.SUWORD,
    )
}  # fmt: skip


async def syscall2(gd: GlobalData, lp: Lwp) -> bool:
    """trap.c:syscall2. False when `lp` sleeps, has yielded or is gone."""
    lp.pc -= 1
    call = CALLS.get(lp.regs[0])
    args = lp.regs[1:6]
    traced = TRACED.get(lp.regs[0])
    if traced is not None:
        ktrsyscall(gd, lp, traced, args)
    try:
        result = -Errno.ENOSYS if call is None else await call(gd, lp, args)
    except VmWait:
        return not await vm_wait(gd, lp)
    if result is None:
        return False
    if traced is not None:
        ktrsysret(gd, lp, traced, result)
    sysret(lp, result)
    return True


def sysret(lp: Lwp, result: int) -> None:
    """The call is done: result into the registers, on to the next instruction."""
    value, errno = (result, 0) if result >= 0 else (0, -result)
    errno_reg = 15
    lp.regs = (value, *lp.regs[1:errno_reg], errno)
    lp.pc += 1


async def sys_exit(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> None:
    await exit1(gd, lp, args[0])


async def sys_wait4(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int | None:
    return await kern_wait(gd, lp, args[0])


async def sys_getpid(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    return lp.proc.pid


async def sys_kill(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """Always SIGKILL, and only a child: kill(pid)."""
    async with gd.kernel.proc_token:
        child = lp.proc.children.get(args[0])
    if child is None:
        return -Errno.ESRCH
    await killproc(gd, child, STATUS_KILLED)
    return 0


async def sys_yield(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> None:
    sysret(lp, 0)
    await gd.kernel.sched.setrunqueue(lp)


async def sys_lwp_join(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int | None:
    """Wait until lwp `tid` of this process is gone."""
    proc = lp.proc
    async with gd.kernel.proc_token:
        if args[0] not in proc.lwps:
            return 0
        await gd.kernel.sched.tsleep(lp, join_channel(proc))
        return None


async def sys_extexit(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int | None:
    """kern_exit.c:sys_extexit(EXTEXIT_LWP): this lwp ends, the process if it is the last."""
    async with gd.kernel.proc_token:
        alone = len(lp.proc.lwps) == 1
    if alone:
        await exit1(gd, lp, args[0])
    else:
        await lwp_exit(gd, lp)
    return None


async def sys_fail(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> None:
    """The program's own verdict: at `va` it expected one word and got another."""
    va, expected, got = args[:3]
    kernel = gd.kernel
    async with kernel.proc_token:
        kernel.failed.append(Wrong(lp.proc.pid, va, expected, got))
    kernel.emit("guest.fail", kernel.proc, lp.proc.pid, va, expected, got)
    await exit1(gd, lp, STATUS_FAIL)


async def sys_fuword(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    value = await fuword64(gd, lp.proc.vmspace.vm_map, args[0])
    return -Errno.EFAULT if value is None else value


async def sys_suword(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    stored = await suword64(gd, lp.proc.vmspace.vm_map, args[0], args[1])
    return 0 if stored else -Errno.EFAULT


CALLS: dict[int, Call] = {
    Sys.EXIT: sys_exit,
    Sys.FORK: sys_fork,
    Sys.WAIT4: sys_wait4,
    Sys.GETPID: sys_getpid,
    Sys.KILL: sys_kill,
    Sys.PIPE: sys_pipe,
    Sys.EXECVE: sys_execve,
    Sys.MSYNC: sys_msync,
    Sys.MUNMAP: sys_munmap,
    Sys.MPROTECT: sys_mprotect,
    Sys.MADVISE: sys_madvise,
    Sys.MMAP: sys_mmap,
    Sys.YIELD: sys_yield,
    Sys.EXTEXIT: sys_extexit,
    Sys.LWP_CREATE: sys_lwp_create,
    Sys.FAIL: sys_fail,
    Sys.FUWORD: sys_fuword,
    Sys.SUWORD: sys_suword,
    Sys.LWP_JOIN: sys_lwp_join,
    Sys.PIPE_READ: sys_pipe_read,
    Sys.PIPE_WRITE: sys_pipe_write,
    Sys.PIPE_CLOSE: sys_pipe_close,
    Sys.SHM_UNLINK: sys_shm_unlink,
}

"""System calls of programs in machine code: DragonFly's numbers and register convention.

Number in rax, arguments in rdi, rsi, rdx, r10, r8, r9, a seventh above the return address; the
result in rax (and rdx), or carry and the errno in rax. Until a call is done rip stays on its
syscall instruction, so one that has to sleep starts again from there.

DragonFly `kern/syscalls.master`, vkernel64 `x86_64/trap.c:syscall2`.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from vkprotocol.effects import CLOCK
from vkprotocol.errno import Errno
from vkprotocol.insn import SYSCALL_BYTES, Machine

from vkguest.kern.callout import callout_reset
from vkguest.kern.errors import VmWait
from vkguest.kern.exec_elf import lwp_md, sys_execve, told
from vkguest.kern.kern_descrip import (
    sys_close,
    sys_dup2,
    sys_lseek,
    sys_open,
    sys_pipe,
    sys_read,
    sys_write,
)
from vkguest.kern.kern_exit import exit1, kern_wait, ppwait_channel
from vkguest.kern.kern_fork import fork1
from vkguest.kern.kern_ktrace import ktrsyscall, ktrsysret
from vkguest.kern.kern_sig import (
    STATUS_SIGNAL,
    sys_kill,
    sys_sigaction,
    sys_sigaltstack,
    sys_sigprocmask,
    sys_sigreturn,
)
from vkguest.kern.kern_umtx import sys_umtx_sleep, sys_umtx_wakeup
from vkguest.kern.proc import FRESH_REGS, Lwp, Proc
from vkguest.kern.syscall import sys_extexit, sys_fail, sys_getpid
from vkguest.vkernel64.copyio import copyin, copyout
from vkguest.vkernel64.md import ARGUMENTS, PSL_C, RAX, RDI, RDX, RSP, ProcMd
from vkguest.vkernel64.npx import npxfork
from vkguest.vm.vm_file import sys_mmap, sys_obreak
from vkguest.vm.vm_mmap import sys_madvise, sys_mprotect, sys_msync, sys_munmap
from vkguest.vm.vm_pageout import vm_wait

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData

WNOHANG: Final = 1
CLOCKS: Final = frozenset((0, 1, 2, 4, 5, *range(7, 16)))  # CLOCK_REALTIME and so on
NS: Final = 1_000_000_000

# A result, two results, minus an errno; None: the lwp is not this vCPU's any more, or its registers
# are what they are to be (sigreturn).
Result: TypeAlias = int | tuple[int, int] | None
Call: TypeAlias = "Callable[[GlobalData, Lwp, tuple[int, ...]], Awaitable[Result]]"


async def syscall2_x86(gd: GlobalData, lp: Lwp) -> bool:
    """trap.c:syscall2. False when `lp` sleeps, has yielded or is gone."""
    md = lp.md
    assert md is not None
    _advance(lp, -SYSCALL_BYTES)
    number = lp.regs[RAX]
    call = CALLS.get(number)
    args = tuple(lp.regs[reg] for reg in ARGUMENTS)
    traced = TRACED.get(number)
    if traced is not None:
        ktrsyscall(gd, lp, traced, args)
    try:
        if call is None:
            name = gd.kernel.name
            text = f"{name}: pid {lp.proc.pid}: system call {number} is not there: ENOSYS"
            gd.kernel.emit("console", text)
            result: Result = -Errno.ENOSYS
        else:
            result = await call(gd, lp, args)
    except VmWait:
        return not await vm_wait(gd, lp)
    if call is sys_sigreturn:
        return True
    if result is None:
        return False
    md.progress = 0
    if traced is not None:
        ktrsysret(gd, lp, traced, result[0] if isinstance(result, tuple) else result)
    sysret(lp, result)
    return True


def _advance(lp: Lwp, count: int) -> None:
    assert lp.md is not None
    machine = lp.md.machine
    lp.md.machine = Machine(rip=machine.rip + count, rflags=machine.rflags, fsbase=machine.fsbase)


def sysret(lp: Lwp, result: int | tuple[int, int]) -> None:
    """The call is done: result and carry, and on to the next instruction."""
    md = lp.md
    assert md is not None
    first, second = result if isinstance(result, tuple) else (result, lp.regs[RDX])
    failed = first < 0
    regs = list(lp.regs)
    regs[RAX], regs[RDX] = abs(first), second
    lp.regs = tuple(regs)
    rflags = md.machine.rflags | PSL_C if failed else md.machine.rflags & ~PSL_C
    rip = md.machine.rip + SYSCALL_BYTES
    md.machine = Machine(rip=rip, rflags=rflags, fsbase=md.machine.fsbase)


# Processes.


async def sys_exit(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> None:
    await exit1(gd, lp, args[0] & 0xFF)


async def sys_fork(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> tuple[int, int] | int:
    """The child comes out of the call with 0 in rax and 1 in rdx."""
    pid = await _fork(gd, lp, vfork=False)
    return pid if pid < 0 else (pid, 0)


async def sys_vfork(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> Result:
    """kern_fork.c:sys_vfork, start_forked_proc: the child runs in this address space, and the
    parent sleeps until it has another one or has ended."""
    md = lp.md
    assert md is not None
    if not md.progress:
        pid = await _fork(gd, lp, vfork=True)
        if pid < 0:
            return pid
        md.progress = pid
    async with gd.kernel.proc_token:
        child = lp.proc.children.get(md.progress)
        if child is not None and child.ppwait and "vfork-no-wait" not in gd.mutants:
            await gd.kernel.sched.tsleep(lp, ppwait_channel(lp.proc))
            return None
    told(gd, lp.proc)
    return md.progress, 0


async def _fork(gd: GlobalData, lp: Lwp, *, vfork: bool) -> int:
    parent, md = lp.proc, lp.md
    assert md is not None
    assert parent.md is not None

    async def first(child: Proc) -> Lwp:
        assert parent.md is not None
        machine = md.machine
        regs = list(lp.regs)
        regs[RAX], regs[RDX] = 0, 1
        clp = Lwp(child, 0, 0, tuple(regs))
        clp.md = lwp_md(
            gd, child, 0,
            Machine(
                rip=machine.rip + SYSCALL_BYTES, rflags=machine.rflags & ~PSL_C,
                fsbase=machine.fsbase,
            ),
        )  # fmt: skip
        clp.md.sigmask = md.sigmask
        clp.md.sigstk = md.sigstk
        await npxfork(gd, lp, clp)
        async with gd.kernel.proc_token:
            files = dict(parent.md.files)
            child.md = ProcMd(parent.md.brk, parent.md.heap, files, dict(parent.md.sigacts))
            for file in files.values():
                file.refs += 1
        told(gd, child)
        return clp

    return await fork1(gd, lp, first, vfork=vfork)


async def sys_wait4(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> Result:
    """wait4(pid, status, options, rusage): one child; or, as they are all of one group, whichever
    ends first. rusage is not filled in."""
    pid, where, options = args[:3]
    proc = lp.proc
    async with gd.kernel.proc_token:
        children = sorted(proc.children)
        if 0 < pid < 1 << 31:
            children = [child for child in children if child == pid]
        if not children:
            return -Errno.ECHILD
        ended = [child for child in children if proc.children[child].zombie]
        found = (ended or children)[0]
        if not ended and options & WNOHANG:
            return 0
        raw = proc.children[found]
        killed = raw.checksum is None
        status = raw.exit_status - STATUS_SIGNAL if killed else raw.exit_status << 8
    if ended and where:
        copied = await copyout(
            gd, proc.vmspace.vm_map, where, (status & 0xFFFF).to_bytes(4, "little")
        )
        if not copied:
            return -Errno.EFAULT
    # Sleeps when it has not ended; any child that ends wakes us, and we look again.
    waited = await kern_wait(gd, lp, found)
    return None if waited is None else found if waited >= 0 else waited


async def sys_getppid(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    async with gd.kernel.proc_token:
        return 0 if lp.proc.parent is None else lp.proc.parent.pid


async def sys_sched_yield(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> None:
    sysret(lp, 0)
    await gd.kernel.sched.setrunqueue(lp)


async def sys_lwp_create(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """lwp_create(params): function, argument, stack, and two places for the tid."""
    vm_map = lp.proc.vmspace.vm_map
    raw = await copyin(gd, vm_map, args[0], 40)
    if raw is None:
        return -Errno.EFAULT
    function, argument, stack, *places = struct.unpack("<5Q", raw)
    proc = lp.proc
    async with gd.kernel.proc_token:
        tid = proc.next_tid
        proc.next_tid += 1
    for place in filter(None, places):
        if not await copyout(gd, vm_map, place, tid.to_bytes(4, "little")):
            return -Errno.EFAULT
    regs = list(FRESH_REGS)
    regs[RDI], regs[RSP] = argument, stack
    new = Lwp(proc, tid, 0, tuple(regs))
    new.md = lwp_md(gd, proc, tid, Machine(rip=function))
    async with gd.kernel.proc_token:
        proc.lwps[tid] = new
    await gd.kernel.sched.setrunqueue(new)
    return 0


async def sys_extexit_lwp(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> Result:
    """kern_exit.c:sys_extexit(how, status, addr): the process ends, or this lwp alone, and before
    that `status` goes to `addr` if it is to."""
    how, status, addr = args[:3]
    simple, setint = 0, 1
    proc, lwp = 0, 1
    who, action = how >> 16 & 0xFFFF, how & 0xFFFF
    if who not in (proc, lwp) or action not in (simple, setint):
        return -Errno.EINVAL
    word = (status & 0xFFFF_FFFF).to_bytes(4, "little")
    if action == setint and not await copyout(gd, lp.proc.vmspace.vm_map, addr, word):
        return -Errno.EFAULT
    return await (sys_extexit if who == lwp else sys_exit)(gd, lp, (status & 0xFF,))


async def sys_lwp_gettid(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    return lp.tid


async def sys_set_tls_area(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """set_tls_area(which, info, size): %fs is which 0, and info its base."""
    md = lp.md
    assert md is not None
    if args[0]:
        return -Errno.EINVAL
    raw = await copyin(gd, lp.proc.vmspace.vm_map, args[1], 8)
    if raw is None:
        return -Errno.EFAULT
    md.machine = Machine(
        rip=md.machine.rip, rflags=md.machine.rflags, fsbase=int.from_bytes(raw, "little")
    )
    return 0


# Time.


async def sys_clock_gettime(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """Every clock is the virtual one, from the start of the run."""
    if args[0] not in CLOCKS:
        return -Errno.EINVAL
    now = struct.pack("<qq", CLOCK[0] // NS, CLOCK[0] % NS)
    return 0 if await copyout(gd, lp.proc.vmspace.vm_map, args[1], now) else -Errno.EFAULT


async def sys_nanosleep(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> Result:
    """nanosleep(time, rest). A signal does not cut it short."""
    md = lp.md
    assert md is not None
    if not md.progress:
        raw = await copyin(gd, lp.proc.vmspace.vm_map, args[0], 16)
        if raw is None:
            return -Errno.EFAULT
        seconds, nanoseconds = struct.unpack("<qq", raw)
        if seconds < 0 or not 0 <= nanoseconds < NS:
            return -Errno.EINVAL
        md.progress = CLOCK[0] + seconds * NS + nanoseconds
    if CLOCK[0] >= md.progress:
        return 0
    callout_reset(gd, lp, md.progress)
    await gd.kernel.sched.tsleep(lp, f"nanslp {lp.proc.pid}.{lp.tid}")
    return None


async def sys_cpu_feature2(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """Ours, in place of a sysctl: what this kernel thinks its CPUs can."""
    return gd.kernel.cpu_feature2


# What concerns the memory of its program; break says it itself.
TRACED: Final = {2: "fork", 73: "munmap", 74: "mprotect", 75: "madvise", 197: "mmap"}
CALLS: Final[dict[int, Call]] = {
    1: sys_exit,
    2: sys_fork,
    3: sys_read,
    4: sys_write,
    5: sys_open,
    6: sys_close,
    7: sys_wait4,
    17: sys_obreak,
    20: sys_getpid,
    37: sys_kill,
    39: sys_getppid,
    42: sys_pipe,
    53: sys_sigaltstack,
    59: sys_execve,
    65: sys_msync,
    66: sys_vfork,
    73: sys_munmap,
    74: sys_mprotect,
    75: sys_madvise,
    90: sys_dup2,
    197: sys_mmap,
    199: sys_lseek,
    232: sys_clock_gettime,
    240: sys_nanosleep,
    321: sys_sched_yield,
    331: sys_sched_yield,
    340: sys_sigprocmask,
    342: sys_sigaction,
    344: sys_sigreturn,
    469: sys_umtx_sleep,
    470: sys_umtx_wakeup,
    472: sys_set_tls_area,
    494: sys_extexit_lwp,
    495: sys_lwp_create,
    496: sys_lwp_gettid,
    1000: sys_fail,
    1007: sys_cpu_feature2,
}

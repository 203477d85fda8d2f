"""Signals of programs in machine code. DragonFly `kern/kern_sig.c`, vkernel64 `cpu_regs.c`.

A signal waits in the lwp's list and is taken on the way back to user mode: its handler runs on a
frame of the user's stack, or of its alternate one, with the FPU state in it, and sigreturn goes
back to what was. A system call that it wakes starts again afterwards, as with SA_RESTART. Stopping
is left out.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from vkprotocol.errno import Errno
from vkprotocol.insn import Machine
from vkprotocol.vkernel import NSIG, SIGCHLD, SIGFPE, SIGILL, SIGKILL, SIGUSR1

from vkguest.vkernel64.copyio import copyin, copyout
from vkguest.vkernel64.globaldata import RQF_AST_SIGNAL
from vkguest.vkernel64.md import (
    PSL_D,
    PSL_T,
    PSL_USERCHANGE,
    RCX,
    RDI,
    RDX,
    RSI,
    RSP,
    SS_DISABLE,
    SS_ONSTACK,
    Sigaction,
    Sigstk,
)
from vkguest.vkernel64.npx import IMAGE_WORDS, npxpop, npxpush

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp, Proc
    from vkguest.vkernel64.globaldata import GlobalData

STATUS_SIGNAL: Final = 128  # plus the signal: exit status of a process that was killed
STATUS_KILLED: Final = STATUS_SIGNAL + SIGKILL
SIG_DFL, SIG_IGN = 0, 1
IGNORED: Final = frozenset({16, 18, 19, SIGCHLD, 23, 28, 29})  # by default: URG, stops, CHLD ...
SA_ONSTACK, SA_RESETHAND, SA_NODEFER, SA_SIGINFO = 0x1, 0x4, 0x10, 0x40
SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = 1, 2, 3

# The frame at rsp of the handler: its address, for the trampoline; then the ucontext.
UCONTEXT: Final = 16
# struct ucontext: mask, onstack, the trapframe as DragonFly orders it, and the FPU at 256.
CONTEXT: Final = struct.Struct("<2Q Q 15Q 5Q 5Q 3Q")
ORDER: Final = (7, 6, 2, 1, 8, 9, 0, 3, 5, 10, 11, 12, 13, 14, 15)  # rdi rsi rdx rcx r8 r9 rax ...
FPREGS: Final = 256
STACK: Final = struct.Struct("<QQi4x")  # stack_t
LINK: Final = struct.Struct("<Q QQi4x")  # uc_link and uc_stack
UCONTEXT_BYTES: Final = FPREGS + 8 * IMAGE_WORDS + LINK.size
# struct siginfo: signo, errno, code, pid, uid, status, addr, value, band, spare.
SIGINFO: Final = struct.Struct("<6i Q Q q 28x4x")
SIGFRAME_BYTES: Final = UCONTEXT + UCONTEXT_BYTES + SIGINFO.size
OWNED_NONE, OWNED_FPU = 0x20000, 0x20001
# call [rsp] ; lea rdi, [rsp + 16] ; push 0 ; mov eax, SYS_sigreturn ; syscall ; hlt
SIGCODE: Final = bytes.fromhex("ff1424 488d7c2410 6a00 b858010000 0f05 f4")


def _bit(signo: int) -> int:
    return 1 << signo - 1


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


async def lwpsignal(gd: GlobalData, lp: Lwp, signo: int) -> None:
    """kern_sig.c:lwpsignal: by default it is ignored or ends the process; with a handler it waits,
    once however often it was sent, for the way to user mode, which the lwp is sent on."""
    proc = lp.proc
    assert proc.md is not None
    async with gd.kernel.proc_token:
        action = proc.md.sigacts.get(signo, Sigaction())
    if signo == SIGKILL or (action.handler == SIG_DFL and signo not in IGNORED):
        await killproc(gd, proc, STATUS_SIGNAL + signo)
        return
    if action.handler in (SIG_DFL, SIG_IGN):
        return
    assert lp.md is not None
    pending = await lp.md.siglist.load()
    while signo not in pending and not await lp.md.siglist.cmpset(pending, (*pending, signo)):
        pending = await lp.md.siglist.load()
    await gd.kernel.sched.unsleep(lp, signal=True)
    for other in gd.kernel.cpus:
        if other is not gd and await other.curproc.load() == proc.pid:
            await other.reqflags.set_bits(RQF_AST_SIGNAL)
            await gd.kill(other.cpuid, SIGUSR1)


async def ksignal(gd: GlobalData, proc: Proc, signo: int) -> None:
    """To a process: to its first lwp."""
    async with gd.kernel.proc_token:
        lwps = list(proc.lwps.values())
    if lwps:
        await lwpsignal(gd, lwps[0], signo)


async def postsig(gd: GlobalData, lp: Lwp) -> None:
    """On the way to user mode: the first pending signal that is not masked, if any. Raises VmWait,
    and it is still pending."""
    md = lp.md
    assert md is not None
    assert lp.proc.md is not None
    pending = await md.siglist.load()
    signo = next((s for s in pending if not md.sigmask & _bit(s)), None)
    if signo is None:
        return
    async with gd.kernel.proc_token:
        action = lp.proc.md.sigacts.get(signo, Sigaction())
    if action.handler not in (SIG_DFL, SIG_IGN):
        await sendsig(gd, lp, signo, action)
        if action.flags & SA_RESETHAND:
            async with gd.kernel.proc_token:
                lp.proc.md.sigacts[signo] = Sigaction()
    while not await md.siglist.cmpset(pending, _without(pending, signo)):
        pending = await md.siglist.load()


def _without(pending: tuple[int, ...], signo: int) -> tuple[int, ...]:
    at = pending.index(signo)
    return pending[:at] + pending[at + 1 :]


async def sendsig(gd: GlobalData, lp: Lwp, signo: int, action: Sigaction) -> None:
    """cpu_regs.c:sendsig: the frame on the user's stack, below the red zone, and the registers for
    the trampoline. Raises VmWait before anything has changed but who has the FPU."""
    md = lp.md
    assert md is not None
    usedfp = md.usingfp
    fpregs = await npxpush(gd, lp)
    machine = md.machine
    regs = lp.regs
    stk, trap = md.sigstk, md.trap
    on_stack = stk.flags & SS_ONSTACK
    cs, ss = 0x43, 0x3B  # _ucodesel, _udatasel
    context = CONTEXT.pack(
        md.sigmask, 0, on_stack,
        *(regs[n] for n in ORDER),
        0, trap.trapno, trap.addr, 0, trap.err,
        machine.rip, cs, machine.rflags, regs[RSP], ss,
        CONTEXT.size, 0, OWNED_FPU if fpregs else OWNED_NONE,
    )  # fmt: skip
    frame = action.handler.to_bytes(8, "little").ljust(UCONTEXT, b"\0")
    frame += context.ljust(FPREGS, b"\0") + b"".join(w.to_bytes(8, "little") for w in fpregs)
    frame = frame.ljust(UCONTEXT + UCONTEXT_BYTES - LINK.size, b"\0")
    frame += LINK.pack(0, stk.sp, stk.size, stk.flags)
    code = trap.code if trap.signo == signo else 0
    tells = bool(action.flags & SA_SIGINFO)
    frame += (
        SIGINFO.pack(signo, 0, code, 0, 0, 0, trap.addr, 0, 0) if tells else bytes(SIGINFO.size)
    )
    top, moves = regs[RSP] - 128, False  # below the red zone
    if action.flags & SA_ONSTACK and not stk.flags:
        top, moves = stk.sp + stk.size, True
    at = (top - SIGFRAME_BYTES) & ~0xF
    md.usingfp = usedfp  # until it is on the stack, as this may have to start again
    if not await copyout(gd, lp.proc.vmspace.vm_map, at, frame):
        await killproc(gd, lp.proc, STATUS_SIGNAL + SIGILL)
        return
    md.usingfp = usedfp and not fpregs
    md.sigmask |= action.mask | (0 if action.flags & SA_NODEFER else _bit(signo))
    md.trap = replace(trap, signo=0)
    if moves:
        md.sigstk = replace(stk, flags=SS_ONSTACK)
    second = at + UCONTEXT + UCONTEXT_BYTES if tells else code
    changed = dict(enumerate(regs))
    changed.update({RDI: signo, RSI: second, RDX: at + UCONTEXT, RCX: trap.addr, RSP: at})
    lp.regs = tuple(changed[n] for n in range(len(regs)))
    md.machine = Machine(
        rip=gd.kernel.sigcode, rflags=machine.rflags & ~(PSL_T | PSL_D), fsbase=machine.fsbase
    )


async def sys_sigreturn(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> None:
    """cpu_regs.c:sys_sigreturn. What may not be changed is not: the segments, system flags; MXCSR
    is masked, which is a SIGFPE."""
    md = lp.md
    assert md is not None
    raw = await copyin(gd, lp.proc.vmspace.vm_map, args[0], UCONTEXT_BYTES)
    if raw is None:
        await killproc(gd, lp.proc, STATUS_SIGNAL + SIGILL)
        return
    fields = CONTEXT.unpack_from(raw)
    gprs, (rip, _, rflags, rsp, _), owned = fields[3:18], fields[23:28], fields[30]
    words = struct.unpack_from(f"<{IMAGE_WORDS}Q", raw, FPREGS) if owned == OWNED_FPU else ()
    bad = await npxpop(gd, lp, words)
    regs = dict(zip(ORDER, gprs, strict=True))
    regs[RSP] = rsp
    lp.regs = tuple(regs[n] for n in range(len(lp.regs)))
    kept = md.machine.rflags & ~PSL_USERCHANGE
    md.machine = Machine(rip=rip, rflags=kept | rflags & PSL_USERCHANGE, fsbase=md.machine.fsbase)
    md.sigmask = fields[0] & ~_bit(SIGKILL)
    flags = md.sigstk.flags & ~SS_ONSTACK | fields[2] & SS_ONSTACK
    md.sigstk = replace(md.sigstk, flags=flags)
    if bad:
        await lwpsignal(gd, lp, SIGFPE)
    return


async def sys_sigaction(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """sigaction(sig, act, oact): struct sigaction is handler, flags of 32 bits, mask of 128."""
    signo, act, oact = args[:3]
    assert lp.proc.md is not None
    if not 1 <= signo <= NSIG or (act and signo == SIGKILL):
        return -Errno.EINVAL
    vm_map = lp.proc.vmspace.vm_map
    new = None
    if act:
        raw = await copyin(gd, vm_map, act, 32)
        if raw is None:
            return -Errno.EFAULT
        handler, flags, low = struct.unpack_from("<QI Q", raw)
        new = Sigaction(handler, flags, low & ~_bit(SIGKILL))
    async with gd.kernel.proc_token:
        old = lp.proc.md.sigacts.get(signo, Sigaction())
    if oact:
        raw = struct.pack("<QI Q 12x", old.handler, old.flags, old.mask)
        if not await copyout(gd, vm_map, oact, raw):
            return -Errno.EFAULT
    if new is not None:
        async with gd.kernel.proc_token:
            lp.proc.md.sigacts[signo] = new
    return 0


async def sys_sigprocmask(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """sigprocmask(how, set, oset), of the first 64 signals."""
    how, new, old = args[:3]
    md = lp.md
    assert md is not None
    vm_map = lp.proc.vmspace.vm_map
    mask = md.sigmask
    if old and not await copyout(gd, vm_map, old, mask.to_bytes(8, "little") + bytes(8)):
        return -Errno.EFAULT
    if new:
        raw = await copyin(gd, vm_map, new, 8)
        if raw is None:
            return -Errno.EFAULT
        bits = int.from_bytes(raw, "little")
        if how == SIG_BLOCK:
            mask |= bits
        elif how == SIG_UNBLOCK:
            mask &= ~bits
        elif how == SIG_SETMASK:
            mask = bits
        else:
            return -Errno.EINVAL
        md.sigmask = mask & ~_bit(SIGKILL)
    return 0


async def sys_sigaltstack(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """kern_sig.c:kern_sigaltstack(ss, oss)."""
    new, old = args[:2]
    md = lp.md
    assert md is not None
    vm_map, stk = lp.proc.vmspace.vm_map, md.sigstk
    error = 0
    if new:
        raw = await copyin(gd, vm_map, new, STACK.size)
        if raw is None:
            return -Errno.EFAULT
        sp, size, flags = STACK.unpack(raw)
        if flags & ~SS_DISABLE:
            return -Errno.EINVAL
        if flags:
            error = Errno.EPERM if stk.flags & SS_ONSTACK else 0
            md.sigstk = stk if error else Sigstk()
        elif size < 8192:  # MINSIGSTKSZ
            error = Errno.ENOMEM
        else:
            md.sigstk = Sigstk(sp, size, 0)
    if old and not error:
        raw = STACK.pack(stk.sp, stk.size, stk.flags)
        if not await copyout(gd, vm_map, old, raw):
            return -Errno.EFAULT
    return -error


async def sys_kill(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """kill(pid, sig): to itself, to a child, to its parent; signal 0 asks whether it is there."""
    pid, signo = args[:2]
    if signo > NSIG:
        return -Errno.EINVAL
    async with gd.kernel.proc_token:
        found = next((p for p in gd.kernel.allproc if p.pid == pid and not p.zombie), None)
    if found is None or found.md is None:
        return -Errno.ESRCH
    if signo:
        await ksignal(gd, found, signo)
    return 0

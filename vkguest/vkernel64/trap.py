"""Running a user program, and what brings it back. DragonFly vkernel64 `x86_64/trap.c`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs
from vkprotocol.errno import Errno, errno_name
from vkprotocol.frame import TFRAME_WORDS, VFRAME_WORDS, frame_from, tframe_of, vframe_of
from vkprotocol.insn import Machine, Mem, MemOp, Trapframe, load, store
from vkprotocol.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE
from vkprotocol.vkernel import (
    PGEX_I,
    PGEX_W,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGSEGV,
    SIGTRAP,
    T_ALIGNFLT,
    T_ARITHTRAP,
    T_BPTFLT,
    T_DIVIDE,
    T_DNA,
    T_FAST_SYSCALL,
    T_PAGEFLT,
    T_PRIVINFLT,
    T_PROTFLT,
    T_SYSCALL,
    T_XMMFLT,
)

from vkguest.kern.errors import GuestPanic, VmWait
from vkguest.kern.imgact_elf import ElfImage
from vkguest.kern.kern_exec import Program
from vkguest.kern.kern_exit import lwp_exit
from vkguest.kern.kern_ktrace import ktrcsw, ktrname
from vkguest.kern.kern_sig import STATUS_SIGNAL, killproc, lwpsignal, postsig
from vkguest.kern.syscall import syscall2
from vkguest.vkernel64.dmap import access
from vkguest.vkernel64.globaldata import Ran
from vkguest.vkernel64.md import Trap
from vkguest.vkernel64.npx import npxdna
from vkguest.vkernel64.pmap_inval import flush_deferred
from vkguest.vkernel64.syscall_x86 import syscall2_x86
from vkguest.vm.vm_fault import KERN_INVALID_ADDRESS, KERN_SUCCESS, vm_fault
from vkguest.vm.vm_kern import kmem_alloc_stack
from vkguest.vm.vm_pageout import vm_wait

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData

# What a process gets for a trap that is its own fault: the signal, and ucode, its si_code.
ILL_PRVOPC, TRAP_BRKPT, FPE_INTDIV, BUS_SEGM_FAULT = 5, 1, 2, T_PROTFLT
SIGNAL_OF = {
    T_PRIVINFLT: (SIGILL, ILL_PRVOPC), T_ALIGNFLT: (SIGBUS, BUS_SEGM_FAULT),
    T_PROTFLT: (SIGBUS, BUS_SEGM_FAULT), T_BPTFLT: (SIGTRAP, TRAP_BRKPT),
    T_DIVIDE: (SIGFPE, FPE_INTDIV), T_ARITHTRAP: (SIGFPE, 0), T_XMMFLT: (SIGFPE, 0),
}  # fmt: skip


async def go_user(gd: GlobalData, lp: Lwp) -> None:
    """trap.c:go_user: enter the host's RUN again and again, until this vCPU has lost `lp`.

    The AST flags are tested after the RUN only: what is set between here and there waits for the
    next trap or the end of the quantum (W38).
    """
    proc = lp.proc
    await gd.curproc.store(proc.pid)
    ktrcsw(gd, lp)
    gd.curlwp = lp
    ours = True
    while ours:
        if await proc.dying.load():  # userret
            await lwp_exit(gd, lp)
            break
        try:
            if gd.kernel.has_kernel_map and not lp.kstack:
                lp.kstack = await kmem_alloc_stack(gd)
            frame = await user_frame(gd, lp)
        except VmWait:
            ours = not await vm_wait(gd, lp)
            continue
        if frame.machine is not None:
            assert isinstance(lp.proc.program, ElfImage)
            number = gd.ran.number + 1 if gd.ran else 1
            gd.ran = Ran(lp.proc.pid, lp.proc.program, frame.machine.rip, number)
        errno, out = await vmspace_run(gd, lp, frame)
        lp.pc, lp.regs = out.pc, out.regs
        if lp.md is not None and out.machine is not None:
            lp.md.machine = out.machine
            if errno == 0:
                lp.md.trap = Trap(out.trapno, out.addr, out.err)
        if errno == 0:
            ours = await user_trap(gd, lp, out)
        await flush_deferred(gd)
        if await gd.reqflags.load():
            await gd.reqflags.store(0)
        if errno:
            await gd.kernel.sched.setrunqueue(lp)
            ours = False
    gd.curlwp = None
    await gd.curproc.store(0)


async def vmspace_run(gd: GlobalData, lp: Lwp, frame: Trapframe) -> tuple[int, Trapframe]:
    """One RUN, of a frame at the top of the lwp's kernel stack, if it has one: (0 or EINTR, the
    frame it left). Any other errno is a panic."""
    name, ident = gd.kernel.name, lp.proc.vmspace.pmap.id
    if lp.kstack:
        vframe = lp.kstack + PAGE_SIZE - 8 * VFRAME_WORDS
        tframe = vframe - 8 * TFRAME_WORDS
        words = (*tframe_of(frame), *vframe_of(frame))
        await access(gd, *(store(tframe + 8 * n, word) for n, word in enumerate(words)))
        bare = Trapframe(text=frame.text, machine=Machine() if frame.machine else None)
        reply = await gd.vmspace_run(ident, bare, tframe, vframe)
    else:
        reply = await gd.vmspace_run(ident, frame)
    if reply.errno == Errno.EFAULT:
        # The host could not get at the frame, which is in our own memory.
        raise GuestPanic(f"{name}: vmspace_ctl failed with EFAULT")
    if reply.errno not in (0, Errno.EINTR):
        raise GuestPanic(f"{name}: vmspace_ctl failed error {errno_name(reply.errno)}")
    if lp.kstack:
        loads = [load(tframe + 8 * n) for n in range(TFRAME_WORDS + VFRAME_WORDS)]
        left = await access(gd, *loads)
        return reply.errno, frame_from(left[:TFRAME_WORDS], left[TFRAME_WORDS:], frame)
    assert reply.frame is not None
    return reply.errno, reply.frame


async def user_frame(gd: GlobalData, lp: Lwp) -> Trapframe:
    """userret takes a pending signal. And the host is told whether the FPU may be used, in
    tf_xflags: it may not while it holds the state of another lwp. Raises VmWait."""
    budget = gd.kernel.quantum
    if lp.md is None:
        program = lp.proc.program
        assert isinstance(program, Program)
        return Trapframe(pc=lp.pc, regs=lp.regs, text=program.text, budget=budget)
    if await lp.md.siglist.load():
        await postsig(gd, lp)
    fpfault = gd.npxthread is not lp and "npx-no-fpfault" not in gd.mutants
    machine = structs.replace(lp.md.machine, fpfault=fpfault)
    return Trapframe(regs=lp.regs, budget=budget, machine=machine)


async def user_trap(gd: GlobalData, lp: Lwp, frame: Trapframe) -> bool:
    """trap.c:user_trap. False when `lp` sleeps, has yielded or is gone."""
    if frame.trapno == T_SYSCALL:
        return await syscall2(gd, lp)
    if frame.trapno == T_FAST_SYSCALL:
        return await syscall2_x86(gd, lp)
    if frame.trapno == T_DNA:
        return await trap_dna(gd, lp)
    if frame.trapno == T_PAGEFLT:
        return await trap_pfault(gd, lp, frame)
    if frame.trapno in SIGNAL_OF:
        signo, code = SIGNAL_OF[frame.trapno]
        machine = frame.machine
        where = f"instruction {frame.pc}" if machine is None else f"rip {machine.rip:#x}"
        gd.kernel.emit(
            "console",
            f"{gd.kernel.name}: trap {frame.trapno} at {where}, "
            f"address {frame.addr:#x} pid {lp.proc.pid}: signal {signo}",
        )
        await trapsignal(gd, lp, signo, code)
        return True
    raise GuestPanic(f"{gd.kernel.name}: user_trap: unknown trap {frame.trapno:#x}")


async def trapsignal(gd: GlobalData, lp: Lwp, signo: int, code: int) -> None:
    """kern_sig.c:trapsignal: only machine code can have a handler for it."""
    if lp.md is None:
        await killproc(gd, lp.proc, STATUS_SIGNAL + signo)
    else:
        lp.md.trap = replace(lp.md.trap, signo=signo, code=code)
        await lwpsignal(gd, lp, signo)


async def trap_dna(gd: GlobalData, lp: Lwp) -> bool:
    """The FPU goes from the lwp that used it last to this one. Of one vCPU, that is: whoever has
    left it has taken its state along."""
    try:
        if await npxdna(gd, lp):
            await lwpsignal(gd, lp, SIGFPE)
    except VmWait:
        return not await vm_wait(gd, lp)
    return True


async def trap_pfault(gd: GlobalData, lp: Lwp, frame: Trapframe) -> bool:
    """trap.c:trap_pfault: the host could not resolve it - whatever its reason was."""
    prot = PROT_READ
    if frame.err & PGEX_W:
        prot = PROT_READ | PROT_WRITE
    elif frame.err & PGEX_I:
        prot = PROT_EXEC
    try:
        result = await vm_fault(gd, lp.proc.vmspace.vm_map, frame.addr, prot)
    except VmWait:
        return not await vm_wait(gd, lp)
    if result != KERN_SUCCESS:
        kernel, who = gd.kernel, ktrname(gd, lp.proc.pid)
        kernel.emit("user.fault", f"{kernel.proc}.{gd.cpuid}", who, frame.addr, prot)
        kernel.emit(
            "console",
            f"{gd.kernel.name}: seg-fault accessing address {frame.addr:#x} pid {lp.proc.pid}",
        )
        segv_maperr, segv_accerr = 1, 2
        code = segv_maperr if result == KERN_INVALID_ADDRESS else segv_accerr
        await trapsignal(gd, lp, SIGSEGV, code)
    return True


async def kern_trap(gd: GlobalData, op: MemOp) -> None:
    """trap.c:kern_trap, trap_pfault, trap_fatal: the kernel itself has faulted, on an address that
    is kernel_map's to resolve. It is there by way of the SIGSEGV that the host has sent
    (exception.c:exc_segfault), and the access is made again. Raises VmWait.
    """
    prot = PROT_READ if op.op == Mem.LOAD else PROT_READ | PROT_WRITE
    if "kernel-fault-fatal" in gd.mutants:
        result = KERN_INVALID_ADDRESS
    else:
        result = await vm_fault(gd, gd.kernel.kernel_map, op.va, prot)
    if result != KERN_SUCCESS:
        name = gd.kernel.name
        gd.kernel.emit("console", f"{name}: Fatal trap 12: page fault while in kernel mode")
        what = f"{op.op.name.lower()} {op.va:#x}"
        raise GuestPanic(f"{name}: page fault: fault in kernel mode: {what}")

"""Running guest code: vmspace_ctl(RUN), the instructions, and the way back through vkernel_trap.

While a guest vmspace is entered, whatever would enter the kernel - an unresolved page fault, a
system call, a signal - leaves it instead: the vkernel gets the frame and decides. A page fault that
vm_fault resolves is not noticed by anybody. Which error made it fail is not told: the guest sees
T_PAGEFLT whatever the host's reason was.

DragonFly sys/platform/pc64/x86_64/trap.c:user_trap, trap_pfault, syscall2; vm_vmspace.c:
sys_vmspace_ctl, vkernel_trap.
"""

from __future__ import annotations

from vkprotocol.errno import Errno
from vkprotocol.insn import Insn, Op, Trapframe
from vkprotocol.limits import U64
from vkprotocol.vkernel import (
    PGEX_I,
    PGEX_W,
    T_ALIGNFLT,
    T_PAGEFLT,
    T_PRIVINFLT,
    T_SYSCALL,
    VMSPACE_CTL_RUN,
)

from vkhost.kern.lwp import Lwp, take_signals
from vkhost.kern.panic import kkassert
from vkhost.pc64.cpu import Fault
from vkhost.pc64.pmap_switch import pmap_setlwpvm
from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_WRITE
from vkhost.vm.vm_vmspace import (
    VmspaceEntry,
    vkernel_find_vmspace,
    vmspace_entry_cache,
    vmspace_entry_drop,
)

WORD_MASK = 7
# Instructions that touch memory; before each of them the lwp looks for signals.
ACCESSES = frozenset({Op.LD, Op.ST, Op.CAS, Op.FETCH})


class Trap(Exception):
    """The user code stopped: a trap number, the address and error bits of a fault."""

    def __init__(self, trapno: int, addr: int = 0, err: int = 0) -> None:
        super().__init__(trapno)
        self.trapno = trapno
        self.addr = addr
        self.err = err


class Interrupted(Exception):
    """A signal is pending, or the budget is used up: EINTR."""


class UserContext:
    """The registers of the running user code."""

    __slots__ = ("budget", "pc", "regs", "text")

    def __init__(self, frame: Trapframe, budget: int) -> None:
        self.pc = frame.pc
        self.regs = list(frame.regs)
        self.text = frame.text
        self.budget = min(frame.budget, budget)

    def frame(self, trap: Trap | None) -> Trapframe:
        """What is copied out. The text stays behind: the guest has it."""
        frame = Trapframe(pc=self.pc, regs=tuple(self.regs), budget=self.budget)
        if trap is None:
            return frame
        return Trapframe(
            pc=self.pc, regs=tuple(self.regs), budget=self.budget,
            trapno=trap.trapno, addr=trap.addr, err=trap.err,
        )  # fmt: skip


async def vmspace_ctl(
    lwp: Lwp, vmspace_id: int, cmd: int, frame: Trapframe | None
) -> tuple[int, Trapframe | None]:
    """(errno, frame to copy out). Only RUN exists; its result is 0, or EINTR for a signal."""
    vkp = await lwp.proc.p_vkernel.load()
    if vkp is None:
        return Errno.EINVAL, None
    ve = await vkernel_find_vmspace(lwp, vkp, vmspace_id)
    if ve is None:
        return Errno.ENOENT, None
    if cmd != VMSPACE_CTL_RUN:
        await vmspace_entry_drop(ve)
        return Errno.EOPNOTSUPP, None
    await vmspace_entry_cache(lwp, ve)
    if frame is None:  # the copyin of an address that is nothing
        await vmspace_entry_drop(ve)
        return Errno.EFAULT, None
    # What came before this call was delivered as it was made: its handler has run, and whatever
    # it asks for is seen at the next trap only (W38).
    await take_signals(lwp)
    await _enter(lwp, ve)
    await vmspace_entry_drop(ve)  # the call's own; the run has another
    lwp.proc.kernel.emit("run.enter", lwp.id, ve.id)
    user = UserContext(frame, lwp.proc.kernel.config.run_budget)
    trap, error = await _user_mode(lwp, user)
    await vkernel_trap(lwp, trap)
    return error, user.frame(trap)


async def _enter(lwp: Lwp, ve: VmspaceEntry) -> None:
    vklp = lwp.lwp_vkernel
    assert vklp is not None
    vklp.ve = ve
    await ve.refs.add(1)
    ve.emit_refs()
    await pmap_setlwpvm(lwp, ve.vmspace)


async def vkernel_trap(lwp: Lwp, trap: Trap | None) -> None:
    """Leave the guest vmspace: back to the vkernel's own, and only then the reference goes, for it
    is all that keeps vmspace_destroy out. `trap` None: a signal."""
    kernel = lwp.proc.kernel
    vklp = lwp.lwp_vkernel
    assert vklp is not None
    ve = vklp.ve
    kkassert(kernel, ve is not None, "vkernel_trap: no vmspace is running")
    assert ve is not None
    vklp.ve = None
    await pmap_setlwpvm(lwp, lwp.proc.p_vmspace)
    trapno, addr = (0, 0) if trap is None else (trap.trapno, trap.addr)
    kernel.emit("run.exit", lwp.id, ve.id, trapno, addr)
    if "run-ref-kept" not in kernel.mutants:
        await vmspace_entry_drop(ve)


async def _user_mode(lwp: Lwp, user: UserContext) -> tuple[Trap | None, int]:
    """Instructions until one of them leaves."""
    try:
        while True:
            await _step(lwp, user)
    except Interrupted:
        return None, Errno.EINTR
    except Trap as trap:
        return trap, 0


async def _step(lwp: Lwp, user: UserContext) -> None:
    """One instruction. `pc` moves on only when it is complete: a fault repeats it."""
    if user.pc >= len(user.text):
        raise Trap(T_PRIVINFLT)
    if not user.budget:
        raise Interrupted
    insn = user.text[user.pc]
    op = insn.op
    if op in ACCESSES:
        if await lwp.signals.load():
            raise Interrupted
        await _access(lwp, user, insn)
        user.pc += 1
    elif op == Op.SYSCALL:
        user.pc += 1
        user.budget -= 1
        raise Trap(T_SYSCALL)
    elif op in (Op.BNE, Op.BEQ):
        equal = user.regs[insn.rs] == user.regs[insn.rt]
        target = insn.imm & U64
        taken = equal is (op == Op.BEQ)
        if taken and target <= user.pc and await lwp.signals.load():
            raise Interrupted
        user.pc = target if taken else user.pc + 1
    else:
        base = user.regs[insn.rs] if op == Op.ADDI else 0
        user.regs[insn.rd] = (base + insn.imm) & U64
        user.pc += 1
    user.budget -= 1


async def _access(lwp: Lwp, user: UserContext, insn: Insn) -> None:
    op, rd, rs, rt, imm = insn
    regs = user.regs
    va = (regs[rs] + imm) & U64
    if va & WORD_MASK:
        raise Trap(T_ALIGNFLT, va)
    cpu = lwp.cpu
    try:
        if op == Op.LD:
            regs[rd] = await cpu.load(va)
        elif op == Op.ST:
            await cpu.store(va, regs[rt])
        elif op == Op.FETCH:
            await cpu.fetch(va)
        else:
            regs[rd] = await _compare_and_swap(lwp, va, regs[rd], regs[rt])
    except Fault as fault:
        raise Trap(T_PAGEFLT, fault.va, _pgex(fault.fault_type)) from None


async def _compare_and_swap(lwp: Lwp, va: int, old: int, new: int) -> int:
    """What was there before. A failed cmpset is a load, so it repeats until it saw a difference."""
    while not await lwp.cpu.cmpset(va, old, new):
        found: int = await lwp.cpu.load(va)
        if found != old:
            return found
    return old


def _pgex(fault_type: int) -> int:
    if fault_type & VM_PROT_WRITE:
        return PGEX_W
    return PGEX_I if fault_type & VM_PROT_EXECUTE else 0

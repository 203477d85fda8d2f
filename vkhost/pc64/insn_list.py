"""User code as a list of instructions (vkprotocol.insn): what a scenario's own programs are.

Nothing has to be installed for it. The text is in the frame and not in guest memory, so that a
fetch is an access a program makes on purpose.
"""

from __future__ import annotations

from vkprotocol.insn import Insn, Op, Trapframe
from vkprotocol.limits import U64
from vkprotocol.vkernel import T_ALIGNFLT, T_PAGEFLT, T_PRIVINFLT, T_SYSCALL

from vkhost.kern.lwp import Lwp
from vkhost.pc64.cpu import Fault
from vkhost.pc64.user_code import Interrupted, Trap, pgex

# Instructions that touch memory; before each of them the lwp looks for signals.
ACCESSES = frozenset({Op.LD, Op.ST, Op.CAS, Op.FETCH})


class InsnList:
    """The registers of a RUN of listed instructions."""

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

    async def step(self, lwp: Lwp) -> None:
        await _step(lwp, self)


async def _step(lwp: Lwp, user: InsnList) -> None:
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


async def _access(lwp: Lwp, user: InsnList, insn: Insn) -> None:
    op, rd, rs, rt, imm = insn
    regs = user.regs
    va = (regs[rs] + imm) & U64
    word_mask = 7
    if va & word_mask:
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
        raise Trap(T_PAGEFLT, fault.va, pgex(fault.fault_type)) from None


async def _compare_and_swap(lwp: Lwp, va: int, old: int, new: int) -> int:
    """What was there before. A failed cmpset is a load, so it repeats until it saw a difference."""
    while not await lwp.cpu.cmpset(va, old, new):
        found: int = await lwp.cpu.load(va)
        if found != old:
            return found
    return old

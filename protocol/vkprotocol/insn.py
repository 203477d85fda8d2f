"""The user instruction set, the trap frame, and the guest kernel's own memory operations.

A user program is a tuple of `Insn`; the host's `trap.py` executes it on the lwp's CPU. Registers
are sixteen unsigned 64-bit words and arithmetic wraps. `pc` counts instructions.

    ld rd, [rs + imm]       rd := the word there
    st rt, [rs + imm]       the word there := rt
    cas rd, [rs + imm], rt  if the word equals rd it becomes rt; rd := what was there before
    fetch [rs + imm]        execute access, no value
    li rd, imm              rd := imm
    addi rd, rs, imm        rd := rs + imm
    bne rs, rt, target      pc := target if rs != rt
    beq rs, rt, target      pc := target if rs == rt
    syscall                 leave with T_SYSCALL, pc after it

Addresses are multiples of 8. Plain tuples, because the interpreter unpacks one a step and they
are arrays on the wire.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, NamedTuple, TypeAlias

from msgspec import Meta, Struct

from vkprotocol import limits
from vkprotocol.limits import U64

NREGS = 16

# MessagePack's integers end at 64 bits, so no upper bound has to be said.
Word: TypeAlias = Annotated[int, Meta(ge=0, description="an unsigned 64-bit word")]
Reg: TypeAlias = Annotated[int, Meta(ge=0, lt=NREGS)]


class Op(IntEnum):
    LD = 0
    ST = 1
    CAS = 2
    FETCH = 3
    LI = 4
    ADDI = 5
    BNE = 6
    BEQ = 7
    SYSCALL = 8


class Insn(NamedTuple):
    """One user instruction. `imm` is an offset, a constant or a branch target."""

    op: Op
    rd: Reg = 0
    rs: Reg = 0
    rt: Reg = 0
    imm: int = 0

    def __str__(self) -> str:
        return _TEXT[self.op].format(rd=self.rd, rs=self.rs, rt=self.rt, imm=self.imm)


_TEXT = {
    Op.LD: "ld r{rd}, [r{rs}{imm:+d}]",
    Op.ST: "st r{rt}, [r{rs}{imm:+d}]",
    Op.CAS: "cas r{rd}, [r{rs}{imm:+d}], r{rt}",
    Op.FETCH: "fetch [r{rs}{imm:+d}]",
    Op.LI: "li r{rd}, {imm:#x}",
    Op.ADDI: "addi r{rd}, r{rs}, {imm}",
    Op.BNE: "bne r{rs}, r{rt}, {imm}",
    Op.BEQ: "beq r{rs}, r{rt}, {imm}",
    Op.SYSCALL: "syscall",
}


def ld(rd: int, rs: int, offset: int = 0) -> Insn:
    return _checked(Insn(Op.LD, rd, rs, 0, offset))


def st(rt: int, rs: int, offset: int = 0) -> Insn:
    """Store `rt` at [rs + offset]."""
    return _checked(Insn(Op.ST, 0, rs, rt, offset))


def cas(rd: int, rs: int, rt: int, offset: int = 0) -> Insn:
    """Compare the word at [rs + offset] with `rd`, put `rt` there if equal; rd := the old word."""
    return _checked(Insn(Op.CAS, rd, rs, rt, offset))


def fetch(rs: int, offset: int = 0) -> Insn:
    return _checked(Insn(Op.FETCH, 0, rs, 0, offset))


def li(rd: int, value: int) -> Insn:
    return _checked(Insn(Op.LI, rd, 0, 0, value))


def addi(rd: int, rs: int, value: int) -> Insn:
    return _checked(Insn(Op.ADDI, rd, rs, 0, value))


def bne(rs: int, rt: int, target: int) -> Insn:
    return _checked(Insn(Op.BNE, 0, rs, rt, target))


def beq(rs: int, rt: int, target: int) -> Insn:
    return _checked(Insn(Op.BEQ, 0, rs, rt, target))


def syscall() -> Insn:
    return Insn(Op.SYSCALL)


def _checked(insn: Insn) -> Insn:
    for reg in (insn.rd, insn.rs, insn.rt):
        if not 0 <= reg < NREGS:
            raise ValueError(f"{insn.op.name.lower()}: no register {reg}, there are {NREGS}")
    if not -(1 << 63) <= insn.imm <= U64:
        raise ValueError(f"{insn.op.name.lower()}: {insn.imm} does not fit in 64 bits")
    return insn


def check_text(text: tuple[Insn, ...]) -> tuple[Insn, ...]:
    """`text` if it is a program the host would accept, else ValueError naming the instruction."""
    if len(text) > limits.TEXT_INSNS:
        raise ValueError(f"{len(text)} instructions, at most {limits.TEXT_INSNS} fit in a frame")
    for pc, insn in enumerate(text):
        _checked(insn)
        if insn.op in (Op.BNE, Op.BEQ) and not 0 <= insn.imm <= len(text):
            raise ValueError(f"{pc}: {insn} jumps out of the {len(text)} instructions")
    return text


SYSCALL_BYTES = 2  # of the instruction
RFLAGS_USER = 0x202  # PSL_USER: interrupts on, and the bit that is always set


class Machine(Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What makes a frame one of x86-64 machine code, besides the sixteen registers in `regs`, which
    are then rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 ... r15.

    `fsbase` is the TLS part of the vframe. `fpfault` is PGEX_FPFAULT: the FPU holds the state of
    somebody else, so that an instruction which uses it traps with T_DNA.
    """

    rip: Word = 0
    rflags: Word = RFLAGS_USER
    fsbase: Word = 0
    fpfault: bool = False


class Trapframe(Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """The user context RUN loads, and stores when it leaves (`struct trapframe`, cut down).

    Copied in: pc, regs, text, budget. Copied out: pc, regs, trapno, addr, err, and the budget that
    is left; text is empty then, the guest has it. With `machine` it is a frame of machine code,
    which has no text and no use for pc.
    """

    pc: Word = 0  # whatever a branch has put there
    regs: Annotated[tuple[Word, ...], Meta(min_length=NREGS, max_length=NREGS)] = (0,) * NREGS
    trapno: Annotated[int, Meta(ge=0, le=0xFFFF)] = 0
    addr: Word = 0
    err: Annotated[int, Meta(ge=0, le=0xFFFF)] = 0
    text: Annotated[tuple[Insn, ...], Meta(max_length=limits.TEXT_INSNS)] = ()
    budget: Annotated[int, Meta(ge=0, le=limits.RUN_BUDGET)] = limits.RUN_BUDGET
    machine: Machine | None = None


class Mem(IntEnum):
    LOAD = 0
    STORE = 1
    CMPSET = 2
    SWAP = 3
    OR = 4
    ANDN = 5
    ZERO = 6
    COPY = 7
    FXSAVE = 8
    FXRSTOR = 9
    FNINIT = 10
    CPUID = 11


class MemOp(NamedTuple):
    """One load or store of the guest kernel at a VA of its own vmspace (DMAP or KVA).

    | op             | a   | b   | value in the reply       |
    | -------------- | --- | --- | ------------------------ |
    | LOAD           |     |     | the word                 |
    | STORE          | new |     | 0                        |
    | CMPSET         | old | new | 1 when it took, else 0   |
    | SWAP           | new |     | the word before          |
    | OR, ANDN       | bits|     | the word before (atomic) |
    | ZERO           |     |     | 0; the whole page        |
    | COPY           | src |     | 0; the whole page to va  |
    | FXSAVE, FXRSTOR| rexw|     | 0; 512 bytes of FPU state|
    | FNINIT         |     |     | 0; va is not used        |
    | CPUID          | leaf|     | ecx, and edx below it    |

    `rexw` 1 is fxsave64, with instruction and data pointers of 64 bits; 0 is fxsave, with 32.
    """

    op: Mem
    va: Word
    a: Word = 0
    b: Word = 0


def load(va: int) -> MemOp:
    return MemOp(Mem.LOAD, va)


def store(va: int, value: int) -> MemOp:
    return MemOp(Mem.STORE, va, value)


def cmpset(va: int, old: int, new: int) -> MemOp:
    return MemOp(Mem.CMPSET, va, old, new)


def swap(va: int, value: int) -> MemOp:
    return MemOp(Mem.SWAP, va, value)


def or_bits(va: int, bits: int) -> MemOp:
    return MemOp(Mem.OR, va, bits)


def andn_bits(va: int, bits: int) -> MemOp:
    return MemOp(Mem.ANDN, va, bits)


def zero_page(va: int) -> MemOp:
    return MemOp(Mem.ZERO, va)


def copy_page(dst: int, src: int) -> MemOp:
    return MemOp(Mem.COPY, dst, src)


def fxsave(va: int, *, rexw: bool = True) -> MemOp:
    return MemOp(Mem.FXSAVE, va, int(rexw))


def fxrstor(va: int, *, rexw: bool = True) -> MemOp:
    return MemOp(Mem.FXRSTOR, va, int(rexw))


def fninit() -> MemOp:
    return MemOp(Mem.FNINIT, 0)


def cpuid(leaf: int) -> MemOp:
    return MemOp(Mem.CPUID, 0, leaf)

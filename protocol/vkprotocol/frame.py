"""struct trapframe and struct vextframe as they lie in a vkernel's memory, cut down.

    tframe   rax ... r15 (or r0 ... r15), rip, rflags, trapno, addr, err, xflags, budget
    vframe   fsbase

Words of 64 bits. rip of a list of instructions is the number of one, `budget` stands for the timer
that ends a quantum, and the list itself is in no memory. DragonFly machine/frame.h, sys/vkernel.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vkprotocol.insn import NREGS, Machine, Trapframe
from vkprotocol.limits import RUN_BUDGET
from vkprotocol.vkernel import PGEX_FPFAULT

TFRAME_WORDS: Final = NREGS + 7
VFRAME_WORDS: Final = 1


def tframe_of(frame: Trapframe) -> tuple[int, ...]:
    machine = frame.machine or Machine(rip=frame.pc)
    xflags = PGEX_FPFAULT if machine.fpfault else 0
    return (
        *frame.regs, machine.rip, machine.rflags, frame.trapno, frame.addr, frame.err, xflags,
        frame.budget,
    )  # fmt: skip


def vframe_of(frame: Trapframe) -> tuple[int, ...]:
    return (0 if frame.machine is None else frame.machine.fsbase,)


def frame_from(tframe: Sequence[int], vframe: Sequence[int], like: Trapframe) -> Trapframe:
    """What such words say of a frame of the same kind as `like`, and with its instructions."""
    rip, rflags, trapno, addr, err, xflags, budget = tframe[NREGS:]
    fpfault = bool(xflags & PGEX_FPFAULT)
    machine = None if like.machine is None else Machine(rip, rflags, vframe[0], fpfault)
    return Trapframe(
        pc=rip if machine is None else 0, regs=tuple(tframe[:NREGS]), trapno=trapno & 0xFFFF,
        addr=addr, err=err & 0xFFFF, text=like.text, budget=min(budget, RUN_BUDGET),
        machine=machine,
    )  # fmt: skip

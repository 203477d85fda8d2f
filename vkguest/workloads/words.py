"""What the programs share: how a word says whose, where and from which round it is."""

from __future__ import annotations

from typing import Final

from vkprotocol.insn import addi
from vkprotocol.mman import PROT_READ, PROT_WRITE

from vkguest.asm import PID, R0, VALUE, Asm
from vkguest.kern.kern_exec import Program
from vkguest.kern.syscall import Sys

PAGE_STEP: Final = 0x1_0001  # from one page to the next
ROUND_STEP: Final = 0x1_0000_0001  # from one round to the next
CHILD_STEP: Final = 0x7_0000_0000_0000  # from parent to child
STATUS_CHILD: Final = 7
RW: Final = PROT_READ | PROT_WRITE


def begin() -> Asm:
    """A program that has its pid, of which every value is made, in a register."""
    asm = Asm()
    asm.call(Sys.GETPID)
    asm.put(addi(PID, R0, 0))
    return asm


def value(asm: Asm, extra: int = 0) -> None:
    asm.put(addi(VALUE, PID, extra))


def finish(asm: Asm, name: str, pages: int, *images: Program) -> Program:
    asm.exit(0)
    return Program(name, asm.text(), pages, images)

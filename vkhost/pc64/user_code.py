"""User code during one RUN: what every executor of it is asked, and how it stops.

Two kinds: a list of instructions (insn_list.py) and x86-64 machine code (machine_code.py). Both
reach memory by accesses of the lwp's CPU, look for signals before an instruction that accesses
memory, and count what they execute against the budget.
"""

from __future__ import annotations

from typing import Protocol

from vkprotocol.insn import Trapframe
from vkprotocol.vkernel import PGEX_I, PGEX_W

from vkhost.kern.lwp import Lwp
from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_WRITE


class Trap(Exception):
    """The user code stopped: a trap number, the address and error bits of a fault."""

    def __init__(self, trapno: int, addr: int = 0, err: int = 0) -> None:
        super().__init__(trapno)
        self.trapno = trapno
        self.addr = addr
        self.err = err


class Interrupted(Exception):
    """A signal is pending, or the budget is used up: EINTR."""


class UserCode(Protocol):
    """The registers of one RUN, and what executes on them."""

    async def step(self, lwp: Lwp) -> None:
        """The next instruction, or a few. A fault leaves the registers as before it. Raises Trap or
        Interrupted."""

    def frame(self, trap: Trap | None) -> Trapframe:
        """What is copied out; `trap` None: a signal."""


def pgex(fault_type: int) -> int:
    """The error code of a page fault, as the hardware pushes it."""
    if fault_type & VM_PROT_WRITE:
        return PGEX_W
    return PGEX_I if fault_type & VM_PROT_EXECUTE else 0

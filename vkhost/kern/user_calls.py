"""System calls of host programs that no vkernel makes, so that they cross no wire.

DragonFly sys/vm/vm_mmap.c:sys_mprotect, sys_mlock, sys_munlock; sys/kern/kern_fork.c:sys_fork.
"""

from __future__ import annotations

from vkprotocol.insn import Word
from vkprotocol.messages import Int, Request


class Mprotect(Request, frozen=True, tag="mprotect"):
    addr: Word
    length: Word
    prot: Int


class Mlock(Request, frozen=True, tag="mlock"):
    addr: Word
    length: Word


class Munlock(Request, frozen=True, tag="munlock"):
    addr: Word
    length: Word


class Fork(Request, frozen=True, tag="fork"):
    """`value` of the Reply is the pid of the child, whose lwp waits for its first request."""

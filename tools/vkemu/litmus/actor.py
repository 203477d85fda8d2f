"""Who says a statement, and the register of what can be said.

`kinds` says which threads may use a verb: `user` code runs in the guest process's address space,
`guest` is the vkernel on its own CPU (its edits of VPTEs are stores through the DMAP), `fault` a
fault worker, `pageout` the daemon's thread, and `host` any other thread of the host kernel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from vkprotocol.param import PAGE_SIZE

from vkemu.litmus.file import Program
from vkemu.litmus.machine import DMAP, Machine
from vkhost.kern.lwp import Lwp
from vkhost.pc64.cpu import Cpu, Fault
from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_page import VmPage

FAULTED: Final = -1  # what a user access that the guest would see as T_PAGEFLT leaves
NO_PAGE: Final = -2  # what a page verb leaves when there is no such page, or it is busy
FAULT_TYPES: Final = {"r": VM_PROT_READ, "w": VM_PROT_WRITE, "x": VM_PROT_EXECUTE}


@dataclass(slots=True)
class Actor:
    """A thread of the test as it runs."""

    machine: Machine
    program: Program
    cpu: Cpu
    held: VmPage | None = None  # by the host, for itself

    @property
    def lwp(self) -> Lwp:
        return self.machine.lwps[self.cpu.id]

    def va(self, name: Any) -> int:
        return name if isinstance(name, int) else self.machine.litmus.file.va[name].va

    def dmap(self, page: Any, idx: int = 0) -> int:
        return DMAP + self.machine.pindex(page) * PAGE_SIZE + idx * 8

    def vpte(self, name: Any, level: int = 0) -> int:
        """Where the VPTE of an address is in the DMAP."""
        table, slot = self.machine.tables.slot(self.va(name), level)
        return DMAP + table * PAGE_SIZE + slot * 8


Verb = Callable[..., Awaitable[int | bool | None]]


@dataclass(frozen=True, slots=True)
class Entry:
    """`args` is one letter an argument: v va, p page, n number, b VPTE bits, l level, a one of
    `words`; what follows a `?` may be left out."""

    kinds: str
    args: str
    do: Verb
    words: tuple[str, ...] = ()


VERBS: Final[dict[str, Entry]] = {}


def verb(kinds: str, args: str, *words: str) -> Callable[[Verb], Verb]:
    def register(do: Verb) -> Verb:
        VERBS[do.__name__.removesuffix("_")] = Entry(kinds, args, do, words)
        return do

    return register


async def accessed(access: Awaitable[Any]) -> int:
    """What an access gave, or that it faulted."""
    try:
        value = await access
    except Fault:
        return FAULTED
    return 0 if value is None else int(value)

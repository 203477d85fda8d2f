"""Who says a statement, and the register of what can be said.

`kinds` says which threads may use a verb: `user` code runs in the guest process's address space,
`guest` is the vkernel on its own CPU (its edits of VPTEs are stores through the DMAP), `fault` a
fault worker, `pageout` the daemon's thread, and `host` any other thread of the host kernel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import signature
from typing import Annotated, Any, Final, TypeAlias, get_type_hints

from vkprotocol.param import PAGE_SIZE

from vkemu.litmus.file import Program
from vkemu.litmus.machine import DMAP, Machine
from vkemu.litmus.operand import Operand, choice
from vkemu.litmus.statement import Statement
from vkemu.verdict import UsageError
from vkhost.kern.lwp import Lwp
from vkhost.pc64.cpu import Cpu, Fault
from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_page import VmPage

FAULTED: Final = -1  # what a user access that the guest would see as T_PAGEFLT leaves
NO_PAGE: Final = -2  # what a page verb leaves when there is no such page, or it is busy
NOTHING: Final = Statement("", "")
FAULT_TYPES: Final = {"r": VM_PROT_READ, "w": VM_PROT_WRITE, "x": VM_PROT_EXECUTE}
# vm_fault for a read, a write or a fetch.
FaultKind: TypeAlias = Annotated[str, choice(*FAULT_TYPES)]


@dataclass(slots=True)
class Actor:
    """A thread of the test as it runs."""

    machine: Machine
    program: Program
    cpu: Cpu
    statement: Statement = NOTHING  # what it says now
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

    @property
    def running(self) -> Cpu:
        """The CPU, which runs this thread."""
        if self.cpu.lwp is None:
            raise self.misused("the CPU is idle, expected a `swtch_in` before")
        return self.cpu

    def misused(self, what: str) -> UsageError:
        """The test, not the kernel, is wrong: found in an interleaving where it does not fit."""
        said = self.statement
        return UsageError(f"{said.where}: {said.text!r}: {what}")


Verb = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """A verb: which threads may use it, and what its operands are, by name; those of
    `defaults` may be left out."""

    kinds: tuple[str, ...]
    do: Verb
    operands: dict[str, Operand]
    defaults: dict[str, object]

    @property
    def form(self) -> str:
        """`store VA WORD [INDEX]`, without the verb."""
        return " ".join(
            f"[{operand.form}]" if name in self.defaults else operand.form
            for name, operand in self.operands.items()
        )


VERBS: Final[dict[str, Entry]] = {}
CALLS: Final[dict[str, Entry]] = {}  # of tests with a [guest]


def verb(kinds: str, table: dict[str, Entry] = VERBS) -> Callable[[Verb], Verb]:
    """A verb by the name of its function; its operands are the annotations of its parameters."""

    def register(do: Verb) -> Verb:
        hints = get_type_hints(do, include_extras=True)
        _, *parameters = signature(do).parameters.values()
        table[do.__name__.removesuffix("_")] = Entry(
            tuple(kinds.split()),
            do,
            {p.name: hints[p.name].__metadata__[0] for p in parameters},
            {p.name: p.default for p in parameters if p.default is not p.empty},
        )
        return do

    return register


async def accessed(access: Awaitable[Any]) -> int:
    """What an access gave, or that it faulted."""
    try:
        value = await access
    except Fault:
        return FAULTED
    return 0 if value is None else int(value)

"""Proc and Lwp: guest processes and their threads. DragonFly `sys/proc.h`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from vkprotocol.effects import Cell
from vkprotocol.insn import NREGS
from vkprotocol.limits import U64

from vkguest.vkernel64.npx import npxsave

if TYPE_CHECKING:
    from vkguest.kern.imgact_elf import ElfImage
    from vkguest.kern.kern_exec import Program
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vkernel64.md import LwpMd, ProcMd
    from vkguest.vm.vmspace import Vmspace

PIDS_PER_PARENT: Final = 100


def register_checksum(regs: tuple[int, ...]) -> int:
    """FNV-1a over the registers' bytes: what two runs of one program are compared by."""
    fnv_offset = 0xCBF29CE484222325
    value = fnv_offset
    fnv_prime = 0x100000001B3
    for reg in regs:
        for byte in reg.to_bytes(8, "little"):
            value = ((value ^ byte) * fnv_prime) & U64
    return value


class Result(NamedTuple):
    """How a process ended. `checksum`: of its registers, None when it was killed."""

    comm: str
    status: int
    checksum: int | None


class Wrong(NamedTuple):
    """What a program found and should not have: a word at `va`, or at va 0 what a system call
    answered (a child's status of 137 is one killed for want of memory)."""

    pid: int
    va: int
    expected: int
    got: int

    def __str__(self) -> str:
        if self.va:
            what = f"reads {self.got:#x} at {self.va:#x}, wrote"
        else:
            what = f"gets {self.got:#x} from a system call, expected"
        return f"process {self.pid} {what} {self.expected:#x}"


class BadExit(NamedTuple):
    """A program of the scenario, in machine code, that did not end with status 0."""

    pid: int
    name: str
    status: int

    def __str__(self) -> str:
        how = f"exits with status {self.status}"
        if self.status >= 128:
            how = f"dies of signal {self.status - 128}"
        return f"process {self.pid} {self.name} {how}, expected status 0"


class Proc:
    """struct proc. The tree, `lwps`, the counts and how it ended belong to proc_token; `program`
    and `vmspace` change in exec, which only a process with one lwp may call.

    A pid says whose n-th child it is, so that it does not depend on who forked first.
    """

    __slots__ = (
        "checksum", "children", "dying", "exit_status", "forked", "lwps", "md", "next_tid",
        "parent", "pid", "pipes", "ppwait", "program", "vmspace", "zombie",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        pid: int,
        parent: Proc | None,
        vmspace: Vmspace,
        program: Program | ElfImage,
        md: ProcMd | None = None,
    ) -> None:
        self.pid = pid
        self.md = md  # of machine code only
        self.parent = parent
        self.vmspace = vmspace
        self.program = program
        self.children: dict[int, Proc] = {}
        self.lwps: dict[int, Lwp] = {}
        self.forked = 0
        self.pipes = 0
        self.next_tid = 1
        self.dying = Cell((name, "proc", pid, "dying"), False)  # set under the token, read freely
        self.exit_status = 0
        self.checksum: int | None = None
        self.zombie = False
        self.ppwait = False  # P_PPWAIT: its parent sleeps in vfork

    def __repr__(self) -> str:
        return f"<Proc {self.pid} {self.program.name}>"


class Lwp:
    """struct lwp: a user context. It belongs to the vCPU that took it off the run queue."""

    __slots__ = ("kstack", "md", "pc", "proc", "regs", "tid", "wchan")

    def __init__(
        self, proc: Proc, tid: int, pc: int, regs: tuple[int, ...], md: LwpMd | None = None
    ) -> None:
        self.md = md  # of machine code only
        self.proc = proc
        self.tid = tid
        self.pc = pc
        self.regs = regs
        self.kstack = 0  # KVA of its kernel stack, once it has one
        self.wchan = ""  # what it sleeps on; belongs to the sleep queues' lock

    def __repr__(self) -> str:
        return f"<Lwp {self.proc.pid}.{self.tid}>"

    def copied(self, child: Proc) -> Lwp:
        """What goes on in a child, behind the call and with 0 for an answer."""
        return Lwp(child, 0, self.pc + 1, (0, *self.regs[1:-1], 0))

    async def run(self, gd: GlobalData) -> None:
        await gd.kernel.go_user(gd, self)

    async def switch_out(self) -> None:
        await npxsave(self)


FRESH_REGS: Final = (0,) * NREGS

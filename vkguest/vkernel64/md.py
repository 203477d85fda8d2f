"""What a process and an lwp have more when they run machine code: struct mdproc, struct mdlwp."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vkprotocol.effects import Cell
from vkprotocol.insn import Machine

if TYPE_CHECKING:
    from vkguest.kern.kern_descrip import File
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vm.vm_page import VmPage

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11 = range(12)
ARGUMENTS: Final = (RDI, RSI, RDX, R10, R8, R9)  # of a system call
PSL_C: Final = 1  # carry: a system call has failed
PSL_T: Final = 0x100
PSL_D: Final = 0x400
PSL_USERCHANGE: Final = 0xCD5 | PSL_T | 1 << 18 | 1 << 21  # flags, AC, ID


@dataclass(frozen=True, slots=True)
class Sigaction:
    """struct sigaction: handler (0 default, 1 ignore), flags, mask of 128 bits."""

    handler: int = 0
    flags: int = 0
    mask: int = 0


SS_ONSTACK, SS_DISABLE = 1, 4


@dataclass(frozen=True, slots=True)
class Sigstk:
    """stack_t: where a handler with SA_ONSTACK runs."""

    sp: int = 0
    size: int = 0
    flags: int = SS_DISABLE


@dataclass(slots=True)
class ProcMd:
    """proc_token covers `files` and `sigacts`; `brk` and `heap` the map's lock."""

    brk: int
    heap: int  # where it began
    files: dict[int, File] = field(default_factory=dict)
    sigacts: dict[int, Sigaction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trap:
    """Of the trap frame; and lwp_sig, lwp_code: the signal that it became, and why."""

    trapno: int = 0
    addr: int = 0
    err: int = 0
    signo: int = 0
    code: int = 0


@dataclass(slots=True)
class LwpMd:
    """Its vCPU's, but for `siglist`, the pending signals in order, which anybody may add to.

    `savefpu` is the frame with its 512 bytes of FPU state, `usingfp` TDF_USINGFP; `npxgd` the vCPU
    whose FPU holds the state at the moment. `progress` is what a system call that sleeps has done
    so far, as it starts again each time. `trap`: what it has entered the kernel by last.
    """

    machine: Machine
    siglist: Cell
    sigstk: Sigstk = Sigstk()
    trap: Trap = Trap()
    sigmask: int = 0
    savefpu: VmPage | None = None
    usingfp: bool = False
    npxgd: GlobalData | None = None
    progress: int = 0

"""Proc and Lwp: the host process that is a vkernel, and its threads, one for each virtual CPU.

DragonFly sys/sys/proc.h, sys/sys/vkernel.h (struct vkernel_proc, struct vkernel_lwp).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import coroutine
from typing import TYPE_CHECKING

from vkprotocol.effects import Cell, Mailbox, Step
from vkprotocol.guarded import guarded_by
from vkprotocol.limits import VMSPACES_PER_PROCESS
from vkprotocol.vkernel import SIGKILL

from vkhost.kern.token import Token

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.pc64.cpu import Cpu
    from vkhost.vm.vm_vmspace import VmspaceEntry
    from vkhost.vm.vmspace import Vmspace
    from vkhost.vm.vnode import Vnode


@guarded_by("token", "root")
class VkernelProc:
    """struct vkernel_proc: the vmspaces a process has made, by id.

    LOCKING: `root` under `token`; `refs` counts the processes that share it.
    """

    __slots__ = ("refs", "root", "token")

    def __init__(self, proc: Proc) -> None:
        self.refs = Cell(("vkp.refs", proc.pid), 1)
        self.token = Token(("vkp", proc.pid))
        self.root: dict[int, VmspaceEntry] = {}  # guarded_by token


class VkernelLwp:
    """struct vkernel_lwp: touched by its own thread only.

    `ve` is the entry being run, None outside; `ve_cache` the last one used, on a cache_ref.
    """

    __slots__ = ("ve", "ve_cache")

    def __init__(self) -> None:
        self.ve: VmspaceEntry | None = None
        self.ve_cache: VmspaceEntry | None = None


@dataclass(frozen=True, slots=True)
class File:
    """struct file: an open vnode, and for what it was opened."""

    vnode: Vnode
    fread: bool = True
    fwrite: bool = True


class Proc:
    """A host process: an address space, file descriptors, and what makes it a vkernel.

    `p_vkernel` is written once, under p_token, and never taken back while the process lives.
    `lowmemkill` is P_LOWMEMKILL, set by the OOM killer; `killed` is P_WEXIT. The limits are in
    bytes; RLIMIT_RSS is enforced once it is exceeded by `rss_hysteresis` pages.
    """

    __slots__ = (
        "files", "kernel", "killed", "lowmemkill", "lwps", "max_proc_mmap", "max_vmspaces", "name",
        "nlwps", "p_token", "p_vkernel", "p_vmspace", "pid", "rlimit_rss", "rlimit_vmem",
        "rss_hysteresis", "zombie",
    )  # fmt: skip

    def __init__(self, kernel: Kernel, pid: int, name: str, vmspace: Vmspace) -> None:
        self.kernel = kernel
        self.pid = pid
        self.name = name
        self.p_vmspace = vmspace
        self.p_token = Token(("p_token", pid))
        self.p_vkernel = Cell(("p_vkernel", pid), None)
        self.lowmemkill = Cell(("p_lowmemkill", pid), False)
        self.files: dict[int, File] = {}  # set before the first thread runs
        self.lwps: list[Lwp] = []  # complete before the first thread runs
        self.nlwps = Cell(("p_nthreads", pid), 0)  # those not yet gone
        self.killed = Cell(("p_killed", pid), False)
        self.max_vmspaces = VMSPACES_PER_PROCESS
        self.max_proc_mmap = 1_000_000  # vm.max_proc_mmap: entries of a map
        self.rlimit_vmem: int | None = None
        self.rlimit_rss: int | None = None
        self.rss_hysteresis = 4096
        self.zombie = False  # written by the last thread as it goes


class Lwp:
    """A host thread of a vkernel: it serves one virtual CPU, and runs its user code on `cpu`.

    `vmspace` is the current address space, changed by pmap_setlwpvm of its own thread.
    `signals` is the set of pending signals, a tuple in order of arrival.
    """

    __slots__ = (
        "closed", "cpu", "gone", "id", "lwp_vkernel", "proc", "replies", "requests", "signals",
        "thread_id", "tid", "vmspace",
    )  # fmt: skip

    def __init__(self, proc: Proc, tid: int, cpu: Cpu) -> None:
        self.proc = proc
        self.tid = tid
        self.id = f"{proc.pid}.{tid}"
        self.cpu = cpu
        self.vmspace = proc.p_vmspace
        self.lwp_vkernel: VkernelLwp | None = None
        self.requests = Mailbox(("requests", proc.pid, tid))
        self.replies = Mailbox(("replies", proc.pid, tid))
        self.signals = Cell(("signals", proc.pid, tid), ())
        self.thread_id = -1  # of the kernel thread, once it was started
        self.gone = False  # counted out of nlwps
        self.closed = False  # no request is received any more


async def lwpsignal(lwp: Lwp, signo: int) -> None:
    """Post a signal. Running guest code, the lwp leaves it before the next access."""
    await _post(lwp.signals, signo)


@coroutine
def _post(signals: Cell, signo: int) -> Step:
    yield signals._write
    if signo not in signals.state:
        signals.state = (*signals.state, signo)


async def take_signals(lwp: Lwp) -> None:
    """Those that came while the vkernel itself was running: their handlers have run."""
    await _deliver(lwp.signals)


@coroutine
def _deliver(signals: Cell) -> Step:
    yield signals._write
    signals.state = (SIGKILL,) if SIGKILL in signals.state else ()

"""GlobalData: one virtual CPU, `mycpu`. Every guest kernel function gets the one it runs on.

DragonFly vkernel64 `include/globaldata.h`. A vCPU is one kernel thread of the executor and one lwp
of the host; what runs on it does so until it comes back to the scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from vkprotocol.effects import Cell
from vkprotocol.insn import MemOp, Trapframe
from vkprotocol.messages import (
    CpuOps,
    Exit,
    Kill,
    Madvise,
    Mcontrol,
    Mmap,
    Msync,
    Pread,
    Pwrite,
    Reply,
    Sysctl,
    VmspaceCreate,
    VmspaceCtl,
    VmspaceDestroy,
    VmspaceMcontrol,
    VmspaceMmap,
)
from vkprotocol.vkernel import VMSPACE_CTL_RUN

if TYPE_CHECKING:
    from vkguest.kern.imgact_elf import ElfImage
    from vkguest.kern.proc import Lwp
    from vkguest.kernel import Vkernel
    from vkguest.vkernel64.pmap import Pmap
    from vkguest.vkernel64.port import Port

RQF_AST_SIGNAL: Final = 0x0080  # globaldata.h: a signal, or the death of the process, is to be seen


class Ran(NamedTuple):
    """A RUN of machine code: whose, from where on, and the how many-th of its vCPU."""

    pid: int
    program: ElfImage
    rip: int
    number: int


class GlobalData:
    """Private to its vCPU, except `reqflags` and `curproc`, which others look at and set."""

    __slots__ = (
        "cpuid",
        "curlwp",
        "curproc",
        "deferred",
        "kernel",
        "mutants",
        "npxthread",
        "port",
        "ran",
        "reqflags",
        "seq",
    )

    def __init__(self, kernel: Vkernel, cpuid: int, port: Port) -> None:
        self.kernel = kernel
        self.mutants = kernel.mutants
        self.cpuid = cpuid
        self.port = port
        self.seq = 0
        self.reqflags = Cell((kernel.name, "gd", cpuid, "reqflags"), 0)
        self.curproc = Cell((kernel.name, "gd", cpuid, "curproc"), 0)  # pid, 0 when idle
        self.curlwp: Lwp | None = None  # whose user context this vCPU has
        self.ran: Ran | None = None  # the last one, for whoever asks where it was
        self.npxthread: Lwp | None = None  # whose state is in the FPU
        self.deferred: list[tuple[Pmap, int, int]] = []  # only the async-inval mutant queues here

    def _stamp(self) -> int:
        self.seq = (self.seq + 1) & 0x7FFF_FFFF
        return self.seq

    async def cpu_ops(self, *ops: MemOp) -> Reply:
        """The kernel's own loads and stores, one after the other."""
        return await self.port.call(CpuOps(lwp=self.cpuid, seq=self._stamp(), ops=ops))

    async def mmap(self, addr: int, length: int, prot: int, flags: int, offset: int) -> Reply:
        return await self.port.call(
            Mmap(
                lwp=self.cpuid, seq=self._stamp(), addr=addr, length=length, prot=prot,
                flags=flags, fd=self.kernel.image_fd, offset=offset,
            )
        )  # fmt: skip

    async def pread(self, fd: int, addr: int, offset: int) -> Reply:
        """A page of an open file, both page aligned."""
        return await self.port.call(
            Pread(lwp=self.cpuid, seq=self._stamp(), fd=fd, addr=addr, offset=offset)
        )

    async def pwrite(self, fd: int, addr: int, offset: int) -> Reply:
        """A page to an open file, both page aligned."""
        return await self.port.call(
            Pwrite(lwp=self.cpuid, seq=self._stamp(), fd=fd, addr=addr, offset=offset)
        )

    async def mcontrol(self, addr: int, length: int, behav: int, value: int) -> Reply:
        return await self.port.call(
            Mcontrol(
                lwp=self.cpuid, seq=self._stamp(), addr=addr, length=length, behav=behav,
                value=value,
            )
        )  # fmt: skip

    async def madvise(self, addr: int, length: int, behav: int) -> Reply:
        return await self.port.call(
            Madvise(lwp=self.cpuid, seq=self._stamp(), addr=addr, length=length, behav=behav)
        )

    async def msync(self, addr: int, length: int, flags: int) -> Reply:
        return await self.port.call(
            Msync(lwp=self.cpuid, seq=self._stamp(), addr=addr, length=length, flags=flags)
        )

    async def vmspace_create(self, vmspace_id: int) -> Reply:
        return await self.port.call(VmspaceCreate(lwp=self.cpuid, seq=self._stamp(), id=vmspace_id))

    async def vmspace_destroy(self, vmspace_id: int) -> Reply:
        return await self.port.call(
            VmspaceDestroy(lwp=self.cpuid, seq=self._stamp(), id=vmspace_id)
        )

    async def vmspace_mmap(
        self, vmspace_id: int, addr: int, length: int, prot: int, flags: int, offset: int
    ) -> Reply:
        return await self.port.call(
            VmspaceMmap(
                lwp=self.cpuid, seq=self._stamp(), id=vmspace_id, addr=addr, length=length,
                prot=prot, flags=flags, fd=self.kernel.image_fd, offset=offset,
            )
        )  # fmt: skip

    async def vmspace_mcontrol(
        self, vmspace_id: int, addr: int, length: int, behav: int, value: int
    ) -> Reply:
        return await self.port.call(
            VmspaceMcontrol(
                lwp=self.cpuid, seq=self._stamp(), id=vmspace_id, addr=addr, length=length,
                behav=behav, value=value,
            )
        )  # fmt: skip

    async def vmspace_run(
        self, vmspace_id: int, frame: Trapframe, tframe: int | None = None, vframe: int = 0
    ) -> Reply:
        return await self.port.call(
            VmspaceCtl(
                lwp=self.cpuid, seq=self._stamp(), id=vmspace_id, cmd=VMSPACE_CTL_RUN, frame=frame,
                tframe=tframe, vframe=vframe,
            )
        )  # fmt: skip

    async def sysctl(self, name: str) -> Reply:
        return await self.port.call(Sysctl(lwp=self.cpuid, seq=self._stamp(), name=name))

    async def kill(self, cpuid: int, signo: int) -> Reply:
        """pthread_kill of another vCPU's thread: the guest's inter-processor interrupt."""
        return await self.port.call(
            Kill(lwp=self.cpuid, seq=self._stamp(), target=cpuid, signo=signo)
        )

    async def exit(self, status: int) -> Reply:
        return await self.port.call(Exit(lwp=self.cpuid, seq=self._stamp(), status=status))

"""Faults of devices, interrupts and processes, injected by name: what, of whom, on which occasion.

None of it is a mistake of the kernel: disks fail, interrupts are late, processes are stopped and
killed. Whatever happens, the invariants hold. A fault counts its own occasions in a word that
counting writes, so that searches see which steps depend on each other by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EIO
from random import Random
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias, get_args

from msgspec import Meta, Struct
from vkprotocol.effects import CLOCK, Cell, pause
from vkprotocol.param import PAGE_SIZE

from vkhost.kern.proc import killproc
from vkhost.vm.vm_object import OBJT_VNODE

if TYPE_CHECKING:
    from vkhost.kern.lwp import Proc
    from vkhost.kernel import Kernel
    from vkhost.pc64.cpu import Cpu
    from vkhost.vm.vm_object import VmObject
    from vkhost.vm.vnode import Vnode

FaultKind: TypeAlias = Literal[
    "swap-read", "swap-write", "image-read", "image-write", "image-truncated", "slow-page-in",
    "late-ipi", "late-reply", "stall", "kill", "paused-cpu",
]  # fmt: skip
FAULT_KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)
IMAGE_IO: Final = ("image-read", "image-write", "image-truncated")
OF_CPUS: Final = ("late-ipi", "paused-cpu")
NS_PER_MS: Final = 1_000_000


class InjectedFault(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """[[fault]]: a fault that is no mistake of the kernel, and on which occasions it comes."""

    kind: FaultKind  # what goes wrong
    at: Annotated[int, Meta(ge=0, le=1 << 40)] = 0  # its occasion, from 1 on; 0: every one
    times: Annotated[int, Meta(ge=0, le=1 << 40)] = 1  # so many from there on; 0: all of them
    chance: Annotated[float, Meta(gt=0, le=1)] = 1.0  # on each of those
    ms: Annotated[int, Meta(ge=1, le=1_000_000)] = 10  # how late or slow, in virtual time
    guest: str = ""  # of a guest's or a native process's only
    cpu: Annotated[int, Meta(ge=0)] | None = None  # of this CPU only
    seed: Annotated[int, Meta(ge=0)] = 0  # of chance; 0: drawn from the run's


class _Plan:
    """A fault and what has become of it: `occasions` so far, `until` when it lasts."""

    __slots__ = ("fault", "occasions", "until")

    def __init__(self, place: int, fault: InjectedFault) -> None:
        self.fault = fault
        self.occasions = Cell(("fault", place, "occasions"))
        self.until = Cell(("fault", place, "until"))  # virtual ns

    async def due(self) -> bool:
        fault = self.fault
        number = 1 + await self.occasions.add(1)
        past = number - fault.at
        for_ever = fault.times == 0 or fault.kind == "image-truncated"
        if fault.at and (past < 0 or (past >= fault.times and not for_ever)):
            return False
        return fault.chance == 1.0 or Random(f"{fault.seed} {number}").random() < fault.chance

    async def begin(self) -> None:
        await self.until.store(CLOCK[0] + self.fault.ms * NS_PER_MS)

    async def wait(self) -> None:
        left = await self.until.load() - CLOCK[0]
        if left > 0:
            await pause(left)


class FaultInjection:
    """Where the kernel asks whether something goes wrong now."""

    def __init__(self, kernel: Kernel, faults: Sequence[InjectedFault]) -> None:
        self.kernel = kernel
        self._plans: dict[FaultKind, list[_Plan]] = {}
        for place, fault in enumerate(faults):
            self._plans.setdefault(fault.kind, []).append(_Plan(place, fault))

    async def _due(self, kind: FaultKind, whose: str = "", cpu: int | None = None) -> _Plan | None:
        for plan in self._plans.get(kind, ()):
            fault = plan.fault
            if fault.guest not in ("", whose) or fault.cpu not in (None, cpu):
                continue
            if await plan.due():
                self.kernel.emit("fault.inject", kind, whose if cpu is None else f"cpu{cpu}")
                return plan
        return None

    async def page_io(self, obj: VmObject, pindex: int, *, write: bool) -> None:
        """Before a pager reads or writes a page of `obj`. Raises OSError."""
        image = obj.handle if obj.type == OBJT_VNODE else None
        name = "" if image is None else image.name.removeprefix("image.")
        if not write and (slow := await self._due("slow-page-in", name)):
            await pause(slow.fault.ms * NS_PER_MS)
        if image is None:
            kind: FaultKind = "swap-write" if write else "swap-read"
        else:
            kind = "image-write" if write else "image-read"
        cut_off = image is not None and pindex >= image.size // PAGE_SIZE // 4
        failed = await self._due(kind, name) or (
            cut_off and await self._due("image-truncated", name)
        )
        if not failed:
            return
        if image is not None:
            await self._lost(image)
        raise OSError(EIO, "injected")

    async def _lost(self, image: Vnode) -> None:
        """A vkernel that cannot have its memory gets SIGBUS, wherever it is, and nobody else."""
        for proc in list(self.kernel.procs):
            if any(file.vnode is image for file in proc.files.values()):
                await killproc(proc)

    async def request(self, proc: Proc) -> None:
        """Before a process's system call is served."""
        for plan in self._plans.get("stall", ()):
            if plan.fault.guest in ("", proc.name):
                if await plan.due():
                    self.kernel.emit("fault.inject", "stall", proc.name)
                    await plan.begin()
                await plan.wait()  # all threads of the process stand still
        if await self._due("kill", proc.name):
            await killproc(proc)

    async def reply(self, proc: Proc) -> None:
        """Before the result of a system call is given back."""
        if late := await self._due("late-reply", proc.name):
            await pause(late.fault.ms * NS_PER_MS)

    async def run(self, cpu: Cpu) -> None:
        """Before user code runs on the CPU."""
        if paused := await self._due("paused-cpu", cpu=cpu.id):
            await paused.begin()
        await self._paused(cpu)

    async def interrupt(self, cpu: Cpu) -> None:
        """Before the CPU takes an IPI."""
        if late := await self._due("late-ipi", cpu=cpu.id):
            await pause(late.fault.ms * NS_PER_MS)
        await self._paused(cpu)

    async def _paused(self, cpu: Cpu) -> None:
        for plan in self._plans.get("paused-cpu", ()):
            if plan.fault.cpu in (None, cpu.id):
                await plan.wait()

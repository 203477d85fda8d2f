"""The machine of a litmus test with a [guest]: a host, and one vkernel that has been running on it.

The set-up boots it, starts its process and lets that do what came `before`: real calls of both
kernels, on a thread of their own. An execution begins where the threads of the test part, each on a
vCPU. What a vkernel asks of its host is done by the thread that asks: a vCPU is a host thread, and
between the two of `vkemu run` nothing could come but a message.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import structs
from vkprotocol.effects import Cell, Spawn, curthread
from vkprotocol.insn import Trapframe, or_bits
from vkprotocol.messages import AnyRequest, Reply, VmspaceCtl
from vkprotocol.param import PAGE_SIZE
from vkprotocol.vkernel import T_SYSCALL

from vkemu.books import Books
from vkemu.litmus.actor import CALLS
from vkemu.litmus.calls import FIRST_REGISTER, OVER, UNWRITTEN, compiled, is_daemon
from vkemu.litmus.file import Litmus, Program
from vkemu.litmus.machine import Blocked, drive, look_at
from vkemu.oracle.shadow import Shadow
from vkemu.verdict import UsageError
from vkguest.asm import R0
from vkguest.kern.param import phys_to_dmap
from vkguest.kern.proc import Lwp, Proc
from vkguest.kern.sched import Runnable
from vkguest.kernel import Vkernel
from vkguest.vkernel64.dmap import access
from vkguest.vkernel64.globaldata import GlobalData
from vkhost.config import HostConfig
from vkhost.kern.lwp import Lwp as HostLwp
from vkhost.kern.proc import proc_create
from vkhost.kern.syscall import syscall2
from vkhost.kernel import Emit, Kernel
from vkhost.pc64.insn_list import ACCESSES, InsnList
from vkhost.pc64.pmap_switch import swtch_in
from vkhost.pc64.user_code import Trap
from vkhost.quirks import Quirks
from vkhost.vm.vnode_pager import MemoryVnode


class Over(Exception):
    """An lwp has said all of its thread, with this in its registers."""

    def __init__(self, regs: tuple[int, ...]) -> None:
        super().__init__()
        self.regs = regs


class CallingPort:
    """The port of a vCPU whose thread is the host's lwp itself.

    A RUN begins at the first access: whatever enters a vmspace and leaves it again without one has
    changed nothing.
    """

    __slots__ = ("lwp",)

    def __init__(self, lwp: HostLwp) -> None:
        self.lwp = lwp

    async def call(self, request: AnyRequest) -> Reply:
        if isinstance(request, VmspaceCtl) and request.frame is not None:
            result = await self._run(request, request.frame)
            frame = result["frame"]
            if frame is not None and frame.trapno == T_SYSCALL and frame.regs[R0] == OVER:
                raise Over(frame.regs)
        else:
            result = await syscall2(self.lwp, request)
        return Reply(lwp=self.lwp.tid, seq=request.seq, **result)

    async def _run(self, request: VmspaceCtl, frame: Trapframe) -> dict[str, Any]:
        user = InsnList(frame, frame.budget)
        try:
            while user.pc < len(frame.text) and frame.text[user.pc].op not in ACCESSES:
                await user.step(self.lwp)
        except Trap as trap:
            return {"frame": user.frame(trap)}
        frame = structs.replace(frame, pc=user.pc, regs=tuple(user.regs))
        return await syscall2(self.lwp, structs.replace(request, frame=frame))


class Said(Lwp):
    """An lwp of the test. `ended`: it has said all of its thread, or is gone."""

    __slots__ = ("ended", "machine")

    def __init__(
        self, machine: GuestMachine, proc: Proc, tid: int, pc: int, regs: tuple[int, ...]
    ) -> None:
        super().__init__(proc, tid, pc, regs)
        self.machine = machine
        self.ended = Cell(("litmus.ended", proc.pid, tid), False)

    def copied(self, child: Proc) -> Lwp:
        plain = super().copied(child)
        found = Said(self.machine, child, 0, plain.pc, plain.regs)
        self.machine.children.append(found)
        return found

    async def run(self, gd: GlobalData) -> None:
        try:
            await super().run(gd)
        except Over as over:
            self.regs = over.regs
            await self.ended.store(True)
        if self.proc.lwps.get(self.tid) is not self:
            await self.ended.store(True)


class Daemon:
    """A thread of the guest's kernel, which is what its vCPU runs first."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.ended = Cell(("litmus.ended", program.name), False)

    async def switch_out(self) -> None:
        """It uses no FPU."""

    async def run(self, gd: GlobalData) -> None:
        for statement in self.program.run:
            await CALLS[statement.verb].do(gd, *statement.args)
        await self.ended.store(True)


class GuestMachine:
    """`first`: what each vCPU runs first, by the name of the thread. `children`: lwps that a fork
    has made since."""

    def __init__(self, litmus: Litmus, policy: str, spawn: Spawn, emit: Emit) -> None:
        file, guest = litmus.file, litmus.file.guest
        assert guest is not None
        self.litmus = litmus
        config = msgspec.convert(structs.asdict(file.host), HostConfig)
        config = structs.replace(config, cpus=litmus.vcpus)
        quirks = msgspec.convert(structs.asdict(file.quirks), Quirks)
        self.kernel = Kernel(config, policy, spawn, emit, quirks, frozenset(file.mutants))
        self.kernel.vmmeter.tunables.update(file.litmus.tunables)
        image = MemoryVnode("image", guest.pages * PAGE_SIZE)
        proc = proc_create(self.kernel, "vkernel", image, litmus.vcpus)
        assert proc is not None
        self.proc = proc
        self.program, self.labels = compiled(litmus)
        self.vkernel = Vkernel(
            lambda cpuid: CallingPort(proc.lwps[cpuid]), memory_pages=guest.pages,
            programs=[self.program], spawn=spawn, vcpus=litmus.vcpus, swap_pages=guest.swap,
            emit=self.kernel.emit, name="guest", proc=proc.pid, free_target=guest.free_target,
            mutants=frozenset(guest.mutants),
        )  # fmt: skip
        self.first: dict[str, Said | Daemon] = {}
        self.children: list[Said] = []

    def set_up(self) -> None:
        """UsageError when the test asks for what cannot be."""
        try:
            drive(self._set_up())
        except Blocked as blocked:
            raise UsageError(f"{self.litmus.where}:guest: {blocked}, expected an end") from None

    async def _set_up(self) -> None:
        kernel, vkernel = self.kernel, self.vkernel
        setup = -1  # the tid of the thread that `drive` is
        for lwp in self.proc.lwps:
            kernel.emit("lwp.create", self.proc.pid, lwp.id)
            kernel.bind(setup, lwp.cpu)
            await swtch_in(lwp)
        kernel.bind(setup, self.proc.lwps[0].cpu)
        await vkernel._boot(vkernel.cpus[0])
        for gd in vkernel.cpus:
            kernel.bind(setup, self.proc.lwps[gd.cpuid].cpu)
            frames = range(vkernel.memory_pages)
            await access(gd, *(or_bits(phys_to_dmap(frame), 0) for frame in frames))
        kernel.bind(setup, self.proc.lwps[0].cpu)
        if vkernel.boot_error is not None:
            raise UsageError(f"{self.litmus.where}:guest: {vkernel.boot_error}, expected a guest")
        self._part(await self._before())
        kernel.unbind(setup)

    async def _before(self) -> Lwp:
        """The lwp that has done what came before; children that it has made go first, and daemons
        have their turns where it yields."""
        gd, sched = self.vkernel.cpus[0], self.vkernel.sched
        first = await sched.choose()
        assert isinstance(first, Lwp)
        lp = first.proc.lwps[0] = Said(self, first.proc, 0, first.pc, first.regs)
        for daemon in (*(s for s in self.litmus.before if is_daemon(s)), None):
            await lp.run(gd)
            while (thread := await sched.choose()) is not lp:
                assert thread is not None, "a process still lives"
                await thread.run(gd)
            if daemon is not None:
                await CALLS[daemon.verb].do(gd, *daemon.args)
        return lp

    def _part(self, before: Lwp) -> None:
        """In place of the lwp that was alone, one for each thread."""
        proc = before.proc
        proc.lwps.clear()
        for program in self.litmus.threads:
            if program.kind == "daemon":
                self.first[program.name] = Daemon(program)
            elif program.kind == "process":
                tid = len(proc.lwps)
                lp = Said(self, proc, tid, self.labels[program.name], before.regs)
                self.first[program.name] = proc.lwps[tid] = lp
        proc.next_tid = len(proc.lwps)

    def start(self, spawn: Spawn) -> None:
        """The execution: a thread for each vCPU, and one that waits for all that is said."""
        for number, gd in enumerate(self.vkernel.cpus):
            names = list(self.first)
            name = names[number] if number < len(names) else f"vcpu{number}"
            spawn(name, self._vcpu(gd, self.first.get(name)), daemon=True)
        spawn("end", self._end())

    async def _vcpu(self, gd: GlobalData, thread: Runnable | None) -> None:
        self.kernel.bind(curthread().tid, self.proc.lwps[gd.cpuid].cpu)
        if thread is None:
            thread = await self.vkernel.sched.choose()
        while thread is not None:
            await thread.run(gd)
            thread = await self.vkernel.sched.choose()

    async def _end(self) -> None:
        for thread in self.first.values():
            await thread.ended.wait(bool)
        for child in self.children:
            await child.ended.wait(bool)

    def books(self, shadow: Shadow) -> Books:
        return Books(self.kernel, shadow, guests=[self.vkernel])

    def look(self) -> None:
        """Make what is otherwise made by whoever looks at it first."""
        look_at(self.kernel)

    def value(self, atom: str) -> int | None:
        """What `A.r0` is in the state at hand; None for a register never written."""
        name, _, register = atom.partition(".")
        lp = self.first[name]
        assert isinstance(lp, Said)
        word = lp.regs[FIRST_REGISTER + self.litmus.registers.index(register)]
        return None if word == UNWRITTEN else word - (word >> 63 << 64)

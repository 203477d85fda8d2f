"""Vkernel: one guest, assembled. `start` spawns its virtual CPUs; the rest is theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from vkprotocol.effects import Cell, Lock, Spawn
from vkprotocol.guarded import guarded_by
from vkprotocol.messages import MEMIMAGE_FD

from vkguest.kern.errors import BootError, HostGone, VmWait
from vkguest.kern.exec_elf import SIGCODE_ADDRESS, exec_first
from vkguest.kern.imgact_elf import ElfImage, ElfProgram
from vkguest.kern.kern_exec import TEXT_WORDS, Program, exec_new_vmspace, insn_word
from vkguest.kern.kern_ktrace import ktrcontent
from vkguest.kern.lockorder import PROC_TOKEN, UMTX_LOCK
from vkguest.kern.param import FIRST_FREE_FRAME
from vkguest.kern.proc import FRESH_REGS, BadExit, Lwp, Proc, Result, Wrong
from vkguest.kern.sched import Scheduler
from vkguest.kern.sys_pipe import Pipe
from vkguest.kern.vkdisk import Disk
from vkguest.mutants import check_mutants
from vkguest.quirks import AS_PATCHED, Quirks
from vkguest.vkernel64 import trap
from vkguest.vkernel64.cpu_regs import identify_cpu
from vkguest.vkernel64.globaldata import GlobalData
from vkguest.vkernel64.init import boot
from vkguest.vkernel64.npx import DEFAULT_MXCSR_MASK, npx_mxcsr_mask
from vkguest.vkernel64.pmap import Pmap
from vkguest.vkernel64.port import Port
from vkguest.vm.swap_pager import SwapArea
from vkguest.vm.vm_kern import Kva
from vkguest.vm.vm_map import VmMap
from vkguest.vm.vm_object import VmObject
from vkguest.vm.vm_page import VmPageQueues
from vkguest.vm.vm_pageout import PageDaemon
from vkguest.vm.vmspace import VmspaceZone

Emit: TypeAlias = Callable[..., None]

DOWN: Final = 0  # states of `booted`
UP: Final = 1
FAILED: Final = 2
QUANTUM: Final = 200  # user instructions before an lwp goes to the end of the run queue


def no_events(name: str, *args: Any) -> None:
    """The default `emit`."""


@guarded_by("proc_token", "allproc", "failed", "pipes", "results", "shm")
class Vkernel:
    """A virtual kernel and what is running in it.

    `port_factory(cpuid)` gives the Port of each vCPU. `proc` is the host's name for this guest in
    events. `memory_pages` is the size of the image, of which the last `swap_pages` are its swap.
    `free_target`: how many frames the page daemon makes free once fewer than about half as many
    are; twice the memory keeps it busy all the time. `kernel_map`: memory of the kernel's own that
    it faults on, and trap frames on kernel stacks in KVA, where the host copies them in and out.
    After the run: `results` by pid, `failed`, what programs found wrong, `boot_error`, and `killed`
    (why the host ended it).
    """

    go_user = staticmethod(trap.go_user)  # an lwp reaches it from here: it stands above all lwps
    kern_trap = staticmethod(trap.kern_trap)  # and so does an access that faults

    def __init__(
        self,
        port_factory: Callable[[int], Port],
        *,
        memory_pages: int,
        programs: Sequence[Program | ElfProgram],
        spawn: Spawn,
        vcpus: int = 1,
        swap_pages: int = 0,
        emit: Emit = no_events,
        name: str = "vk0",
        proc: int | str = 0,
        image_fd: int = MEMIMAGE_FD,
        quantum: int = QUANTUM,
        prezero: bool = False,
        kernel_map: bool = False,
        free_target: int | None = None,
        mutants: frozenset[str] = frozenset(),
        quirks: Quirks = AS_PATCHED,
        images: Sequence[ElfImage] = (),
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.memory_pages = memory_pages
        self.programs = tuple(programs)
        self.spawn = spawn
        self.emit = emit
        self.name = name
        self.proc = proc
        self.image_fd = image_fd
        self.quantum = quantum
        self.prezero = prezero
        self.has_kernel_map = kernel_map
        self.mutants = check_mutants(mutants)
        self.quirks = quirks
        self.boot_error: str | None = None
        self.killed: str | None = None
        end = memory_pages - swap_pages
        pages_per_process = 8  # least there must be: root, three tables, text, data and some spare
        if end < FIRST_FREE_FRAME + pages_per_process + 4 * vcpus:
            raise ValueError(f"{name}: {end} pages of memory are too few for {vcpus} vCPUs")

        self.kernel_pmap = Pmap(name, 0)
        self.kernel_map = VmMap(f"{name}.kernel", self.kernel_pmap)
        self.no_map = VmMap(name, self.kernel_pmap)  # of a fault that is for an object
        self.vm_page_queues = VmPageQueues(name, FIRST_FREE_FRAME, end, vcpus, free_target)
        self.swap = SwapArea(name, end, memory_pages)
        self.kva = Kva(name, self.kernel_pmap)
        self.vmspaces = VmspaceZone(name)
        self.sched = Scheduler(name)
        self.pagedaemon = PageDaemon()
        self.booted = Cell((name, "booted"), DOWN)
        self.exited = Cell((name, "exited"), 0)  # how many vCPUs have, all of them when killed
        # Covers these six, and what class Proc says.
        self.proc_token = Lock((name, "proc_token"), PROC_TOKEN)
        self.allproc: list[Proc] = []
        self.pipes: dict[int, Pipe] = {}
        self.shm: dict[int, VmObject] = {}
        self.results: dict[int, Result] = {}
        self.failed: list[Wrong | BadExit] = []
        # For programs in machine code.
        self.umtx_lock = Lock((name, "umtx"), UMTX_LOCK)
        self.disk = Disk(images, files or {})
        self.sigcode = SIGCODE_ADDRESS
        self.npx_mxcsr_mask = DEFAULT_MXCSR_MASK
        self.cpu_feature2 = 0
        self.text_objects = {
            program: VmObject(text=tuple(map(insn_word, program.text[:TEXT_WORDS])))
            for program in all_images([p for p in self.programs if isinstance(p, Program)])
        }
        self.cpus = [GlobalData(self, cpuid, port_factory(cpuid)) for cpuid in range(vcpus)]

    def start(self) -> None:
        """Spawn the vCPUs, and the process that waits for them to end: when the last guest process
        has, when booting fails, or when the host kills the vkernel.

        The vCPUs are daemons of the executor, since those of a killed vkernel stay where they are.
        """
        for gd in self.cpus:
            self.spawn(f"{self.name}.vcpu{gd.cpuid}", self._vcpu(gd), daemon=True)
        self.spawn(f"{self.name}.parent", self._parent())

    async def _parent(self) -> None:
        """init.c:main's first process."""
        ncpus = len(self.cpus)
        await self.exited.wait(lambda exited: exited >= ncpus)

    async def _vcpu(self, gd: GlobalData) -> None:
        try:
            await self._run(gd)
            await self.exited.add(1)
        except HostGone as gone:
            self.killed = str(gone)
            await self.exited.store(len(self.cpus))

    async def _run(self, gd: GlobalData) -> None:
        if gd.cpuid == 0:
            await self._boot(gd)
        else:
            await self.booted.wait(bool)
        status = 0
        if self.booted.value == UP:
            while (thread := await self.sched.choose()) is not None:
                await thread.run(gd)
        else:
            status = 1
        await gd.exit(status)

    async def _boot(self, gd: GlobalData) -> None:
        try:
            await boot(gd)
            if self.disk.images:
                for name, content in self.disk.given.items():
                    ktrcontent(gd, name, content)
                self.npx_mxcsr_mask = await npx_mxcsr_mask(gd)
                self.cpu_feature2 = await identify_cpu(gd)
            for number, program in enumerate(self.programs, 1):
                await self._exec_first(gd, number, program)
        except BootError as error:
            self.boot_error = str(error)
            self.emit("console", str(error))
            await self.booted.store(FAILED)
            return
        await self.booted.store(UP)
        if not self.programs:
            await self.sched.shutdown(len(self.cpus))

    async def _exec_first(self, gd: GlobalData, pid: int, program: Program | ElfProgram) -> None:
        """init_main.c: a process out of nothing."""
        try:
            if isinstance(program, ElfProgram):
                proc = await exec_first(gd, pid, program.image, program.args)
            else:
                proc = Proc(self.name, pid, None, await exec_new_vmspace(gd, pid, program), program)
                proc.lwps[0] = Lwp(proc, 0, 0, FRESH_REGS)
        except VmWait:
            raise BootError(f"{self.name}: no memory left for process {pid}") from None
        async with self.proc_token:
            self.allproc.append(proc)
        await self.sched.setrunqueue(proc.lwps[0])


def all_images(programs: Sequence[Program]) -> Iterator[Program]:
    """The programs, and whatever they may exec."""
    for program in programs:
        yield program
        yield from all_images(program.images)

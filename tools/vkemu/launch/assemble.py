"""From a scenario to a machine that can run: an Execution, a Kernel, guests, an oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from vkprotocol.effects import CLOCK, Body, Spawn, Thread
from vkprotocol.messages import DISK_FD
from vkprotocol.mman import MAP_ANON, MAP_FIXED, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE

from vkemu.books import Books, Heirs, QuietBooks
from vkemu.executors.any_timer import AnyTimer
from vkemu.executors.controlled import Execution
from vkemu.launch import names
from vkemu.launch.draw import drawn
from vkemu.launch.elf import check_extra, elf_program, files_of, images_of, is_elf
from vkemu.launch.native import Native
from vkemu.launch.outcome import InnocentKilled, NothingRan, WrongMemory
from vkemu.launch.scenario import Guest, Process, Scenario, size_bytes
from vkemu.launch.wild_native import WildNative
from vkemu.oracle import DEFAULT_CHECKS, Oracle
from vkemu.record.log import EventLog, Place
from vkemu.verdict import UsageError
from vkguest.asm import Asm
from vkguest.kern.imgact_elf import ElfProgram
from vkguest.kern.kern_exec import Program
from vkguest.kern.syscall import Sys
from vkguest.kernel import Vkernel
from vkguest.vkernel64.port import MailboxPort
from vkhost.config import HostConfig
from vkhost.kern.lwp import File, Proc
from vkhost.kern.proc import proc_create
from vkhost.kern.syscall import proc_start
from vkhost.kernel import Emit, Kernel
from vkhost.quirks import Quirks
from vkhost.vm.vm_meter import sysctl_table
from vkhost.vm.vnode_pager import MemoryVnode


class Log(Protocol):
    """Who else hears the events."""

    def emit(self, name: str, *args: Any) -> None: ...


class Machine:
    """A scenario ready to take its first step."""

    execution: Execution  # set by `assemble`; an explorer has its own

    def __init__(
        self, scenario: Scenario, spawn: Spawn, log: Log | None = None, *, quiet: bool = True
    ) -> None:
        if scenario.blobs:
            check_extra(scenario.name)
        self.spawn = spawn
        self.oracle = Oracle(scenario.checks or DEFAULT_CHECKS)
        host_threads: list[Thread] = []
        guest_threads: list[list[Thread]] = [[] for _ in scenario.guest]
        self.kernel = Kernel(
            msgspec.convert(msgspec.structs.asdict(scenario.host), HostConfig),
            scenario.policy,
            self._noting(host_threads) if scenario.guest else spawn,
            emit_to(self.oracle, log),
            msgspec.convert(msgspec.structs.asdict(scenario.quirks), Quirks),
            frozenset(scenario.mutants),
            scenario.fault,
        )
        self.kernel.start()
        self.guests = [
            self._boot(scenario, guest, self._noting(threads))
            for guest, threads in zip(scenario.guest, guest_threads, strict=True)
        ]
        self.natives = [
            WildNative(
                self.kernel, spawn, t.name, t.memory_pages, t.ops, t.seed or 0, t.corners, t.every
            )
            if t.ops
            else Native(
                self.kernel, spawn, t.name, t.memory_pages, t.rounds, t.pause_ms, t.innocent
            )
            for t in scenario.native
        ]
        self.books = Books(
            self.kernel, self.oracle.shadow, guests=self.guests, reference=self.oracle.reference
        )
        self.quiet: QuietBooks | None = None
        # Guests from outside come and go, and a host that serves is hardly ever quiet.
        if "books" in self.oracle.checks and scenario.guest and quiet:
            self.quiet = QuietBooks(self.books, host_threads, guest_threads)
            self.oracle.tell("syscall.end", self.quiet.syscall_end)
            self.oracle.tell("run.enter", self.quiet.run_enter)
        if "books" in self.oracle.checks and scenario.guest:
            Heirs(self.books, self.oracle)
        if isinstance(log, EventLog):
            log.place = self.place

    def _noting(self, threads: list[Thread]) -> Spawn:
        """A `spawn` that notes whom it has started."""

        def spawn(name: str, coro: Body, *, daemon: bool = False) -> Thread:
            thread = self.spawn(name, coro, daemon=daemon)
            threads.append(thread)
            return thread

        return spawn

    def _boot(self, scenario: Scenario, guest: Guest, spawn: Spawn | None = None) -> Vkernel:
        """A host process with the guest in it, as vkernel(7) would be started."""
        image = MemoryVnode(guest.name, guest.memory_pages * PAGE_SIZE)
        image.unlinked = True
        proc = proc_create(self.kernel, guest.name, image, guest.vcpus)
        assert proc is not None, "the scenario was checked to have a CPU for each vCPU"
        try:
            vkernel = Vkernel(
                lambda cpuid: port_of(proc, cpuid),
                spawn=spawn or self.spawn,
                emit=self.kernel.emit,
                name=guest.name,
                proc=proc.pid,
                **vkernel_arguments(guest, scenario.blobs),
            )
        except ValueError as error:
            raise UsageError(f"{scenario.name}:guest.memory: {error}, expected more") from None
        if vkernel.disk.content:
            disk = MemoryVnode(f"{guest.name}.disk", len(vkernel.disk.content))
            disk.content = vkernel.disk.content
            proc.files[DISK_FD] = File(disk)
        proc_start(proc)
        vkernel.start()
        return vkernel

    @property
    def virtual_ns(self) -> int:
        return CLOCK[0]

    def finish(self) -> None:
        """The checks that need a proper end. Raises what is wrong, for the first guest it is."""
        self.oracle.finish()
        if "books" in self.oracle.checks:
            self.books.check()
        if all(guest.boot_error is not None for guest in self.guests):
            raise NothingRan("; ".join(guest.boot_error or "" for guest in self.guests))
        for guest in self.guests:
            for wrong in guest.failed:
                raise WrongMemory(f"{guest.name}: {wrong}")
        for native in self.natives:
            for va, expected, got in native.wrong:
                raise WrongMemory(f"{native.name}: reads {got:#x} at {va:#x}, wrote {expected:#x}")
            if native.killed is not None and native.innocent:
                raise InnocentKilled(f"{native.name} is killed for memory ({native.pages} pages)")

    def passed(self) -> bool:
        """`finish` for an explorer, whose searches have no use for guests that never boot."""
        try:
            self.finish()
        except NothingRan as error:
            raise UsageError(f"policy {self.kernel.policy}: {error}, expected a guest") from None
        return True

    def place(self, thread: Thread) -> Place:
        """The real CPU of a thread, and the guest it works for."""
        cpu = self.kernel.mycpu.get(thread.tid)
        return None if cpu is None else cpu.id, guest_of(thread.name)

    def counters(self) -> dict[str, Any]:
        """The host's own counters, as its sysctls give them."""
        table = sysctl_table(self.kernel.vmmeter)
        return {name: sysctl.get() for name, sysctl in sorted(table.items())}


def assemble(
    scenario: Scenario,
    log: Log | None = None,
    execution: Execution | None = None,
    *,
    quiet: bool = True,
) -> Machine:
    """On `execution`, or a new one; `log` hears every event, before the oracle does. `quiet`: look
    at the books also while it runs."""
    if execution is None:
        execution = execution_for(scenario)
    machine = Machine(scenario, execution.spawn, log, quiet=quiet)
    machine.execution = execution
    return machine


def execution_for(scenario: Scenario) -> Execution:
    """Under control, with the clock the scenario asks for."""
    return AnyTimer() if scenario.timers == "any" else Execution()


def scenario_program(scenario: Scenario) -> Callable[[Any], None]:
    """The scenario as a program for `explore`."""
    if scenario.timers == "any":
        raise UsageError(f"{scenario.name}:timers: 'any' is for run, expected 'last' to explore")

    def program(k: Any) -> None:
        k.at_end(Machine(drawn(scenario, scenario.seed), k.spawn).passed)

    program.__qualname__ = f"{scenario.name}[{scenario.policy}]"
    return program


def emit_to(oracle: Oracle, log: Log | None) -> Emit:
    """The log first: it shall hold the event at which the oracle stops the run."""
    if log is None:
        return oracle
    note = log.emit

    def emit(name: str, /, *fields: Any) -> None:
        note(name, *fields)
        oracle(name, *fields)

    return emit


def port_of(proc: Proc, cpuid: int) -> MailboxPort:
    lwp = proc.lwps[cpuid]
    return MailboxPort(lwp.requests, lwp.replies)


@lru_cache(4096)
def guest_of(actor: str) -> str | None:
    """`lwp g1.0` and `g1.vcpu0` work for g1."""
    name, dot, _ = actor.removeprefix("lwp ").rpartition(".")
    return name if dot else None


def vkernel_arguments(guest: Guest, blobs: Mapping[str, bytes]) -> dict[str, Any]:
    """What a [[guest]] says of its Vkernel, wherever that runs."""
    return {
        "memory_pages": guest.memory_pages,
        "programs": programs_of(guest, blobs),
        "images": images_of(guest, blobs),
        "files": files_of(guest, blobs),
        "vcpus": guest.vcpus,
        "swap_pages": guest.swap_pages,
        "quantum": guest.quantum,
        "prezero": guest.prezero,
        "kernel_map": guest.kernel_map,
        "mutants": frozenset(guest.mutants),
        "quirks": guest.quirks.on(guest.tree),
    }


def uses_disk(guest: Guest) -> bool:
    """Machine code and files are on a disk, which the host process of the guest has open."""
    elf = any(is_elf(process.program) for process in guest.process)
    return bool(elf or guest.programs or guest.file)


def programs_of(guest: Guest, blobs: Mapping[str, bytes]) -> list[Program | ElfProgram]:
    programs: list[Program | ElfProgram] = [names.check_workload(spec) for spec in guest.workloads]
    for process in guest.process:
        elf = is_elf(process.program)
        programs.append(elf_program(process, blobs) if elf else program_of(process))
    return programs


def program_of(process: Process) -> Program:
    """The program, after system calls that map its regions."""
    start = Asm()
    for region in process.region:
        prot = PROT_READ | (PROT_WRITE if "w" in region.prot else 0)
        size = size_bytes(region.size)
        start.call(Sys.MMAP, region.start, size, prot, MAP_ANON | MAP_FIXED)
    text = names.check_program(process.program, start.insns)
    return Program(process.name, text, size_bytes(process.data) // PAGE_SIZE)

"""A guest with a defect, run on the real host under the oracle."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

from vkprotocol import messages as msg
from vkprotocol.effects import curthread
from vkprotocol.insn import Mem
from vkprotocol.mman import MADV_INVAL
from vkprotocol.param import PAGE_SIZE

from vkemu.executors.controlled import Execution
from vkemu.launch.outcome import FAILURES, headline
from vkemu.mutation.places import Guest
from vkemu.oracle import DEFAULT_CHECKS, Oracle
from vkguest.kern.param import DATA_ADDRESS
from vkguest.kernel import Vkernel
from vkguest.vkernel64.port import MailboxPort, Port
from vkguest.workloads import workload
from vkhost.config import HostConfig
from vkhost.kern.proc import proc_create
from vkhost.kern.syscall import proc_start
from vkhost.kernel import Kernel
from vkhost.vm.vnode import MemoryVnode

NOBODY: Final = -1
Window = Callable[[msg.AnyRequest, msg.AnyRequest | None], bool]


def _ops(request: msg.AnyRequest | None) -> list[tuple[Mem, int]]:
    return [(op.op, op.a) for op in request.ops] if isinstance(request, msg.CpuOps) else []


def clean_before_inval(request: msg.AnyRequest, before: msg.AnyRequest | None) -> bool:
    """pmap_clean_pte has cleared RW of a data page; its INVAL comes next."""
    return (
        isinstance(request, msg.VmspaceMcontrol)
        and request.behav == MADV_INVAL
        and DATA_ADDRESS <= request.addr < DATA_ADDRESS + 3 * PAGE_SIZE
        and any(op is Mem.CMPSET for op, _ in _ops(before))
    )


def load_before_zero(request: msg.AnyRequest, before: msg.AnyRequest | None) -> bool:
    """A VPTE has been read, and 0 is to be stored there."""
    earlier = _ops(before)
    return _ops(request) == [(Mem.STORE, 0)] and len(earlier) == 1 and earlier[0][0] is Mem.LOAD


HOLDS: Final[dict[str, Window]] = {
    "clean-before-inval": clean_before_inval,
    "load-before-zero": load_before_zero,
}


class Schedule:
    """At random; but a guest's page daemon that is about to make a request in the window is
    stopped there for up to HOLD_STEPS steps, or until nobody else can run."""

    def __init__(self, seed: int, hold: str) -> None:
        self.random = Random(seed)
        self.window = HOLDS.get(hold)
        self.stopped = NOBODY
        self.left = 0
        self.last = NOBODY

    def __call__(self, runnable: list[int]) -> int:
        others = [tid for tid in runnable if tid != self.stopped]
        self.left -= 1
        if not others or self.left < 0:
            self.stopped = NOBODY
            others = runnable
        sticky = 0.8
        if self.last not in others or self.random.random() > sticky:
            self.last = self.random.choice(others)
        return self.last

    def stop(self) -> None:
        self.stopped = curthread().tid
        hold_steps = 2000
        self.left = self.random.randrange(hold_steps)


class WatchedPort:
    """Tells the schedule when its vCPU comes to the window."""

    def __init__(self, schedule: Schedule, guests: list[Vkernel], inner: Port) -> None:
        self.schedule = schedule
        self.guests = guests
        self.inner = inner
        self.before: msg.AnyRequest | None = None

    async def call(self, request: msg.AnyRequest) -> msg.Reply:
        window = self.schedule.window
        # No process on the vCPU: it runs the page daemon.
        if (
            window is not None
            and self.guests
            and not self.guests[0].cpus[request.lwp].curproc.value
            and window(request, self.before)
        ):
            self.schedule.stop()
        self.before = request
        return await self.inner.call(request)


def run_guest(place: Guest, mutant: str) -> tuple[str, str]:
    """(verdict, what went wrong) over SEEDS seeds; the first that fails is enough."""
    seeds = 16
    for seed in range(seeds if mutant else seeds // 4):
        said = _once(place, mutant, Schedule(seed, place.hold))
        if said:
            return "fail", said
    return "pass", ""


def _once(place: Guest, mutant: str, schedule: Schedule) -> str:
    execution = Execution()
    oracle = Oracle(DEFAULT_CHECKS if place.checks is None else place.checks)
    kernel = Kernel(HostConfig(pages=400, cpus=place.vcpus), "pv_entry", execution.spawn, oracle)
    kernel.start()
    guest = _boot(place, mutant, kernel, schedule)
    max_steps = 400_000
    try:
        execution.run(schedule, max_steps)
        oracle.finish()
    except FAILURES as error:
        return headline(error)
    finally:
        execution.close()
    if guest.failed:
        return str(guest.failed[0])
    return ""


def _boot(place: Guest, mutant: str, kernel: Kernel, schedule: Schedule) -> Vkernel:
    from vkemu.launch.scenario import size_bytes

    pages = place.guest_pages or size_bytes(place.memory) // PAGE_SIZE
    proc = proc_create(kernel, "guest", MemoryVnode("guest", pages * PAGE_SIZE), place.vcpus)
    assert proc is not None
    guests: list[Vkernel] = []
    options: dict[str, Any] = {"free_target": place.free_target} if place.free_target else {}
    ports = [
        WatchedPort(schedule, guests, MailboxPort(lwp.requests, lwp.replies)) for lwp in proc.lwps
    ]
    guest = Vkernel(
        ports.__getitem__, memory_pages=pages, programs=list(map(workload, place.workloads)),
        spawn=kernel.spawn, emit=kernel.emit, name="guest", proc=proc.pid, vcpus=place.vcpus,
        swap_pages=place.swap_pages, mutants=frozenset({mutant} if mutant else ()), **options,
    )  # fmt: skip
    guests.append(guest)
    proc_start(proc)
    guest.start()
    return guest

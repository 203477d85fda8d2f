"""Guests on the real host kernel, in process, with the oracle watching."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from vkemu.executors.controlled import Execution
from vkemu.oracle import DEFAULT_CHECKS, Oracle
from vkprotocol.param import PAGE_SIZE

from vkguest.kern.kern_exec import Program
from vkguest.kernel import Vkernel
from vkguest.vkernel64.port import MailboxPort, Port
from vkguest.workloads import workload
from vkhost.config import HostConfig
from vkhost.kern.proc import proc_create
from vkhost.kern.syscall import proc_start
from vkhost.kernel import Kernel
from vkhost.vm.vnode_pager import MemoryVnode

Choose = Callable[[list[int]], int]
STEPS = 2_000_000


class HostRun:
    """A host and its guests, up to the end of the run or to what stopped it (`error`)."""

    def __init__(
        self, specs: Iterable[str], *, policy: str = "pv_entry", guests: int = 1, pages: int = 64,
        vcpus: int = 1, host_pages: int = 512, checks: Iterable[str] = DEFAULT_CHECKS,
        port: Callable[[HostRun, Port], Port] = lambda run, inner: inner,
        programs: Sequence[Program] = (), **options: Any,
    ) -> None:  # fmt: skip
        self.execution = Execution()
        self.oracle = Oracle(checks)
        self.events: list[tuple[Any, ...]] = []
        self.steps = 0
        self.error: BaseException | None = None
        self.host = Kernel(
            HostConfig(pages=host_pages, cpus=vcpus * guests), policy, self.execution.spawn,
            self.emit,
        )  # fmt: skip
        self.host.start()
        self.guests: list[Vkernel] = []
        for number in range(guests):
            name = f"vk{number}"
            image = MemoryVnode(name, pages * PAGE_SIZE)
            proc = proc_create(self.host, name, image, vcpus)
            assert proc is not None
            ports = [port(self, MailboxPort(lwp.requests, lwp.replies)) for lwp in proc.lwps]
            vkernel = Vkernel(
                ports.__getitem__, memory_pages=pages, programs=[*map(workload, specs), *programs],
                spawn=self.execution.spawn, emit=self.emit, name=name, proc=proc.pid, vcpus=vcpus,
                **options,
            )  # fmt: skip
            proc_start(proc)
            vkernel.start()
            self.guests.append(vkernel)

    def emit(self, name: str, /, *fields: Any) -> None:
        if name.startswith(("guest.", "console")):
            self.events.append((name, *fields))
        self.oracle(name, *fields)

    @property
    def failed(self) -> list[tuple[Any, ...]]:
        return [failure for guest in self.guests for failure in guest.failed]

    def run(self, choose: Choose) -> HostRun:
        def counted(runnable: list[int]) -> int:
            self.steps += 1
            return choose(runnable)

        try:
            self.execution.run(counted, STEPS)
            self.oracle.finish()
        except Exception as error:
            self.error = error
        finally:
            self.execution.close()
        return self


def at_random(seed: int, sticky: float = 0.0) -> Choose:
    """A random thread; the same one again with probability `sticky`."""
    random = Random(seed)
    last = [-1]

    def choose(runnable: list[int]) -> int:
        if last[0] not in runnable or random.random() >= sticky:
            last[0] = random.choice(runnable)
        return last[0]

    return choose


def on_host(specs: Iterable[str], *, seed: int = 0, sticky: float = 0.0, **options: Any) -> HostRun:
    return HostRun(specs, **options).run(at_random(seed, sticky))

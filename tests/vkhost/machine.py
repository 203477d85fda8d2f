"""A host in a controlled execution, driven step by step or by a seed. Every run is checked:
guarded fields, lock order and, on request, footprints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

from vkemu.executors.controlled import Execution
from vkprotocol.effects import CURTHREAD, Body, Thread

from vkhost.config import HostConfig
from vkhost.kernel import Kernel
from vkhost.pc64.cpu import Cpu
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.vm.vm import KERN_FAILURE, VM_MAPTYPE_NORMAL, VM_MAPTYPE_VPAGETABLE, VM_PROT_ALL
from vkhost.vm.vm_map import VmMapBacking
from vkhost.vm.vm_object import OBJT_DEFAULT, VmObject, vm_object_allocate
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_alloc import VM_ALLOC_NORMAL, vm_page_alloc
from vkhost.vm.vm_page_busy import vm_page_wakeup

Event = tuple[Any, ...]
# pmap_enter and the extent scan want an entry; nothing here looks inside.
ENTRY: Any = SimpleNamespace()
# Few frames, and no threshold in the way.
SMALL: dict[str, Any] = {
    "pages": 8, "cpus": 2, "pageout": False, "emergency": False, "ipi_threads": False,
    "fault_workers": False, "free_min": 1, "free_reserved": 1, "free_severe": 1,
    "interrupt_free_min": 0, "free_target": 2, "cache_min": 0, "swap_pages": 4,
}  # fmt: skip


class Machine:
    """`events` is what the kernel emitted so far."""

    def __init__(
        self, policy: str = "pv_entry", *, mutants: tuple[str, ...] = (), **config: Any
    ) -> None:
        self.ex = Execution()
        self.ex.checking = True
        self.events: list[Event] = []
        self.kernel = Kernel(
            HostConfig(**{**SMALL, **config}),
            policy,
            self.ex.spawn,
            emit=lambda *event: self.events.append(event),
            mutants=frozenset(mutants),
        )
        self.kernel.start()

    # Running.

    def spawn(self, name: str, body: Body) -> Thread:
        thread = self.ex.spawn(name, body)
        self._raise()
        return thread

    def _raise(self) -> None:
        if self.ex.failed is not None:
            assert self.ex.failed.error is not None
            raise self.ex.failed.error

    def step(self, thread: Thread) -> list[Event]:
        """One step of a runnable thread; the events of it."""
        seen = len(self.events)
        assert thread.runnable, f"{thread} cannot run"
        self.ex.step(thread.tid)
        CURTHREAD[0] = None  # what a test does between steps is set-up code
        self._raise()
        return self.events[seen:]

    def until(self, thread: Thread, name: str, *fields: Any) -> Event:
        """Step `thread` until it emits an event that begins like that."""
        wanted = (name, *fields)
        for _ in range(1000):
            for event in self.step(thread):
                if event[: len(wanted)] == wanted:
                    return event
        raise AssertionError(f"{thread.name} never did {wanted}")

    def blocked(self, thread: Thread) -> None:
        """Step `thread` until it has to wait for somebody."""
        while thread.runnable:
            self.step(thread)
        assert not thread.done, f"{thread.name} did not block"

    def finish(self, *threads: Thread) -> None:
        """Run these threads, each to its end."""
        for thread in threads:
            while not thread.done:
                self.step(thread)

    def run(self, seed: int | None = None, max_steps: int = 20_000) -> None:
        """Run everything: in order, or at random."""
        if seed is None:
            self.ex.run(lambda runnable: runnable[0], max_steps)
        else:
            self.ex.run(Random(seed).choice, max_steps)
        CURTHREAD[0] = None

    def do(self, body: Body) -> Any:
        """Run one more thread to its end, alone; what it returned."""
        returned: list[Any] = []

        async def thread() -> None:
            returned.append(await body)

        self.finish(self.spawn("do", thread()))
        return returned[0]

    # Setting up.

    def pmap(self, name: str = "p") -> Pmap:
        return Pmap(self.kernel, name, name)

    def object(self, size: int = 8) -> VmObject:
        return vm_object_allocate(self.kernel, OBJT_DEFAULT, size)

    def page(self, obj: VmObject, pindex: int, *, busy: bool = True) -> VmPage:
        """A new valid page of the object."""

        async def body() -> VmPage:
            async with obj.token:
                m = await vm_page_alloc(obj, pindex, VM_ALLOC_NORMAL)
            assert m is not None
            m.valid = 0xFF
            if not busy:
                await vm_page_wakeup(m)
            return m

        m: VmPage = self.do(body())
        return m

    def backing(
        self, pmap: Pmap, obj: VmObject, start: int, pages: int = 8, *, vpagetable: bool = False
    ) -> None:
        """Map the object linearly from byte address `start` on, as far as the scan knows."""
        kind = VM_MAPTYPE_VPAGETABLE if vpagetable else VM_MAPTYPE_NORMAL
        obj.backing_list.append(VmMapBacking(pmap, kind, start, start + pages * 4096, obj, 0))

    def enter(self, pmap: Pmap, va: int, m: VmPage, prot: int = VM_PROT_ALL) -> None:
        self.do(pmap_enter(pmap, va, m, prot, False, ENTRY))

    def run_on(self, cpu: int, pmap: Pmap) -> Cpu:
        """Put the CPU on the pmap, with faults that nobody can resolve."""
        from vkhost.pc64.pmap_switch import swtch_in

        vmspace = SimpleNamespace(pmap=pmap, vm_map=SimpleNamespace(pmap=pmap))
        lwp: Any = SimpleNamespace(cpu=self.kernel.cpus[cpu], vmspace=vmspace)
        if "vm_fault" not in vars(self.kernel):
            self.resolve(_cannot)
        self.do(swtch_in(lwp))
        found: Cpu = lwp.cpu
        return found

    def resolve(self, vm_fault: Callable[[Any, int, int, int], Awaitable[int]]) -> None:
        """Have faults resolved by this instead of vm_fault. It performs no writes itself."""

        async def resolve(vm_map: Any, va: int, kind: int, flags: int, write: Any = None) -> int:
            return await vm_fault(vm_map, va, kind, flags)

        vars(self.kernel)["vm_fault"] = resolve

    def flags(self, m: VmPage) -> int:
        flags: int = m.flags.value
        return flags


async def _cannot(vm_map: Any, va: int, fault_type: int, fault_flags: int) -> int:
    return KERN_FAILURE


def every_schedule(build: Callable[[], Machine], limit: int = 50_000) -> Iterator[Machine]:
    """Each way the runnable threads of a program can take turns, to its end."""
    path: list[list[int]] = []  # [choice, choices]
    for _ in range(limit):
        machine = build()
        depth = 0

        def choose(runnable: list[int]) -> int:
            nonlocal depth
            if depth == len(path):
                path.append([0, len(runnable)])
            choice = path[depth][0]
            depth += 1
            return runnable[choice]

        machine.ex.run(choose, 10_000)
        yield machine
        del path[depth:]
        while path and path[-1][0] == path[-1][1] - 1:
            path.pop()
        if not path:
            return
        path[-1][0] += 1
    raise AssertionError(f"more than {limit} schedules")

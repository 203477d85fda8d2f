"""A guest on the fake host under the controlled executor, and what it must look like at rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from vkemu.executors.controlled import Execution
from vkprotocol.effects import CURTHREAD
from vkprotocol.messages import AnyRequest, Reply
from vkprotocol.param import SEG_SHIFT
from vkprotocol.vpte import VPTE_PAGE_ENTRIES, VPTE_PS, VPTE_V, vpte_frame

from tests.vkguest.fake_host import WORDS, FakeHost
from vkguest.kern.param import FIRST_FREE_FRAME
from vkguest.kernel import Vkernel
from vkguest.vkernel64.port import Port
from vkguest.vkernel64.pv import pte_slot
from vkguest.vm.vm_page import PQ_ACTIVE, PQ_FREE, PQ_INACTIVE
from vkguest.vm.vmspace import Vmspace
from vkguest.workloads import workload

Event = tuple[str, tuple[Any, ...]]
STEPS = 2_000_000


@dataclass
class Run:
    """A guest that has come to its end, or to where `steps` stopped it."""

    vkernel: Vkernel
    host: FakeHost
    steps: int = 0
    events: list[Event] = field(default_factory=list)

    @property
    def console(self) -> list[str]:
        return [fields[0] for name, fields in self.events if name == "console"]

    @property
    def outcomes(self) -> dict[int, tuple[str, int]]:
        return {pid: (r.comm, r.status) for pid, r in sorted(self.vkernel.results.items())}


class RecordingPort:
    """A port that writes down what is asked."""

    def __init__(self, port: Port, requests: list[AnyRequest]) -> None:
        self.port = port
        self.requests = requests

    async def call(self, request: AnyRequest) -> Reply:
        self.requests.append(request)
        return await self.port.call(request)


def on_fake(
    specs: Iterable[str],
    *,
    seed: int = 0,
    pages: int = 64,
    vpagetable: bool = True,
    requests: list[AnyRequest] | None = None,
    after_step: Callable[[Run], None] | None = None,
    **options: Any,
) -> Run:
    """Run the workloads `specs` on a FakeHost, scheduled at random from `seed`."""
    execution = Execution()
    execution.checking = True
    host = FakeHost(pages, vpagetable)
    events: list[Event] = []

    def port(cpuid: int) -> Port:
        inner = host.port(cpuid, execution.spawn)
        return inner if requests is None else RecordingPort(inner, requests)

    vkernel = Vkernel(
        port,
        memory_pages=pages,
        programs=[workload(spec) for spec in specs],
        spawn=execution.spawn,
        emit=lambda name, *fields: events.append((name, fields)),
        **options,
    )
    run = Run(vkernel, host, events=events)
    vkernel.start()
    random = Random(seed)

    def choose(runnable: list[int]) -> int:
        run.steps += 1
        if after_step is not None:
            CURTHREAD[0] = None  # the test itself may look at everything
            after_step(run)
        return random.choice(runnable)

    try:
        execution.run(choose, STEPS)
    finally:
        execution.close()
        CURTHREAD[0] = None
    return run


def assert_all_returned(run: Run) -> None:
    """Every frame but the cached roots, the programs' text and what is shared by number is free,
    and so is all of swap."""
    vkernel = run.vkernel
    vpq = vkernel.vm_page_queues
    kept = [*vkernel.text_objects.values(), *vkernel.shm.values()]
    all_kept = sum(len(obj.pages) + len(obj.swap) for obj in kept)
    in_core = sum(len(obj.pages) for obj in kept)
    roots = sum(vm.pmap.pm_pdirm is not None for vm in vkernel.vmspaces.free)

    assert vkernel.vmspaces.made == len(vkernel.vmspaces.free)
    assert run.host.vmspaces == {}
    assert len(vpq.pages) == len(vpq.free) + roots + in_core
    assert len(vkernel.swap.free) + all_kept - in_core == swap_slots(vkernel)
    assert all(m.queue == PQ_FREE for m in map(vpq.pages.__getitem__, vpq.free))


def swap_slots(vkernel: Vkernel) -> int:
    return vkernel.memory_pages - FIRST_FREE_FRAME - len(vkernel.vm_page_queues.pages)


def translations(host: FakeHost, vm: Vmspace) -> dict[int, int]:
    """va -> VPTE of every valid 4 KB translation, read from memory from the root down."""
    root = vm.pmap.pm_pdirm
    assert root is not None
    found: dict[int, int] = {}

    def descend(frame: int, base: int, shift: int) -> None:
        for index in range(VPTE_PAGE_ENTRIES):
            vpte = host.ram[frame * WORDS + index]
            va = base + (index << shift)
            if not vpte & VPTE_V:
                continue
            if shift == SEG_SHIFT - 9:
                found[va] = vpte
            elif not vpte & VPTE_PS:
                descend(vpte_frame(vpte), va, shift - 9)

    descend(root.frame, 0, 39)
    return found


def assert_pmap_consistent(run: Run, vm: Vmspace) -> None:
    """The pv lists say what the tables say. Only true while nobody has pm_pteobj."""
    pmap = vm.pmap
    pages = run.vkernel.vm_page_queues.pages
    tables = translations(run.host, vm)

    assert {va: vpte_frame(vpte) for va, vpte in tables.items()} == {
        va: next(f for f, m in pages.items() if pv in m.pv_list) for va, pv in pmap.pvs.items()
    }
    for pv in pmap.pvs.values():
        assert pmap.pt_pages[pv.va >> SEG_SHIFT] is pv.ptem
        assert pv.ptep == pte_slot(pv.ptem.frame, pv.va >> 12)
    assert pmap.resident_count == len(pmap.pvs)


def assert_daemon_finds(run: Run) -> None:
    """Of an object, not wired and let go of: it is on a queue, or no frame of it is ever free."""
    for m in run.vkernel.vm_page_queues.pages.values():
        if m.object is not None and not m.wire_count and m.busy.state is None:
            assert m.queue in (PQ_ACTIVE, PQ_INACTIVE), m


def check_pmaps_every(steps: int) -> Callable[[Run], None]:
    """An after_step that looks now and then, at pmaps that nobody is changing."""

    def after_step(run: Run) -> None:
        if run.steps % steps:
            return
        assert_daemon_finds(run)
        for proc in run.vkernel.allproc:
            pmap = proc.vmspace.pmap
            spins = [m.spin for m in run.vkernel.vm_page_queues.pages.values()]
            if pmap.pm_pteobj.state is None and all(s.state is None for s in spins):
                assert_pmap_consistent(run, proc.vmspace)

    return after_step

"""The host kernel, assembled: machine, VM, reverse map and daemons. DragonFly kern/init_main.c."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from vkprotocol.effects import Spawn, curthread

from vkhost.config import HostConfig
from vkhost.fault_injection import FaultInjection, InjectedFault
from vkhost.pc64.cpu import Cpu
from vkhost.pc64.fault_worker import fault_worker
from vkhost.pc64.physmem import PhysMem
from vkhost.pc64.pmap_inval import inval_intr
from vkhost.quirks import Quirks
from vkhost.rmap import make_rmap, tree_of
from vkhost.vm.swap_pager import SwapPager
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_meter import VmMeter, boot_thresholds
from vkhost.vm.vm_page import VmPageArray
from vkhost.vm.vm_page_queue import PQ_FREE, VmPageQueues, Vmstats
from vkhost.vm.vm_pageout import vm_pageout_thread
from vkhost.vm.vm_pageout_wakeup import Pagedaemon

if TYPE_CHECKING:
    from vkhost.kern.lwp import Proc
    from vkhost.pc64.cpu_access import Write
    from vkhost.pc64.pmap import Pmap
    from vkhost.vm.vm_map import VmMap
    from vkhost.vm.vm_object import VmObject


class Emit(Protocol):
    """Consumer of the events of vkprotocol.events."""

    def __call__(self, name: str, /, *fields: Any) -> None: ...


def _unheard(name: str, /, *fields: Any) -> None:
    pass


class Kernel:
    """One host. Everything the host's threads share hangs off it; no module keeps state.

    `policy` names the reverse map (`rmap.POLICIES`), `mutants` the deliberate defects
    (`mutants.py`), `faults` what goes wrong around it.
    """

    def __init__(
        self,
        config: HostConfig,
        policy: str,
        spawn: Spawn,
        emit: Emit = _unheard,
        quirks: Quirks | None = None,
        mutants: frozenset[str] = frozenset(),
        faults: Sequence[InjectedFault] = (),
    ) -> None:
        self.config = config
        self.policy = policy
        self.spawn = spawn
        self.emit = emit
        self.tree = config.tree or tree_of(policy)
        self.quirks = (quirks or Quirks()).on(self.tree)
        self.mutants = mutants
        self.injection = FaultInjection(self, faults) if faults else None
        self.goes_on = False  # for ever, guests coming and going: nothing may be kept of any
        # Told of what a dead process has leaked, in place of the panic it is.
        self.on_leak: Callable[[Proc, str], None] | None = None
        self.vmstats = Vmstats()
        self.queues = VmPageQueues(config.pqcolors, self.vmstats)
        self.vmmeter = VmMeter(config.pages, boot_thresholds(config), self.vmstats)
        self.pagedaemon = Pagedaemon()
        self.physmem = PhysMem(config.pages)
        self.pages = VmPageArray(self)
        self.swap = SwapPager(self, config.swap_pages)
        self.pmaps: dict[int | str, Pmap] = {}
        self.objects: dict[int | str, VmObject] = {}
        self.procs: list[Proc] = []
        self.mycpu: dict[int, Cpu] = {}  # tid -> the CPU a thread runs on, if on any
        self.rmap = make_rmap(self, policy)
        self.cpus = [Cpu(self, cpuid) for cpuid in range(config.cpus)]
        self._free_all_frames()

    def _free_all_frames(self) -> None:
        """vm_page_startup."""
        pages, colors = self.config.pages, self.config.pqcolors
        for color in range(min(colors, pages)):
            self.queues.of(PQ_FREE, color).fill(self.pages, range(color, pages, colors))
        self.vmstats.v_free_count.state = pages

    def start(self) -> None:
        """Spawn the daemons the configuration asks for."""
        for cpu in self.cpus:
            if self.config.ipi_threads:
                self.spawn(f"ipi{cpu.id}", inval_intr(cpu), daemon=True)
            if self.config.fault_workers:
                self.start_worker(cpu)
        if self.config.pageout:
            self.spawn("pagedaemon", vm_pageout_thread(self), daemon=True)
            if self.config.emergency:
                self.spawn("emergpager", vm_pageout_thread(self, emergency=True), daemon=True)

    def cpus_of(self, mask: int) -> list[Cpu]:
        """In order: a bit at a time, for most of many CPUs are in no mask."""
        found = []
        mask &= (1 << len(self.cpus)) - 1  # no lock bit
        while mask:
            lowest = mask & -mask
            found.append(self.cpus[lowest.bit_length() - 1])
            mask ^= lowest
        return found

    def start_worker(self, cpu: Cpu) -> None:
        cpu.worker = self.spawn(f"fault{cpu.id}", fault_worker(cpu), daemon=True)

    async def vm_fault(
        self,
        vm_map: VmMap,
        va: int,
        fault_type: int,
        fault_flags: int,
        write: Write | None = None,
    ) -> int:
        """vm_fault.c:vm_fault, whichever the kernel was built with (a litmus may replace it)."""
        return await vm_fault(vm_map, va, fault_type, fault_flags, write)

    def curcpu(self) -> Cpu | None:
        """The CPU of the running thread; None for a daemon that is not bound to one."""
        return self.mycpu.get(curthread().tid)

    def bind(self, tid: int, cpu: Cpu) -> None:
        """Thread `tid` runs on `cpu` from now on."""
        self.mycpu[tid] = cpu

    def unbind(self, tid: int) -> None:
        """It has ended."""
        self.mycpu.pop(tid, None)

    async def fault(self, cpu: Cpu, vm_map: VmMap, va: int, fault_type: int) -> int:
        """A page fault of the thread running on `cpu`, in address space `vm_map`; KERN_* result."""
        return await cpu.take_fault(vm_map, va, fault_type)

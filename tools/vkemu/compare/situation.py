"""A kernel in a given situation, made by kernel calls; and what an operation on it counts.

As the machine of a litmus test, but of any size: so many vkernels, each with so many guest
processes (vmspaces) of so many pages, and one page, the hot one, that is mapped `mappings` times
in the first process. Everything is resident and mapped; nobody else runs during the operation.

Under nested paging what is mapped through VPTEs is mapped in the second stage once, and as often as
the guest likes in the TLBs of the CPUs that run it: those are warm, up to what a real one holds. A
full flush costs what it drops beside what it was for, in loads of the walks that bring it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec
from vkprotocol.effects import CURTHREAD, Body, Thread
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_RW, VPTE_U, VPTE_V

from vkemu.compare.costs import TLB_ENTRIES
from vkemu.executors.controlled import Execution
from vkemu.litmus.tables import MASTER_PDE, Tables
from vkhost.config import HostConfig
from vkhost.kern.lwp import Lwp, Proc
from vkhost.kernel import Kernel
from vkhost.pc64.cpu import Cpu
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.pc64.pmap_switch import swtch_in
from vkhost.vm.vm import (
    KERN_SUCCESS,
    VM_MAPTYPE_NORMAL,
    VM_MAPTYPE_VPAGETABLE,
    VM_PROT_ALL,
    VM_PROT_NONE,
    VM_PROT_READ,
)
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_map import VmMapEntry, vm_map_find
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_object import VmObject, vm_object_reference
from vkhost.vm.vm_page import VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_alloc import VM_ALLOC_NORMAL, vm_page_alloc
from vkhost.vm.vm_page_busy import vm_page_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_protect
from vkhost.vm.vmspace import Vmspace, vmspace_alloc
from vkhost.vm.vnode import Vnode
from vkhost.vm.vnode_pager import vnode_pager_alloc

DMAP: Final = 0x100_0000_0000
LEAF: Final = VPTE_V | VPTE_RW | VPTE_U | VPTE_A | VPTE_M
LEVELS: Final = 4
STAGE_LOADS: Final = LEVELS
NESTED_LOADS: Final = (LEVELS + 1) * (LEVELS + 1) - 1
EVENTS: Final = {
    "tlb.flush": "flushes", "ipi.send": "ipis", "fault.begin": "exits", "inval.begin": "exits",
    "fault.retry": "retries", "pte.write": "written", "ilock.wait": "waits",
}  # fmt: skip


class Shape(msgspec.Struct, frozen=True):
    """How big a situation is. `faulted`: translations come by vm_fault, walk included, and not by
    the shorter way of pmap_enter, which only a policy that follows walks can tell. `cold`: no TLB
    has any of them."""

    guests: int = 1
    vmspaces: int = 1
    vcpus: int = 1
    pages: int = 64
    mappings: int = 1
    faulted: bool = False
    cold: bool = False


class Guest:
    """A vkernel: its image, with page tables in it, and the vmspaces of its processes."""

    def __init__(self, kernel: Kernel, number: int, shape: Shape) -> None:
        self.kernel = kernel
        self.shape = shape
        base = 100 * number + 100
        tables = -(-shape.pages // 512) + 5
        self.first_page = tables  # of the data
        size = tables + shape.pages * shape.vmspaces
        vnode = Vnode(f"image{number}", size * PAGE_SIZE)  # all is resident: nobody reads it
        self.own = vmspace_alloc(kernel, f"vkernel{number}", pmap_id=base)
        self.proc = Proc(kernel, base, f"vkernel{number}", self.own)
        self.vmspaces = [
            vmspace_alloc(kernel, f"guest{number}.{i}", self.proc, pmap_id=f"{base}.{i}")
            for i in range(shape.vmspaces)
        ]
        self.image: VmObject
        self.vnode = vnode
        self.size = size
        self.pages: list[VmPage] = []
        self.tables = Tables(tables)

    async def set_up(self) -> None:
        self.image = await vnode_pager_alloc(self.kernel, self.vnode)
        await self._map(self.own, DMAP, self.size * PAGE_SIZE, VM_MAPTYPE_NORMAL)
        for i in range(self.shape.pages):
            self.tables.enter(i * PAGE_SIZE, (self.first_page + i) << 12 | LEAF)
        for i in range(1, self.shape.mappings):
            self.tables.enter(self.alias(i), self.first_page << 12 | LEAF)
        for pindex, words in self.tables.words.items():
            m = await self._page(pindex)
            for idx, word in words.items():
                m.frame.words[idx] = word
        self.pages = [
            await self._page(self.first_page + i)
            for i in range(self.shape.pages * self.shape.vmspaces)
        ]
        for i, vmspace in enumerate(self.vmspaces):
            await self._map(vmspace, 0, VM_MAX_USER_ADDRESS, VM_MAPTYPE_VPAGETABLE)
            await vm_map_madvise(vmspace.vm_map, 0, VM_MAX_USER_ADDRESS, MADV_SETMAP, MASTER_PDE)
            await self.fill(i)

    def alias(self, i: int) -> int:
        hot_va = 1 << 21  # the other VAs of the hot page, a table of their own
        return max(hot_va, -(-self.shape.pages // 512) << 21) + i * PAGE_SIZE

    async def fill(self, i: int) -> None:
        """Map every page of process i: of its own, though all show the same tables."""
        vmspace, count = self.vmspaces[i], self.shape.pages
        pages = self.pages[i * count : (i + 1) * count]
        at = {j * PAGE_SIZE: m for j, m in enumerate(pages)}
        if i == 0:
            at |= {self.alias(j): pages[0] for j in range(1, self.shape.mappings)}
        entry = vmspace.vm_map.entries[0]
        if self.kernel.rmap.walks:
            await self._fill_second_stage(vmspace, pages)
            return
        for va, m in at.items():
            if self.shape.faulted:
                assert await vm_fault(vmspace.vm_map, va, VM_PROT_READ) == KERN_SUCCESS
            else:
                await self._enter(vmspace, entry, va, m)

    async def _fill_second_stage(self, vmspace: Vmspace, pages: list[VmPage]) -> None:
        assert await vm_fault(vmspace.vm_map, 0, VM_PROT_READ) == KERN_SUCCESS
        roots = vmspace.pmap.roots
        assert roots is not None
        ept = roots.state[0].ept
        tables = [self.image.memq[pindex] for pindex in self.tables.words]
        for m in tables + pages:
            await self._enter(ept, ept.vm_map.entries[0], m.pindex << 12, m)

    async def _enter(self, vmspace: Vmspace, entry: VmMapEntry, va: int, m: VmPage) -> None:
        """F16 and F17 of vm_fault."""
        await vm_page_busy_wait(m, "fill")
        await self.kernel.rmap.mapped_through_vpte(m)
        wired = bool(entry.wired_count)
        await pmap_enter(vmspace.pmap, va, m, VM_PROT_ALL, wired, entry)
        await vm_page_wakeup(m)

    async def _map(self, vmspace: Vmspace, start: int, size: int, maptype: int) -> None:
        await vm_object_reference(self.image)
        result, _ = await vm_map_find(
            vmspace.vm_map, self.image, 0, start, size, PAGE_SIZE, False, maptype,
            VM_PROT_ALL, VM_PROT_ALL, 0,
        )  # fmt: skip
        assert result == KERN_SUCCESS

    async def _page(self, pindex: int) -> VmPage:
        async with self.image.token:
            m = await vm_page_alloc(self.image, pindex, VM_ALLOC_NORMAL)
        assert m is not None
        m.valid = VM_PAGE_BITS_ALL
        await vm_page_wakeup(m)
        return m


class Situation:
    """The kernel, and counters that `counted` reads."""

    def __init__(self, policy: str, shape: Shape) -> None:
        self.shape = shape
        self.events: Counter[str] = Counter()
        self.steps = 0
        self.loads = 0  # of page tables by hardware
        self._walking = False
        each = shape.pages * shape.vmspaces + -(-shape.pages // 512) + 5
        spare = 16
        pages = each * shape.guests + spare
        config = HostConfig(
            pages=pages, cpus=shape.vcpus + 1, pageout=False, emergency=False, ipi_threads=False,
            fault_workers=False, free_min=2, free_reserved=1, free_severe=1, free_target=4,
            cache_min=0, interrupt_free_min=0, inactive_target=0,
        )  # fmt: skip
        self.kernel = Kernel(config, policy, _nobody, self._emit)
        self.guests = [Guest(self.kernel, i, shape) for i in range(shape.guests)]
        for guest in self.guests:
            self.do(guest.set_up())
        for i in range(shape.vcpus):
            self._run_on(i, self.guests[0].vmspaces[0])
        self._run_on(shape.vcpus, self.guests[0].own)
        if self.kernel.rmap.walks and not shape.cold:
            for cpu in self.kernel.cpus[: shape.vcpus]:
                self.do(self._warm(cpu))

    def _emit(self, name: str, /, *fields: Any) -> None:
        self.events[name] += 1
        if name == "walk.begin":
            self._walking = True
        elif name == "walk.end":
            self._walking = False
            self.steps -= 1
            self.loads += STAGE_LOADS
        elif name == "vpte.read" and self._walking and fields[0] >= 0:
            self.steps -= 1  # the hardware's
            self.loads += STAGE_LOADS + 1
        elif name == "tlb.fill" and not self._walking:
            self.loads += STAGE_LOADS

    async def _warm(self, cpu: Cpu) -> None:
        """What the CPU's TLB holds of the process it runs."""
        guest = self.guests[0]
        vas = [i * PAGE_SIZE for i in range(self.shape.pages)]
        vas += [guest.alias(i) for i in range(1, self.shape.mappings)]
        for va in vas[: max(TLB_ENTRIES, self.shape.mappings)]:
            await cpu.load(va)

    def _run_on(self, i: int, vmspace: Vmspace) -> Cpu:
        guest = self.guests[0]
        lwp = Lwp(guest.proc, i, self.kernel.cpus[i])
        lwp.vmspace = vmspace
        guest.proc.lwps.append(lwp)
        self.do(swtch_in(lwp))
        return self.kernel.cpus[i]

    @property
    def vkernel_cpu(self) -> Cpu:
        """The one that runs the first vkernel's own code."""
        return self.kernel.cpus[self.shape.vcpus]

    def do(self, body: Body) -> Any:
        """Run it alone, to its end, counting its steps."""
        thread = Thread(-1, "compare", body)
        before, CURTHREAD[0] = CURTHREAD[0], thread
        try:
            effect = body.send(None)  # type: ignore[arg-type]
            while True:
                assert effect.guard is None or effect.guard(effect.obj.state), f"blocks: {effect!r}"
                self.steps += 1
                effect = body.send(thread)
        except StopIteration as stop:
            return stop.value
        finally:
            CURTHREAD[0] = before

    def cached(self) -> int:
        """What the CPUs that run the first process have in their TLBs."""
        return sum(len(cpu.tlb.entries()) for cpu in self.kernel.cpus[: self.shape.vcpus])

    def resident(self) -> int:
        """Translations made through VPTEs that there are."""
        if self.kernel.rmap.walks:
            return len(self.kernel.cpus[0].tlb.entries())
        return sum(v.pmap.resident_count for g in self.guests for v in g.vmspaces)

    def counted(self, operation: Callable[[], Any], *, asked: int) -> dict[str, int]:
        """What an operation counts. `asked`: the translations that it was meant to take away; of
        those some may be `left`."""
        rmap = self.kernel.rmap
        events, steps, visited = self.events.copy(), self.steps, rmap.visited
        resident = self.resident()
        loads, cached = self.loads, self.cached()
        operation()
        counts = dict.fromkeys(EVENTS.values(), 0)
        for event, name in EVENTS.items():
            counts[name] += self.events[event] - events[event]
        counts["steps"] = self.steps - steps
        counts["visited"] = rmap.visited - visited
        gone = resident - self.resident()
        counts["refaults"] = max(0, gone - asked)
        counts["left"] = max(0, asked - max(0, gone))
        counts["loads"] = self.loads - loads
        if self.kernel.rmap.walks:  # nothing is faulted in again, but all that is used is walked
            counts["refaults"] = 0
            lost = max(0, cached - self.cached() - asked * self.shape.vcpus)
            counts["loads"] += NESTED_LOADS * lost
        counts["rmap_bytes"] = rmap.bytes
        counts["pinned"] = self.kernel.vmstats.v_wire_count.state
        return counts

    # The operations.

    async def reclaim(self, count: int = 1) -> None:
        """pmap_remove_all of the first pages, as the pageout daemon asks for it."""
        for m in self.guests[0].pages[:count]:
            await vm_page_busy_wait(m, "compare")
            if not await m.wire_count.load():  # or the daemon has passed it by
                await vm_page_protect(m, VM_PROT_NONE)
            await vm_page_wakeup(m)

    async def touch(self, pages: int) -> None:
        for i in range(pages):
            await self.kernel.cpus[0].load(i * PAGE_SIZE)

    async def inval(self, pages: int) -> None:
        vm_map = self.guests[0].vmspaces[0].vm_map
        await vm_map_madvise(vm_map, 0, pages * PAGE_SIZE, MADV_INVAL)

    async def edit(self, count: int) -> None:
        """The guest kernel clears `count` VPTEs through its DMAP, then INVALs the range."""
        guest = self.guests[0]
        for i in range(count):
            table, slot = guest.tables.slot(i * PAGE_SIZE)
            await self.vkernel_cpu.swap(DMAP + table * PAGE_SIZE + slot * 8, 0)
        await self.inval(count)

    def race(self, invals: int) -> None:
        """A process touches 32 pages it has not used yet, while its kernel INVALs `invals` others
        of its pages: at random, the same each time."""
        execution = Execution()
        guest = self.guests[0]
        vm_map = guest.vmspaces[0].vm_map
        count = self.shape.pages
        racing = 32
        self.do(self.inval(racing))  # so that they are not mapped yet

        async def touch() -> None:
            for i in range(racing):
                await self.kernel.cpus[0].load(i * PAGE_SIZE)

        async def inval() -> None:
            for i in range(invals):
                va = (racing + i % (count - racing)) * PAGE_SIZE
                await vm_map_madvise(vm_map, va, va + PAGE_SIZE, MADV_INVAL)

        for name, cpu, body in (
            ("user", self.kernel.cpus[0], touch()),
            ("kern", self.vkernel_cpu, inval()),
        ):
            self.kernel.bind(execution.spawn(name, body).tid, cpu)
        draw = Random(1).choice

        def choose(runnable: list[int]) -> int:
            self.steps += 1
            return draw(runnable)

        max_steps = 1_000_000
        execution.run(choose, max_steps)
        execution.close()


def _nobody(name: str, coro: Body, *, daemon: bool = False) -> Thread:
    raise AssertionError(f"no thread {name} in a situation")

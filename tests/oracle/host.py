"""A small host for tests: a vkernel process, its memory image, guest vmspaces, and the oracle.

The set-up runs before any other thread, through the real calls, so the oracle sees it all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any

from vkemu.executors.controlled import Execution
from vkemu.oracle import DEFAULT_CHECKS, Oracle
from vkprotocol.effects import CURTHREAD, Body, Thread
from vkprotocol.events import validate
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP
from vkprotocol.param import PAGE_SIZE
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_RW, VPTE_U, VPTE_V

from vkhost.config import HostConfig
from vkhost.kern.lwp import Lwp, Proc
from vkhost.kernel import Kernel
from vkhost.pc64.cpu import Cpu
from vkhost.pc64.pmap_switch import swtch_in
from vkhost.quirks import Quirks
from vkhost.vm.vm import (
    KERN_SUCCESS,
    VM_INHERIT_SHARE,
    VM_MAPTYPE_NORMAL,
    VM_MAPTYPE_VPAGETABLE,
    VM_PROT_ALL,
)
from vkhost.vm.vm_map import vm_map_find
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_map_protect import vm_map_inherit
from vkhost.vm.vm_object import VmObject, vm_object_reference
from vkhost.vm.vmspace import Vmspace, vmspace_alloc
from vkhost.vm.vnode import MemoryVnode
from vkhost.vm.vnode_pager import vnode_pager_alloc

DMAP = 1 << 30
SPAN = 1 << 21  # what a guest maps: one leaf table's worth
LEAF_BITS = VPTE_V | VPTE_RW | VPTE_U | VPTE_A
TABLE_BITS = LEAF_BITS | VPTE_M
CHECKED = 3  # events of each name whose fields are checked in a run
Event = tuple[str, str, tuple[Any, ...]]


def drive(coro: Body) -> Any:
    """Run a coroutine alone: nobody else exists yet, so nothing can block it."""
    thread = Thread(-1, "set-up", coro)
    before, CURTHREAD[0] = CURTHREAD[0], thread
    try:
        effect = coro.send(None)  # type: ignore[arg-type]
        while True:
            assert effect.guard is None or effect.guard(effect.obj.state), f"blocks: {effect!r}"
            effect = coro.send(thread)
    except StopIteration as stop:
        return stop.value
    finally:
        CURTHREAD[0] = before


class Guest:
    """A vkernel process with its image; page tables from `first_table` on, one guest vmspace.

    Pages below `data` are tables: root, PDP, PD, leaf. The guest page `i` of va `i * 4096` is
    image page `data + i` unless said otherwise.
    """

    data = 4

    def __init__(self, host: Host, pid: int, pages: int) -> None:
        self.host = host
        kernel = host.kernel
        self.pages = pages
        self.vnode = MemoryVnode(f"image{pid}", pages * PAGE_SIZE)
        self.own = vmspace_alloc(kernel, f"vkernel{pid}", pmap_id=pid)
        self.proc = Proc(kernel, pid, f"vkernel{pid}", self.own)
        self.own.vm_map.proc = self.proc
        kernel.procs.append(self.proc)
        kernel.emit("proc.create", pid, pid)
        self.vmspace = vmspace_alloc(kernel, f"guest{pid}", self.proc, pmap_id=pid + 1)
        kernel.emit("vmspace.create", pid, 1, pid + 1)
        self.image: VmObject = drive(vnode_pager_alloc(kernel, self.vnode))
        self.map(self.vmspace, 0, SPAN, VM_MAPTYPE_VPAGETABLE)
        self.map(self.own, DMAP, pages * PAGE_SIZE, VM_MAPTYPE_NORMAL)
        for level in range(3):
            self.poke(level, 0, (level + 1) << 12 | TABLE_BITS)

    def map(self, vmspace: Vmspace, start: int, size: int, maptype: int) -> None:
        async def go() -> None:
            await vm_object_reference(self.image)
            result, _ = await vm_map_find(
                vmspace.vm_map, self.image, 0, start, size, PAGE_SIZE, False, maptype,
                VM_PROT_ALL, VM_PROT_ALL, 0,
            )  # fmt: skip
            assert result == KERN_SUCCESS
            await vm_map_inherit(vmspace.vm_map, start, start + size, VM_INHERIT_SHARE)

        drive(go())

    def poke(self, pindex: int, idx: int, value: int) -> None:
        """The image file before anything is resident."""
        self.vnode.pwrite(pindex * PAGE_SIZE + idx * 8, value.to_bytes(8, "little"))

    def vpte(self, i: int, pindex: int | None = None, bits: int = LEAF_BITS) -> None:
        page = self.data + i if pindex is None else pindex
        self.poke(3, i, page << 12 | bits)

    def setmap(self) -> None:
        drive(vm_map_madvise(self.vmspace.vm_map, 0, SPAN, MADV_SETMAP, TABLE_BITS))

    def lwp(self, cpu: int, *, user: bool) -> Cpu:
        """A thread of the vkernel on a CPU: in the guest vmspace, or in its own."""
        real = self.host.kernel.cpus[cpu]
        lwp = Lwp(self.proc, cpu, real)
        lwp.vmspace = self.vmspace if user else self.own
        self.proc.lwps.append(lwp)
        drive(swtch_in(lwp))
        return real

    async def inval(self, start: int, end: int) -> None:
        await vm_map_madvise(self.vmspace.vm_map, start, end, MADV_INVAL)

    @staticmethod
    def dmap(pindex: int, idx: int = 0) -> int:
        return DMAP + pindex * PAGE_SIZE + idx * 8


class Host:
    """An execution with a kernel and an oracle."""

    def __init__(
        self,
        policy: str = "pv_entry",
        mutants: Iterable[str] = (),
        checks: Iterable[str] = (*DEFAULT_CHECKS, "content"),
        quirks: Quirks | None = None,
        **config: Any,
    ) -> None:
        self.execution = Execution()
        self.oracle = Oracle(checks)
        self.events: list[Event] = []
        self.counts: Counter[str] = Counter()
        settings = {"pageout": False, "emergency": False, "pages": 40, "free_min": 4} | config
        self.kernel = Kernel(
            HostConfig(**settings), policy, self.execution.spawn, self.emit, quirks,
            frozenset(mutants),
        )  # fmt: skip
        self.guests: list[Guest] = []

    def emit(self, name: str, /, *args: Any) -> None:
        if self.counts[name] < CHECKED:
            self.counts[name] += 1
            wrong = validate(name, args)
            assert wrong is None, wrong
        self.events.append((self.oracle.actor(), name, args))
        self.oracle(name, *args)

    def guest(self, pid: int = 100, pages: int = 32) -> Guest:
        guest = Guest(self, pid, pages)
        self.guests.append(guest)
        return guest

    def on(self, name: str, cpu: Cpu, coro: Body) -> Thread:
        thread = self.execution.spawn(name, coro)
        self.kernel.bind(thread.tid, cpu)
        return thread

    def run(self, seed: int = 0, max_steps: int = 200_000) -> None:
        draw = Random(seed).random
        self.execution.run(lambda tids: tids[int(draw() * len(tids))], max_steps)
        self.oracle.finish()

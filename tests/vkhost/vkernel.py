"""A host with one vkernel process: its memory image, page tables in it, and its lwps."""

from __future__ import annotations

import struct
from collections.abc import Coroutine
from typing import Any

from vkprotocol.effects import CURTHREAD, Thread
from vkprotocol.messages import Reply, Request
from vkprotocol.mman import MAP_FIXED, MAP_SHARED, MAP_VPAGETABLE
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS
from vkprotocol.vpte import VPTE_RW, VPTE_U, VPTE_V

from tests.vkhost.machine import Event, Machine
from vkhost.kern.lwp import Lwp, Proc
from vkhost.kern.proc import proc_create
from vkhost.kern.syscall import proc_start
from vkhost.pc64.pmap_bits import pte_prot
from vkhost.quirks import Quirks
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_mmap import kern_mmap
from vkhost.vm.vmspace import Vmspace
from vkhost.vm.vnode import MemoryVnode

FD = 3
RWX = 7
R = VPTE_V | VPTE_U
RW = R | VPTE_RW
ROOT = 1  # frame of the first table; the PML4, PDP, PD and PT are frames 1-4
DMAP = 0x100_0000_0000


class Vkernel(Machine):
    """`proc` is the vkernel; `own` its address space. Its threads do not run unless `start`ed."""

    def __init__(
        self,
        policy: str = "vptmapped",
        *,
        image_pages: int = 64,
        vcpus: int = 2,
        quirks: Quirks | None = None,
        mutants: tuple[str, ...] = (),
        **config: Any,
    ) -> None:
        super().__init__(policy, mutants=mutants, **{"pages": 64, "cpus": vcpus, **config})
        if quirks is not None:
            self.kernel.quirks = quirks.on(self.kernel.tree)
        self.vnode = MemoryVnode("image", image_pages * PAGE_SIZE)
        proc = proc_create(self.kernel, "vkernel", self.vnode, vcpus)
        assert proc is not None
        self.proc: Proc = proc
        self.own: Vmspace = proc.p_vmspace

    # The image as it is in the file: to be written before a page of it is resident.

    def put(self, frame: int, idx: int, value: int) -> None:
        at = frame * PAGE_SIZE + idx * 8
        self.vnode.content[at : at + 8] = struct.pack("<Q", value)

    def word(self, frame: int, idx: int = 0) -> int:
        """A word of the image: resident or in the file."""
        obj = self.vnode.object
        m = None if obj is None else obj.memq.get(frame)
        if m is not None and m.valid:
            return m.frame.words[idx]
        at = frame * PAGE_SIZE + idx * 8
        value: int = struct.unpack("<Q", self.vnode.content[at : at + 8])[0]
        return value

    def tables(self, vptes: dict[int, int], root: int = ROOT) -> int:
        """Tables in frames root .. root+3 that map page numbers < 512; the master pde."""
        for level in range(3):
            self.put(root + level, 0, root + level + 1 << 12 | RW)
        for vpn, vpte in vptes.items():
            self.put(root + 3, vpn, vpte)
        return root << 12 | RW

    # Mapping and faulting.

    def vpagetable(
        self,
        pde: int | None,
        *,
        vmspace: Vmspace | None = None,
        start: int = 0,
        size: int = VM_MAX_USER_ADDRESS,
        flags: int = MAP_SHARED,
        prot: int = RWX,
    ) -> Vmspace:
        vmspace = vmspace or self.own
        self.mmap(vmspace, start, size, flags | MAP_VPAGETABLE, prot=prot)
        if pde is not None:
            assert self.do(vm_map_madvise(vmspace.vm_map, start, start + size, 11, pde)) == 0
        return vmspace

    def mmap(
        self,
        vmspace: Vmspace,
        start: int,
        size: int,
        flags: int,
        *,
        prot: int = RWX,
        offset: int = 0,
    ) -> None:
        found = self.do(
            kern_mmap(vmspace, self.proc, start, size, prot, flags | MAP_FIXED, FD, offset)
        )
        assert found == (0, start)

    def fault(self, va: int, kind: int, vmspace: Vmspace | None = None, flags: int = 0) -> int:
        result: int = self.do(vm_fault((vmspace or self.own).vm_map, va, kind, flags))
        return result

    def pte(self, va: int, vmspace: Vmspace | None = None) -> int:
        pte: int = (vmspace or self.own).pmap.pte(va).state
        return pte

    def mapped(self, va: int, vmspace: Vmspace | None = None) -> tuple[int, int] | None:
        """(page index in its object, protection) of what is mapped at va."""
        pte = self.pte(va, vmspace)
        if not pte:
            return None
        return self.kernel.pages[(pte & 0xF_FFFF_FFFF_F000) >> 12].pindex, pte_prot(pte)

    # Events.

    def named(self, *names: str) -> list[Event]:
        return [event for event in self.events if event[0] in names]

    # System calls.

    @property
    def lwp(self) -> Lwp:
        return self.proc.lwps[0]

    def start(self) -> None:
        """Let the lwps serve requests; then use `call`."""
        proc_start(self.proc)

    def call(self, request: Request) -> Reply:
        """One system call of the lwp named in it, with nobody else running."""
        lwp = self.proc.lwps[request.lwp]
        reply: Reply = self.do(_call(lwp, request))
        assert (reply.lwp, reply.seq) == (request.lwp, request.seq)
        return reply

    def do(self, body: Coroutine[Any, Any, Any]) -> Any:
        """Run `body` to its end; while it waits for somebody, everybody in turn."""
        returned: list[Any] = []

        async def thread() -> None:
            returned.append(await body)

        thread_ = self.spawn("do", thread())
        turn = 0
        while not thread_.done:
            ready = thread_.runnable
            if not ready and not self.ex.runnable:
                assert self.ex.advance(), self.ex.deadlock()
            turn += 1
            self.ex.step(thread_.tid if ready else self.ex.runnable[turn % len(self.ex.runnable)])
            CURTHREAD[0] = None  # the test itself is no kernel thread, and may look at anything
            if self.ex.failed is not None:
                assert self.ex.failed.error is not None
                raise self.ex.failed.error
        return returned[0]

    def step(self, thread: Thread) -> list[Event]:
        try:
            return super().step(thread)
        finally:
            CURTHREAD[0] = None


async def _call(lwp: Lwp, request: Request) -> Reply:
    await lwp.requests.send(request)
    reply: Reply = await lwp.replies.recv()
    return reply

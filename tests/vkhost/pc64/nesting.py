"""A vkernel on policy `nested`, or another to compare with: a process on one CPU, its kernel on the
other, and the host's page daemon by hand. The oracle listens."""

from __future__ import annotations

from typing import Any

from vkemu.oracle import Oracle
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP
from vkprotocol.vpte import VPTE_A, VPTE_M

from tests.vkhost.vkernel import DMAP, ROOT, RW, Vkernel
from vkhost.kern.lwp import Lwp
from vkhost.pc64.cpu import Cpu, Fault
from vkhost.pc64.pmap_switch import swtch_in
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_object_page import vm_object_page_clean, vm_object_page_remove
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_busy import vm_page_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_protect
from vkhost.vm.vm_pageout_clean import OBJPC_SYNC
from vkhost.vm.vmspace import Vmspace, vmspace_alloc

PAGE = 4096
RWM = RW | VPTE_M | VPTE_A
OTHER_ROOT = 5  # frames 5-8: the tables of another process
DATA = 10
SPACE = 1 << 30


async def accessed(access: Any) -> int | None:
    """What an access gave; None: T_PAGEFLT."""
    try:
        value = await access
    except Fault:
        return None
    return 0 if value is None else int(value)


class Guest:
    """A vkernel whose first CPU runs a process, and whose second runs the vkernel itself."""

    def __init__(self, policy: str = "nested", vptes: dict[int, int] | None = None) -> None:
        self.k = k = Vkernel(policy, image_pages=32)
        oracle, heard = Oracle(), k.events

        def emit(name: str, /, *fields: Any) -> None:
            heard.append((name, *fields))
            oracle(name, *fields)

        for name, *fields in list(heard):
            oracle(name, *fields)
        k.kernel.emit = emit
        pde = k.tables({} if vptes is None else vptes)
        k.tables({1: DATA << 12 | RWM}, OTHER_ROOT)
        k.mmap(k.own, DMAP, 32 * PAGE, 0x1)
        self.vmspace = self.process("process", pde)
        self.user = self.run(0, self.vmspace)
        self.kern = self.run(1, k.own)

    def process(self, name: str, pde: int) -> Vmspace:
        vmspace = vmspace_alloc(self.k.kernel, name, self.k.proc)
        return self.k.vpagetable(pde, vmspace=vmspace, size=SPACE)

    def run(self, i: int, vmspace: Vmspace) -> Cpu:
        cpu = self.k.kernel.cpus[i]
        lwp = Lwp(self.k.proc, 10 + i, cpu)
        lwp.vmspace = vmspace
        self.k.do(swtch_in(lwp))
        return cpu

    # The process.

    def load(self, va: int) -> int | None:
        return self._access(self.user.load(va))

    def store(self, va: int, value: int) -> int | None:
        return self._access(self.user.store(va, value))

    def _access(self, access: Any) -> int | None:
        value: int | None = self.k.do(accessed(access))
        return value

    # The vkernel.

    def dload(self, frame: int, idx: int = 0) -> int:
        return int(self.k.do(self.kern.load(DMAP + frame * PAGE + idx * 8)))

    def dstore(self, frame: int, idx: int, value: int) -> None:
        self.k.do(self.kern.store(DMAP + frame * PAGE + idx * 8, value))

    def inval(self, va: int, pages: int = 1) -> None:
        self.k.do(vm_map_madvise(self.vmspace.vm_map, va, va + pages * PAGE, MADV_INVAL))

    def setmap(self, pde: int) -> None:
        self.k.do(vm_map_madvise(self.vmspace.vm_map, 0, SPACE, MADV_SETMAP, pde))

    # The host.

    def page(self, frame: int) -> VmPage | None:
        obj = self.k.vnode.object
        return None if obj is None else obj.memq.get(frame)

    def protect(self, frame: int, prot: int) -> None:
        m = self.page(frame)
        if m is not None:
            self.k.do(vm_page_busy_wait(m, "test"))
            self.k.do(vm_page_protect(m, prot))
            self.k.do(vm_page_wakeup(m))

    def page_out(self, frame: int) -> None:
        """Written to the file, and gone: its next use brings it in from there."""
        obj = self.k.vnode.object
        if obj is not None:
            self.k.do(vm_object_page_clean(obj, frame, frame + 1, OBJPC_SYNC))
            self.k.do(vm_object_page_remove(obj, frame, frame + 1, clean_only=True))

    def second(self, frame: int) -> int:
        """The second-stage PTE of a frame."""
        roots = self.vmspace.pmap.roots
        assert roots is not None
        pte: int = roots.state[0].ept.pmap.pte(frame * PAGE).state
        return pte

    def leaf(self, vpn: int) -> int:
        return self.k.word(ROOT + 3, vpn)

    def cached(self, cpu: int = 0) -> int:
        return len(self.k.kernel.cpus[cpu].tlb.entries())

    def walks(self) -> list[str]:
        return [event[4] for event in self.k.named("walk.end")]

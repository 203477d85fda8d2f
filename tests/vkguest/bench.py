"""One booted guest on the fake host, whose functions are called one by one and written down.

In what is written down, `0` and `V|RW|...` without the V are swaps or stores of a VPTE, `?` is a
load, `-RW|M` a compare-and-set that clears, `&~A` and `|M` are atomic, `INVAL offset+bytes` is
relative to the page under test.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field

from vkemu.executors.controlled import Execution
from vkprotocol import messages as msg
from vkprotocol.effects import CURTHREAD
from vkprotocol.insn import Mem, MemOp
from vkprotocol.mman import MADV_INVAL, PROT_READ, PROT_WRITE
from vkprotocol.param import (
    KERNEL_KVA_START,
)
from vkprotocol.vpte import vpte_text

from tests.vkguest.fake_host import FakeHost
from tests.vkguest.rig import RecordingPort
from vkguest.kern.param import phys_to_dmap
from vkguest.kernel import Vkernel
from vkguest.vkernel64.globaldata import GlobalData
from vkguest.vkernel64.init import boot
from vkguest.vkernel64.pmap import pmap_enter
from vkguest.vkernel64.pmap_inval import cpu_invlpg, cpu_invltlb
from vkguest.vm.vm_page import VM_ALLOC_NORMAL, VmPage, vm_page_alloc
from vkguest.vm.vmspace import Vmspace, vmspace_alloc

VA = 0x40_0000
RW = PROT_READ | PROT_WRITE
INVAL = "INVAL 0+4096"
# What pmap_enter sets: A is preset, M is not.
RW_VPTE = "RW|U|A|MANAGED"
RO_VPTE = "U|A|MANAGED"


@dataclass
class Bench:
    """A booted guest whose pmap functions are called one by one."""

    mutants: frozenset[str] = frozenset()
    vcpus: int = 1
    requests: list[msg.AnyRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.execution = Execution()
        self.execution.checking = True
        self.host = FakeHost(64)
        self.vkernel = Vkernel(
            lambda cpuid: RecordingPort(self.host.port(cpuid, self.execution.spawn), self.requests),
            memory_pages=64,
            programs=[],
            spawn=self.execution.spawn,
            mutants=self.mutants,
            vcpus=self.vcpus,
        )
        self.gd = self.vkernel.cpus[0]
        self.run(boot(self.gd))

    def run(self, body: Awaitable[object]) -> list[str]:
        """What `body` asked of the host, in order."""
        self.requests.clear()
        result: list[object] = []

        async def main() -> None:
            result.append(await body)

        self.execution.spawn("main", main())
        self.execution.run(lambda runnable: runnable[0], 10_000)
        CURTHREAD[0] = None  # the test itself may look at everything
        self.result = result[0]
        return self.trace()

    def trace(self) -> list[str]:
        lines: list[str] = []
        for request in self.requests:
            if isinstance(request, msg.CpuOps):
                lines += [op_text(op) for op in request.ops]
            elif (
                isinstance(request, msg.VmspaceMcontrol | msg.Madvise)
                and request.behav == MADV_INVAL
            ):
                user = isinstance(request, msg.VmspaceMcontrol)
                lines.append(
                    inval_text(request.addr - (VA if user else KERNEL_KVA_START), request.length)
                )
            else:
                lines.append(type(request).__name__)
        return lines

    def vmspace(self) -> Vmspace:
        self.run(vmspace_alloc(self.gd))
        assert isinstance(self.result, Vmspace)
        return self.result

    def page(self) -> VmPage:
        self.run(vm_page_alloc(self.gd, None, 0, VM_ALLOC_NORMAL, "test"))
        assert isinstance(self.result, VmPage)
        return self.result

    def mapped(self, prot: int = RW, bits: int = 0) -> tuple[Vmspace, VmPage]:
        """A page mapped at VA, with `bits` set by the host since."""
        vm, m = self.vmspace(), self.page()
        self.run(pmap_enter(self.gd, vm.pmap, VA, m, prot))
        self.host.ram[self.slot(vm)] |= bits
        return vm, m

    def slot(self, vm: Vmspace) -> int:
        """Index in the host's memory of the VPTE of VA."""
        return (vm.pmap.pvs[VA].ptep - phys_to_dmap(0)) // 8


def inval_text(offset: int, length: int) -> str:
    return f"INVAL {offset}+{length}"


def op_text(op: MemOp) -> str:
    match op.op:
        case Mem.LOAD:
            return "?"
        case Mem.CMPSET:
            return "-" + bits_text(op.a & ~op.b)
        case Mem.ANDN:
            return "&~" + bits_text(op.a)
        case Mem.OR:
            return "|" + bits_text(op.a)
        case Mem.ZERO:
            return "zero"
        case _:
            return bits_text(op.a)


def bits_text(vpte: int) -> str:
    text = vpte_text(vpte).partition(" ")[2].partition(" ")[2]
    return text.removeprefix("V|")


async def kva_functions(gd: GlobalData, name: str) -> None:
    kva = gd.kernel.kva
    va = KERNEL_KVA_START
    calls = {
        "kenter": lambda: kva.pmap_kenter(gd, va, 30),
        "kenter_noinval": lambda: kva.pmap_kenter_noinval(gd, va, 30),
        "kremove": lambda: kva.pmap_kremove(gd, va),
        "kremove_noinval": lambda: kva.pmap_kremove_noinval(gd, va),
        "qenter": lambda: kva.pmap_qenter(gd, va, [30, 31, 32]),
        "qenter_noinval": lambda: kva.pmap_qenter_noinval(gd, va, [30, 31]),
        "qremove": lambda: kva.pmap_qremove(gd, va, 3),
        "invlpg": lambda: cpu_invlpg(gd, va),
        "invltlb": lambda: cpu_invltlb(gd),
    }
    await calls[name]()

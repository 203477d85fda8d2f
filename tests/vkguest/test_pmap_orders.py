"""The orders of facts 5.1 and 5.2, as the host sees them: every edit, every INVAL, nothing else.

`0`, `V|RW|...` are swaps or stores of a VPTE, `?` a load, `-RW|M` a compare-and-set that clears,
`&~A` an atomic clear, `INVAL first+bytes` relative to the page
under test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from vkemu.controlled import Execution
from vkprotocol import messages as msg
from vkprotocol.insn import Mem, MemOp
from vkprotocol.mman import MADV_INVAL, PROT_NONE, PROT_READ, PROT_WRITE
from vkprotocol.param import (
    KERNEL_KVA_SIZE,
    KERNEL_KVA_START,
    PAGE_SIZE,
    SEG_SIZE,
    VM_MAX_USER_ADDRESS,
)
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_RW, vpte_text

from tests.vkguest.fake_host import WORDS, FakeHost
from tests.vkguest.rig import RecordingPort
from vkguest.errors import GuestPanic
from vkguest.globaldata import GlobalData
from vkguest.init import boot
from vkguest.kernel import Vkernel
from vkguest.pmap import (
    pmap_enter,
    pmap_enter_large,
    pmap_extract,
    pmap_protect,
    pmap_remove,
    pmap_remove_pages,
)
from vkguest.pmap_inval import cpu_invlpg, cpu_invltlb
from vkguest.pmap_page import (
    pmap_clear_modify,
    pmap_clear_reference,
    pmap_clearbit,
    pmap_is_modified,
    pmap_page_protect,
    pmap_remove_all,
    pmap_remove_specific,
    pmap_ts_referenced,
)
from vkguest.pmap_table import pmap_release
from vkguest.vm_kern import vtopte
from vkguest.vm_page import VM_ALLOC_NORMAL, VmPage, vm_page_alloc, vm_page_free
from vkguest.vmspace import Vmspace, vmspace_alloc, vmspace_terminate

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
        return vm.pmap.pvs[VA].ptem.frame * WORDS + (VA >> 12) % 512


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


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_enter_is_zero_inval_new_without_inval(bench: Bench) -> None:
    vm, m = bench.mapped()
    other = bench.page()
    at = VA + PAGE_SIZE

    trace = bench.run(pmap_enter(bench.gd, vm.pmap, at, other, RW))

    assert trace == ["0", "INVAL 4096+4096", RW_VPTE]
    assert m.pv_list == [vm.pmap.pvs[VA]]


def test_the_first_enter_links_zeroed_tables_from_the_root_down(bench: Bench) -> None:
    vm, m = bench.vmspace(), bench.page()
    table = ["zero", "RW|U|A|M|WIRED"]

    trace = bench.run(pmap_enter(bench.gd, vm.pmap, VA, m, PROT_READ))

    assert trace == [*table, *table, *table, "0", INVAL, RO_VPTE]


def test_entering_the_same_page_again_does_all_of_it(bench: Bench) -> None:
    vm, m = bench.mapped(PROT_READ, VPTE_M)

    assert bench.run(pmap_enter(bench.gd, vm.pmap, VA, m, RW)) == ["0", INVAL, RW_VPTE]
    assert m.dirty
    assert vm.pmap.resident_count == 1
    assert len(m.pv_list) == 1


def test_enter_over_another_page_hands_its_bits_over(bench: Bench) -> None:
    vm, old = bench.mapped(RW, VPTE_M)
    new = bench.page()

    assert bench.run(pmap_enter(bench.gd, vm.pmap, VA, new, RW)) == ["0", INVAL, RW_VPTE]
    assert old.dirty
    assert old.pv_list == []
    assert not new.dirty


@pytest.mark.parametrize("remove", ["range", "page", "pmap", "pages"])
def test_every_way_to_remove_is_one_loadandclear(bench: Bench, remove: str) -> None:
    vm, m = bench.mapped(RW, VPTE_M)
    gd, pmap = bench.gd, vm.pmap
    ways: dict[str, tuple[Awaitable[object], int]] = {
        "range": (pmap_remove(gd, pmap, VA, VA + PAGE_SIZE), 1),
        "page": (pmap_remove_all(gd, m), 0),
        "pmap": (pmap_remove_specific(gd, pmap, m), 0),
        "pages": (pmap_remove_pages(gd, pmap), 1),
    }
    body, loads = ways.pop(remove)
    for other, _ in ways.values():
        other.close()  # type: ignore[attr-defined]

    assert bench.run(body) == ["?"] * loads + ["0", INVAL]
    assert m.dirty
    assert m.pv_list == []
    assert pmap.pvs == {}


def test_a_vpte_that_is_zero_gets_no_inval(bench: Bench) -> None:
    vm, _ = bench.mapped()

    trace = bench.run(pmap_remove(bench.gd, vm.pmap, VA + PAGE_SIZE, VA + 4 * PAGE_SIZE))

    assert trace == ["?", "?", "?"]


def test_a_range_without_a_table_costs_nothing(bench: Bench) -> None:
    vm, _ = bench.mapped()

    trace = bench.run(pmap_remove(bench.gd, vm.pmap, 4 << 30, (4 << 30) + SEG_SIZE))

    assert trace == []


def test_protect_cleans_and_clears_a_without_inval(bench: Bench) -> None:
    vm, m = bench.mapped(RW, VPTE_M)

    trace = bench.run(pmap_protect(bench.gd, vm.pmap, VA, VA + PAGE_SIZE, PROT_READ))

    assert trace == ["?", "?", "-RW|M", INVAL, "&~A"]
    assert m.dirty


def test_cleaning_what_is_read_only_already_sends_no_inval(bench: Bench) -> None:
    vm, _ = bench.mapped(PROT_READ)

    trace = bench.run(pmap_protect(bench.gd, vm.pmap, VA, VA + PAGE_SIZE, PROT_READ))

    assert trace == ["?", "?", "-0", "&~A"]


def test_protect_to_nothing_removes_and_to_write_does_nothing(bench: Bench) -> None:
    vm, _ = bench.mapped()

    assert bench.run(pmap_protect(bench.gd, vm.pmap, VA, VA + PAGE_SIZE, RW)) == []
    trace = bench.run(pmap_protect(bench.gd, vm.pmap, VA, VA + PAGE_SIZE, PROT_NONE))
    assert trace == ["?", "0", INVAL]


@pytest.mark.parametrize("function", [pmap_clear_modify, None])
def test_clear_modify_goes_by_rw(bench: Bench, function: Callable[..., Awaitable[None]]) -> None:
    _, m = bench.mapped(RW, VPTE_M)
    body = pmap_page_protect(bench.gd, m, PROT_READ) if function is None else function(bench.gd, m)

    assert bench.run(body) == ["?", "?", "-RW|M", INVAL]
    assert m.dirty


def test_clearbit_of_m_needs_an_inval_if_writable(bench: Bench) -> None:
    _, m = bench.mapped(RW, VPTE_M)

    assert bench.run(pmap_clearbit(bench.gd, m, VPTE_M)) == ["?", "&~M", INVAL]


def test_the_accessed_bit_goes_without_an_inval(bench: Bench) -> None:
    _, m = bench.mapped()
    steps = [
        (bench.run(function(bench.gd, m)), bench.result)
        for function in (pmap_ts_referenced, pmap_ts_referenced, pmap_clear_reference)
    ]

    assert steps == [(["?", "&~A"], 1), (["?"], 0), (["?"], None)]


def test_is_modified_looks_at_every_vpte(bench: Bench) -> None:
    _, m = bench.mapped()
    assert bench.run(pmap_is_modified(bench.gd, m)) == ["?"]
    assert bench.result is False


def test_extract(bench: Bench) -> None:
    vm, m = bench.mapped()

    bench.run(pmap_extract(bench.gd, vm.pmap, VA))
    assert bench.result == m.frame
    bench.run(pmap_extract(bench.gd, vm.pmap, VA + PAGE_SIZE))
    assert bench.result is None


def test_wiring_is_counted_and_not_told_the_host(bench: Bench) -> None:
    vm, m = bench.mapped()

    trace = bench.run(pmap_enter(bench.gd, vm.pmap, VA, m, RW, wired=True))

    assert trace == ["0", INVAL, "RW|U|A|WIRED|MANAGED"]
    assert vm.pmap.wired_count == 1
    bench.run(pmap_remove(bench.gd, vm.pmap, VA, VA + PAGE_SIZE))
    assert vm.pmap.wired_count == 0


@pytest.mark.parametrize(("mutant", "start"), [(None, 0x3000), ("round-pde-inval", 0)])
def test_a_ps_entry_goes_by_an_unrounded_inval(mutant: str | None, start: int) -> None:
    bench = Bench(frozenset({mutant} if mutant else ()))
    vm = bench.vmspace()
    bench.run(pmap_enter_large(bench.gd, vm.pmap, VA, 20, RW))
    assert bench.trace()[-1] == "RW|U|A|PS|WIRED"

    trace = bench.run(pmap_remove(bench.gd, vm.pmap, VA + 3 * PAGE_SIZE, VA + 5 * PAGE_SIZE))

    assert trace == ["?", "0", inval_text(start, SEG_SIZE)]


def test_an_inval_near_the_top_is_refused_and_nobody_looks(bench: Bench) -> None:
    top = VM_MAX_USER_ADDRESS - SEG_SIZE
    vm = bench.vmspace()
    bench.run(pmap_enter_large(bench.gd, vm.pmap, top, 20, RW))
    before = bench.host.counts.get("inval", 0)

    trace = bench.run(pmap_remove(bench.gd, vm.pmap, top + PAGE_SIZE, VM_MAX_USER_ADDRESS))

    assert trace[-1].startswith("INVAL")
    assert bench.host.counts.get("inval", 0) == before


def test_the_mend_of_it_panics() -> None:
    bench = Bench(frozenset({"check-inval"}))
    top = VM_MAX_USER_ADDRESS - SEG_SIZE
    vm = bench.vmspace()
    bench.run(pmap_enter_large(bench.gd, vm.pmap, top, 20, RW))

    with pytest.raises(GuestPanic, match="refused: EINVAL"):
        bench.run(pmap_remove(bench.gd, vm.pmap, top + PAGE_SIZE, VM_MAX_USER_ADDRESS))


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


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("kenter", ["0", INVAL, "RW|U"]),
        ("kenter_noinval", ["RW|U"]),
        ("kremove", ["0", "0", INVAL]),
        ("kremove_noinval", ["0"]),
        ("qenter", ["RW|U", "RW|U", "RW|U", "INVAL 0+12288"]),
        ("qenter_noinval", ["RW|U", "RW|U"]),
        ("qremove", ["0", "0", "0", "INVAL 0+12288"]),
        ("invlpg", [INVAL]),
        ("invltlb", [f"INVAL 0+{KERNEL_KVA_SIZE}"]),
    ],
)
def test_kernel_mappings(bench: Bench, name: str, order: list[str]) -> None:
    assert bench.run(kva_functions(bench.gd, name)) == order


def test_kernel_vptes_are_in_the_one_page_table(bench: Bench) -> None:
    bench.run(kva_functions(bench.gd, "kenter"))
    (op,) = (op for r in bench.requests if isinstance(r, msg.CpuOps) for op in r.ops if op.a)

    assert op.va == vtopte(KERNEL_KVA_START)
    with pytest.raises(AssertionError, match="vtopte"):
        vtopte(KERNEL_KVA_START + SEG_SIZE)


def test_a_pmap_is_released_from_the_leaves_up_without_an_inval(bench: Bench) -> None:
    vm, _ = bench.mapped()
    bench.run(pmap_remove(bench.gd, vm.pmap, VA, VA + PAGE_SIZE))

    assert bench.run(pmap_release(bench.gd, vm.pmap)) == ["0", "0", "zero"]
    assert vm.pmap.pt_pages == {}
    assert vm.pmap.pm_pdirm is not None


def test_a_vmspace_dies_unmapped_first_destroyed_then(bench: Bench) -> None:
    vm, m = bench.mapped()

    trace = bench.run(vmspace_terminate(bench.gd, vm))

    assert trace[:4] == ["?", "0", INVAL, "VmspaceDestroy"]
    assert m.pv_list == []


def test_ids_are_recycled_last_first(bench: Bench) -> None:
    one, two = bench.vmspace(), bench.vmspace()
    ids = one.pmap.id, two.pmap.id
    bench.run(vmspace_terminate(bench.gd, one))
    bench.run(vmspace_terminate(bench.gd, two))

    assert (bench.vmspace().pmap.id, bench.vmspace().pmap.id) == ids[::-1]


class TestMutants:
    """Each deliberate defect changes the order it says it does."""

    def test_inval_before_edit(self) -> None:
        bench = Bench(frozenset({"inval-before-edit"}))
        vm, m = bench.mapped(RW, VPTE_M)

        assert bench.run(pmap_page_protect(bench.gd, m, PROT_READ)) == ["?", "?", INVAL, "-RW|M"]
        assert bench.run(pmap_remove(bench.gd, vm.pmap, VA, VA + PAGE_SIZE)) == ["?", INVAL, "0"]

    def test_async_inval(self) -> None:
        bench = Bench(frozenset({"async-inval"}))
        vm, m = bench.mapped()
        bench.gd.deferred.clear()

        assert bench.run(pmap_remove_all(bench.gd, m)) == ["0"]
        assert bench.gd.deferred == [(vm.pmap, VA, PAGE_SIZE)]

    def test_noinval_live(self) -> None:
        bench = Bench(frozenset({"noinval-live"}))

        assert bench.run(kva_functions(bench.gd, "kenter")) == ["RW|U"]
        assert "INVAL" not in "".join(bench.run(kva_functions(bench.gd, "qremove")))

    def test_clear_m_without_inval(self) -> None:
        bench = Bench(frozenset({"clear-m-without-inval"}))
        vm, m = bench.mapped(RW, VPTE_M)

        assert bench.run(pmap_clear_modify(bench.gd, m)) == ["?", "?", "-M"]
        assert bench.host.ram[bench.slot(vm)] & VPTE_RW

    def test_m_race(self) -> None:
        bench = Bench(frozenset({"m-race"}))
        vm, _ = bench.mapped()

        trace = bench.run(pmap_remove(bench.gd, vm.pmap, VA, VA + PAGE_SIZE))

        assert trace == ["?", "?", "0", INVAL]

    def test_free_tables(self) -> None:
        bench = Bench(frozenset({"free-tables"}))
        vm, _ = bench.mapped()

        trace = bench.run(pmap_remove(bench.gd, vm.pmap, VA, VA + PAGE_SIZE))

        assert trace == ["?", "0", INVAL, "0", "0", "0"]
        assert vm.pmap.pt_pages == {}

    def test_destroy_while_mapped(self) -> None:
        bench = Bench(frozenset({"destroy-while-mapped"}))
        vm, _ = bench.mapped()

        # No map entry would have it removed later, as one does in a process.
        with pytest.raises(AssertionError, match="still mapped"):
            bench.run(vmspace_terminate(bench.gd, vm))
        assert bench.trace()[0] == "VmspaceDestroy"

    def test_a_race_on_m_puts_it_back(self, bench: Bench) -> None:
        """The host sets nothing while V is 0; if something does, M is kept and said so."""
        vm, m = bench.mapped()
        host = bench.host
        slot = bench.slot(vm)
        mcontrol = host._mcontrol

        def set_m(*args: object) -> int:
            host.ram[slot] |= VPTE_M
            return mcontrol(*args)  # type: ignore[arg-type]

        host._mcontrol = set_m  # type: ignore[method-assign, assignment]
        said: list[str] = []
        bench.vkernel.emit = lambda name, *fields: said.append(name)

        assert bench.run(pmap_enter(bench.gd, vm.pmap, VA, m, RW))[-1] == "|M"
        assert "console" in said
        assert host.ram[slot] & VPTE_M
        assert host.ram[slot] & VPTE_A

    def test_a_freed_page_may_not_be_mapped(self, bench: Bench) -> None:
        _, m = bench.mapped()
        with pytest.raises(AssertionError, match="vm_page_free: mapped"):
            bench.run(vm_page_free(bench.gd, m))

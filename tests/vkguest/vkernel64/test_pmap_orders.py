"""The orders of facts 5.1 and 5.2, as the host sees them: every edit, every INVAL, nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from vkprotocol import messages as msg
from vkprotocol.insn import Mem
from vkprotocol.mman import PROT_NONE, PROT_READ
from vkprotocol.param import (
    KERNEL_KVA_SIZE,
    KERNEL_KVA_START,
    PAGE_SIZE,
    SEG_SIZE,
    VM_MAX_USER_ADDRESS,
)
from vkprotocol.vpte import VPTE_M, VPTE_WIRED

from tests.vkguest.bench import INVAL, RO_VPTE, RW, RW_VPTE, VA, Bench, inval_text, kva_functions
from vkguest.kern.errors import GuestPanic
from vkguest.vkernel64 import pmap, pmap_inval
from vkguest.vkernel64.pmap import (
    pmap_enter,
    pmap_enter_large,
    pmap_extract,
    pmap_protect,
    pmap_remove,
    pmap_remove_pages,
    pmap_unwire,
)
from vkguest.vkernel64.pmap_page import (
    pmap_clear_modify,
    pmap_clear_reference,
    pmap_clearbit,
    pmap_is_modified,
    pmap_page_protect,
    pmap_remove_all,
    pmap_remove_specific,
    pmap_ts_referenced,
)
from vkguest.vkernel64.pmap_table import pmap_release
from vkguest.vm.vm_kern import vtopte
from vkguest.vm.vmspace import vmspace_terminate


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
        "pages": (pmap_remove_pages(gd, pmap), 0),
    }
    body, loads = ways.pop(remove)
    for other, _ in ways.values():
        other.close()  # type: ignore[attr-defined]

    assert bench.run(body) == ["?"] * loads + ["0", INVAL]
    assert m.dirty
    assert m.pv_list == []
    assert pmap.pvs == {}


def test_remove_pages_takes_wired_ones_too(bench: Bench) -> None:
    """pmap.c:pmap_remove_pages is pmap_remove: what skipped wired pages is compiled out."""
    vm, _ = bench.mapped(RW, VPTE_WIRED)
    bench.run(pmap_remove_pages(bench.gd, vm.pmap))

    assert vm.pmap.pvs == {}


def test_no_tree_has_pmap_setro_pte() -> None:
    """pmap_inval.c:pmap_clean_pte is what takes RW away, with M: there is no way to keep M."""
    assert not [name for module in (pmap, pmap_inval) for name in vars(module) if "setro" in name]


def test_enter_holds_the_page_over_the_new_vpte(bench: Bench) -> None:
    """pmap.c:pmap_enter: m's spinlock interlocks the swap against pmap_page_protect."""
    vm, m = bench.mapped()
    held: list[bool] = []
    access = bench.gd.port.call

    async def call(request: Any) -> Any:
        if isinstance(request, msg.CpuOps) and request.ops[0].op is Mem.SWAP:
            held.append(m.spin.state is not None)
        return await access(request)

    bench.gd.port.call = call  # type: ignore[method-assign]
    bench.run(pmap_enter(bench.gd, vm.pmap, VA, m, RW))

    assert held == [False, True]  # to 0, and to the new VPTE


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


def test_unwiring_is_one_atomic_clear(bench: Bench) -> None:
    vm, m = bench.mapped()
    bench.run(pmap_enter(bench.gd, vm.pmap, VA, m, RW, wired=True))

    assert bench.run(pmap_unwire(bench.gd, vm.pmap, VA)) == ["&~WIRED"]
    assert vm.pmap.wired_count == 0


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

    assert trace[:3] == ["0", INVAL, "VmspaceDestroy"]
    assert m.pv_list == []


def test_ids_are_recycled_last_first(bench: Bench) -> None:
    one, two = bench.vmspace(), bench.vmspace()
    ids = one.pmap.id, two.pmap.id
    bench.run(vmspace_terminate(bench.gd, one))
    bench.run(vmspace_terminate(bench.gd, two))

    assert (bench.vmspace().pmap.id, bench.vmspace().pmap.id) == ids[::-1]

"""Each deliberate defect of the guest changes the order it says it does, and no more."""

from __future__ import annotations

import pytest
from vkprotocol.mman import PROT_READ
from vkprotocol.param import (
    PAGE_SIZE,
)
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_RW

from tests.vkguest.bench import INVAL, RW, VA, Bench, kva_functions
from vkguest.vkernel64.pmap import pmap_enter, pmap_remove
from vkguest.vkernel64.pmap_page import pmap_clear_modify, pmap_page_protect, pmap_remove_all
from vkguest.vm.vm_page import vm_page_free
from vkguest.vm.vmspace import vmspace_terminate


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_inval_before_edit() -> None:
    bench = Bench(frozenset({"inval-before-edit"}))
    vm, m = bench.mapped(RW, VPTE_M)

    assert bench.run(pmap_page_protect(bench.gd, m, PROT_READ)) == ["?", "?", INVAL, "-RW|M"]
    assert bench.run(pmap_remove(bench.gd, vm.pmap, VA, VA + PAGE_SIZE)) == ["?", INVAL, "0"]


def test_async_inval() -> None:
    bench = Bench(frozenset({"async-inval"}))
    vm, m = bench.mapped()
    bench.gd.deferred.clear()

    assert bench.run(pmap_remove_all(bench.gd, m)) == ["0"]
    assert bench.gd.deferred == [(vm.pmap, VA, PAGE_SIZE)]


def test_noinval_live() -> None:
    bench = Bench(frozenset({"noinval-live"}))

    assert bench.run(kva_functions(bench.gd, "kenter")) == ["RW|U"]
    assert "INVAL" not in "".join(bench.run(kva_functions(bench.gd, "qremove")))


def test_clear_m_without_inval() -> None:
    bench = Bench(frozenset({"clear-m-without-inval"}))
    vm, m = bench.mapped(RW, VPTE_M)

    assert bench.run(pmap_clear_modify(bench.gd, m)) == ["?", "?", "-M"]
    assert bench.host.ram[bench.slot(vm)] & VPTE_RW


def test_m_race() -> None:
    bench = Bench(frozenset({"m-race"}))
    vm, _ = bench.mapped()

    trace = bench.run(pmap_remove(bench.gd, vm.pmap, VA, VA + PAGE_SIZE))

    assert trace == ["?", "?", "0", INVAL]


def test_free_tables() -> None:
    bench = Bench(frozenset({"free-tables"}))
    vm, _ = bench.mapped()

    trace = bench.run(pmap_remove(bench.gd, vm.pmap, VA, VA + PAGE_SIZE))

    assert trace == ["?", "0", INVAL, "0", "0", "0"]
    assert vm.pmap.pt_pages == {}


def test_destroy_while_mapped() -> None:
    bench = Bench(frozenset({"destroy-while-mapped"}))
    vm, _ = bench.mapped()

    # No map entry would have it removed later, as one does in a process.
    with pytest.raises(AssertionError, match="still mapped"):
        bench.run(vmspace_terminate(bench.gd, vm))
    assert bench.trace()[0] == "VmspaceDestroy"


def test_a_race_on_m_puts_it_back(bench: Bench) -> None:
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


def test_a_freed_page_may_not_be_mapped(bench: Bench) -> None:
    _, m = bench.mapped()
    m.busy.state = None

    async def free() -> None:
        await m.busy.acquire()
        await vm_page_free(bench.gd, m)

    with pytest.raises(AssertionError, match="vm_page_free: mapped"):
        bench.run(free())

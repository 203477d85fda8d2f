"""Nested paging: the walk in two dimensions, its rights and flushes, the life of a second stage."""

from __future__ import annotations

import pytest
from vkprotocol.mman import MADV_SETMAP
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_NX, VPTE_PS

from tests.vkhost.pc64.nesting import DATA, OTHER_ROOT, PAGE, RWM, SPACE, Guest, accessed
from tests.vkhost.vkernel import ROOT, RW, R, Vkernel
from vkhost.kern.lwp import Lwp
from vkhost.pc64.pmap import pmap_remove_all, pmap_testbit, pmap_ts_referenced
from vkhost.pc64.pmap_bits import PTE_A, PTE_M
from vkhost.pc64.pmap_switch import pmap_setlwpvm, swtch_in
from vkhost.rmap.nested import PAGE_TABLE_BYTES
from vkhost.rmap.pv_entry import PV_ENTRY_BYTES
from vkhost.vm.vm import VM_INHERIT_COPY, VM_INHERIT_SHARE, VM_PROT_NONE, VM_PROT_READ
from vkhost.vm.vm_fault_page import vm_fault_page
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_map_protect import vm_map_inherit, vm_map_protect
from vkhost.vm.vm_page_busy import vm_page_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_wire import vm_page_unhold
from vkhost.vm.vmspace import vmspace_fork, vmspace_rel

# The walk.


def test_a_first_access_walks_faults_and_walks() -> None:
    g = Guest(vptes={1: DATA << 12 | RW})
    g.k.put(DATA, 0, 7)

    assert g.load(PAGE) == 7
    # Each table and the page are violations of their own; then the walk goes through.
    assert g.walks() == ["violation"] * 5 + ["filled"]
    assert g.vmspace.pmap.resident_count == 0
    assert all(g.second(frame) & PTE_M for frame in range(ROOT, ROOT + 4))
    assert not g.second(DATA) & PTE_M
    assert g.leaf(1) == DATA << 12 | RW | VPTE_A


def test_a_store_sets_m_in_both_stages_and_in_the_last_vpte_only() -> None:
    g = Guest(vptes={1: DATA << 12 | RW})

    assert g.load(PAGE) == 0
    assert g.store(PAGE, 5) == 0
    assert g.leaf(1) == DATA << 12 | RWM
    assert g.k.word(ROOT + 2, 0) & (VPTE_A | VPTE_M) == VPTE_A
    assert g.second(DATA) & (PTE_A | PTE_M) == PTE_A | PTE_M
    assert g.dload(DATA) == 5


@pytest.mark.parametrize("level", [0, 1, 2])
def test_rights_are_those_of_all_levels(level: int) -> None:
    g = Guest(vptes={1: DATA << 12 | RWM})
    g.k.put(ROOT + level, 0, ROOT + level + 1 << 12 | R)

    assert g.load(PAGE) == 0
    assert g.store(PAGE, 5) is None  # W28: with vm_fault's walk it would go through
    g.dstore(ROOT + level, 0, ROOT + level + 1 << 12 | RW | VPTE_NX)
    g.inval(0, 512)
    assert g.store(PAGE, 5) == 0
    assert g._access(g.user.fetch(PAGE)) is None


def test_a_large_page_and_a_linear_root() -> None:
    g = Guest()
    g.k.put(ROOT + 2, 1, VPTE_PS | RWM)
    g.k.put(DATA, 3, 9)

    assert g.load((512 + DATA) * PAGE + 24) == 9
    g.setmap(VPTE_PS | RW)
    assert g.load(DATA * PAGE + 24) == 9
    assert g.store(DATA * PAGE, 4) == 0
    assert g.dload(DATA) == 4


@pytest.mark.parametrize("frame", [32, 1 << 35, (1 << 40) - 1])
def test_a_frame_beyond_the_image_is_a_fault(frame: int) -> None:
    g = Guest(vptes={1: frame << 12 | RWM})

    assert g.load(PAGE) is None


def test_a_table_that_is_not_valid_is_a_fault_of_the_guest() -> None:
    g = Guest()

    assert g.load(PAGE) is None
    assert g.walks()[-1] == "guest-fault"
    g.dstore(ROOT + 3, 1, DATA << 12 | RW)
    assert g.load(PAGE) == 0


# Flushes.


def test_taking_a_page_flushes_all_of_every_cpu_that_runs_the_guest() -> None:
    g = Guest(vptes={i: DATA + i << 12 | RWM for i in range(4)})
    other = g.process("other", ROOT << 12 | RW)
    third = g.k.kernel.cpus[1]
    g.k.do(pmap_setlwpvm(third.lwp, other))  # type: ignore[arg-type]
    for vpn in range(4):
        assert g.load(vpn * PAGE) == 0
        assert g.k.do(third.load(vpn * PAGE)) == 0
    assert g.cached(0) == g.cached(1) == 4

    g.protect(DATA, VM_PROT_NONE)

    assert g.cached(0) == g.cached(1) == 0
    assert g.load(0) == 0


def test_an_inval_flushes_its_range_only() -> None:
    g = Guest(vptes={i: DATA + i << 12 | RWM for i in range(4)})
    for vpn in range(4):
        g.load(vpn * PAGE)

    g.inval(PAGE, 2)
    assert g.cached() == 2
    assert g.second(DATA + 1)
    assert g.k.named("fault.begin")[-1][1] != g.vmspace.pmap.id  # no fault is taken for it
    g.inval(0, 512)  # too many to go one by one
    assert g.cached() == 0


def test_a_walk_that_a_flush_overtakes_leaves_nothing() -> None:
    g = Guest(vptes={1: DATA << 12 | RWM})
    assert g.load(PAGE) == 0
    g.inval(PAGE)
    walking = g.k.spawn("user", accessed(g.user.load(PAGE)))
    g.k.until(walking, "vpte.read", g.page(ROOT + 3).pfn)  # type: ignore[union-attr]
    g.dstore(ROOT + 3, 1, 0)
    g.inval(PAGE)

    g.k.finish(walking)

    assert g.walks()[-2:] == ["interrupted", "guest-fault"]
    assert g.cached() == 0


@pytest.mark.parametrize("page", [1, 2])
def test_no_walk_goes_on_after_a_flush_of_whatever_page(page: int) -> None:
    g = Guest(vptes={1: DATA << 12 | RWM})
    assert g.load(PAGE) == 0
    g.inval(0, 512)
    g.dstore(ROOT + 3, 1, DATA << 12 | RW)
    walking = g.k.spawn("user", accessed(g.user.load(PAGE)))
    g.k.until(walking, "vpte.read", g.page(ROOT + 2).pfn)  # type: ignore[union-attr]
    g.dstore(ROOT + 2, 0, 0)
    g.inval(page * PAGE)
    # The guest has been told that CPU 0 has flushed: the table is its own again.
    g.k.kernel.emit("guest.free", g.k.proc.pid, ROOT + 3)

    g.k.finish(walking)

    assert g.walks()[-2:] == ["interrupted", "guest-fault"]
    assert g.leaf(1) == DATA << 12 | RW  # without A


def test_what_an_interrupted_walk_has_read_is_no_violation() -> None:
    g = Guest(vptes={1: DATA << 12 | RWM})
    assert g.load(PAGE) == 0
    g.inval(0, 512)
    walking = g.k.spawn("user", accessed(g.user.load(PAGE)))
    g.k.until(walking, "vpte.read", g.page(ROOT + 1).pfn)  # type: ignore[union-attr]
    g.dstore(ROOT + 1, 0, 0)
    g.inval(2 * PAGE)
    g.dstore(ROOT + 2, 0, 1 << 35 << 12 | RWM)  # no table any more

    g.k.finish(walking)

    assert g.walks()[-2:] == ["interrupted", "guest-fault"]


@pytest.mark.parametrize("shootdown", ["stream", "rendezvous"])
def test_the_queries_ask_the_second_stage(shootdown: str) -> None:
    k = Vkernel("nested", shootdown=shootdown)
    k.vpagetable(k.tables({1: DATA << 12 | RWM, 2: DATA << 12 | RWM}), size=SPACE)
    cpu = k.kernel.cpus[0]
    lwp = Lwp(k.proc, 9, cpu)
    k.do(swtch_in(lwp))
    k.do(cpu.load(PAGE))
    k.do(cpu.store(2 * PAGE, 1))
    assert k.vnode.object is not None
    m = k.vnode.object.memq[DATA]
    k.do(vm_page_busy_wait(m, "test"))

    assert k.do(pmap_testbit(m, PTE_M))
    assert k.do(pmap_ts_referenced(m)) == 1
    assert k.do(pmap_ts_referenced(m)) == 0
    assert len(cpu.tlb.entries()) == 2  # clearing A flushes nobody
    k.do(pmap_remove_all(m))
    assert not cpu.tlb.entries()
    assert m.dirty.state
    k.do(vm_page_wakeup(m))


# The second stage comes and goes.


def test_one_second_stage_an_image_whatever_the_processes() -> None:
    g = Guest(vptes={1: DATA << 12 | RWM})
    assert g.load(PAGE) == 0
    stages = {pmap.id for pmap in g.k.kernel.pmaps.values() if pmap.users is not None}
    other = g.process("other", OTHER_ROOT << 12 | RW)
    g.k.do(pmap_setlwpvm(g.user.lwp, other))  # type: ignore[arg-type]
    assert g.load(PAGE) == 0

    assert {p.id for p in g.k.kernel.pmaps.values() if p.users is not None} == stages
    assert g.k.kernel.rmap.bytes == 4 * PAGE_TABLE_BYTES + PV_ENTRY_BYTES * sum(
        pmap.resident_count for pmap in g.k.kernel.pmaps.values()
    )


def test_the_last_process_takes_the_second_stage_along() -> None:
    g = Guest(vptes={1: DATA << 12 | RWM})
    assert g.load(PAGE) == 0
    obj = g.k.vnode.object
    assert obj is not None
    references = obj.ref_count.state

    g.k.do(vm_map_remove(g.vmspace.vm_map, 0, SPACE))

    assert obj.ref_count.state == references - 2  # the entry's and the second stage's
    assert not [pmap for pmap in g.k.kernel.pmaps.values() if pmap.users is not None]
    assert g.cached() == 0
    assert g.load(PAGE) is None
    g.k.do(pmap_setlwpvm(g.user.lwp, g.k.own))  # type: ignore[arg-type]
    g.k.do(vmspace_rel(g.vmspace))


def test_a_fault_keeps_the_second_stage_it_is_in() -> None:
    g = Guest(vptes={1: DATA << 12 | RWM})
    assert g.load(PAGE) == 0
    (stage,) = (pmap for pmap in g.k.kernel.pmaps.values() if pmap.users is not None)
    g.page_out(DATA)
    faulting = g.k.spawn("user", accessed(g.user.load(PAGE)))
    g.k.until(faulting, "walk.end", 0, g.vmspace.pmap.id, PAGE, "violation")

    unmapping = g.k.spawn("munmap", vm_map_remove(g.vmspace.vm_map, 0, SPACE))
    g.k.blocked(unmapping)

    assert stage.id in g.k.kernel.pmaps
    assert ("map.remove", stage.id) not in [event[:2] for event in g.k.named("map.remove")]
    g.k.until(faulting, "fault.end")
    while not unmapping.done:
        g.k.step(unmapping if unmapping.runnable else faulting)
    assert stage.id not in g.k.kernel.pmaps
    g.k.finish(faulting)


@pytest.mark.parametrize("merged", [0, 1 << 29])
def test_an_entry_that_grows_is_walked_by_its_own_root(merged: int) -> None:
    """W20: a half with a page table of its own is merged with the other, which has that then."""
    g = Guest(vptes={1: DATA << 12 | RWM, 2: DATA << 12 | RWM})
    half = 1 << 29
    vm_map, end = g.vmspace.vm_map, merged + half
    g.k.do(vm_map_inherit(vm_map, merged, end, VM_INHERIT_COPY))
    assert g.load(2 * PAGE) == 0
    assert g.load(half + PAGE) is None

    pde = OTHER_ROOT << 12 | RW
    g.k.do(vm_map_madvise(vm_map, merged, end, MADV_SETMAP, pde))
    assert g.load(half - merged + PAGE) == (0 if merged else None)
    g.k.do(vm_map_inherit(vm_map, merged, end, VM_INHERIT_SHARE))

    assert [entry.master_pde for entry in vm_map.entries] == [pde]
    assert g.load(PAGE) == 0  # so in either table
    assert g.load(half + PAGE) is None
    assert g.load(2 * PAGE) is None  # in the new one there is nothing
    roots = g.vmspace.pmap.roots
    assert roots is not None
    assert [(root.start, root.end, root.pde) for root in roots.state] == [(0, SPACE, pde)]


def test_a_copy_of_the_host_replaces_what_the_second_stage_maps() -> None:
    """W26: the image is private, forked, and then written by the host."""
    k = Vkernel("nested", image_pages=32)
    k.put(DATA, 0, 3)
    k.vpagetable(k.tables({1: DATA << 12 | RWM}), size=SPACE, flags=0x2)
    child = k.do(vmspace_fork(k.own, "child", k.proc))
    cpu = k.kernel.cpus[0]
    lwp = Lwp(k.proc, 9, cpu)
    k.do(swtch_in(lwp))
    assert k.do(cpu.load(PAGE)) == 3

    m, result, _ = k.do(vm_fault_page(k.own.vm_map, PAGE, 2))
    assert result == 0
    k.do(m.frame.store(0, 8))
    k.do(vm_page_unhold(m))

    assert k.do(cpu.load(PAGE)) == 8
    k.do(pmap_setlwpvm(lwp, child))
    assert k.do(cpu.load(PAGE)) == 3
    k.do(cpu.store(PAGE, 4))
    k.do(pmap_setlwpvm(lwp, k.own))
    assert k.do(cpu.load(PAGE)) == 8


def test_a_region_that_is_read_only_for_the_host_is_so_for_the_guest() -> None:
    g = Guest(vptes={1: DATA << 12 | RWM})
    assert g.store(PAGE, 1) == 0

    g.k.do(vm_map_protect(g.vmspace.vm_map, 0, SPACE, VM_PROT_READ))
    assert g.load(PAGE) == 1
    assert g.store(PAGE, 2) is None
    g.k.do(vm_map_protect(g.vmspace.vm_map, 0, SPACE, 7))
    assert g.store(PAGE, 2) == 0


def test_the_resident_set_is_that_of_the_second_stage() -> None:
    """W36: RLIMIT_RSS of the vkernel holds what its guests use, and gives it up everywhere."""
    g = Guest(vptes={i: DATA + i << 12 | RWM for i in range(8)})
    for vpn in range(8):
        assert g.load(vpn * PAGE) == 0
    g.k.proc.rlimit_rss, g.k.proc.rss_hysteresis = 6 * PAGE, 0
    roots = g.vmspace.pmap.roots
    assert roots is not None
    stage = roots.state[0].ept.pmap
    assert g.k.do(g.k.kernel.rmap.resident_pmap(g.vmspace.pmap)) is stage
    assert stage.resident_count >= 12  # four tables and eight pages

    g.protect(DATA, VM_PROT_NONE)
    assert g.load(0) == 0  # a fault, after which the limit is looked at

    assert stage.resident_count <= 6
    assert [g.load(vpn * PAGE) for vpn in range(8)] == [0] * 8

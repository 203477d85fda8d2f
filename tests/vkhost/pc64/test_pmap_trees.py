"""pmap.c and pmap_inval.c as each tree has them: what a switch takes back, shown by its absence."""

from __future__ import annotations

import pytest

from tests.vkhost.machine import ENTRY, Machine
from tests.vkhost.vkernel import Vkernel
from vkhost.kern.panic import Panic
from vkhost.pc64.pmap import CPULOCK_EXCL, Pmap
from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_RW
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.pc64.pmap_pgscan import pmap_pgscan
from vkhost.pc64.pmap_protect import pmap_protect
from vkhost.pc64.pmap_remove import pmap_release, pmap_remove, pmap_remove_pages
from vkhost.tree import Tree
from vkhost.vm.vm import VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_page import PG_MAPPED, PG_REFERENCED, PG_WRITEABLE, VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_vmspace import vmspace_create

pytestmark = pytest.mark.usefixtures("guarded")

VA = 0x5000
FAR = VA + (1 << 21)  # another page table, the same slot of the placemarks
RW = VM_PROT_READ | VM_PROT_WRITE
OLD: Tree = "5.4"
NEW: Tree = "2020"


def mapped(tree: Tree, prot: int = RW) -> tuple[Machine, Pmap, VmPage]:
    machine = Machine("extent_scan", tree=tree)
    pmap = machine.pmap()
    m = machine.page(machine.object(), 0)
    machine.enter(pmap, VA, m, prot)
    return machine, pmap, m


def test_pmap_enter_presets_a_and_not_m() -> None:
    """pmap.c:pmap_enter."""
    _, pmap, _ = mapped(NEW)

    assert pmap.pte(VA).value & (PTE_A | PTE_M) == PTE_A


def test_pmap_protect_that_leaves_write_does_nothing() -> None:
    """pmap.c:pmap_protect returns at once when prot has VM_PROT_WRITE."""
    machine, pmap, _ = mapped(NEW)
    before = pmap.pte(VA).value
    machine.do(pmap_protect(pmap, VA, VA + 4096, VM_PROT_WRITE | VM_PROT_READ))

    assert pmap.pte(VA).value == before


def test_pmap_protect_never_adds_nx() -> None:
    """pmap.c:pmap_protect, "JG review for NX"."""
    machine, pmap, _ = mapped(NEW, 7)
    machine.do(pmap_protect(pmap, VA, VA + 4096, VM_PROT_READ))

    assert pmap.pte(VA).value >> 63 == 0
    assert not pmap.pte(VA).value & PTE_RW


@pytest.mark.parametrize(("tree", "dirty_first"), [(OLD, True), (NEW, False)])
def test_pmap_protect_tells_the_page_of_m(tree: Tree, dirty_first: bool) -> None:
    """pmap.c:pmap_protect_callback: [54] before the cmpset, [20] after it, and no interlock_count
    stands for what is in flight (`protect_dirties_late`)."""
    machine, pmap, m = mapped(tree)
    machine.do(machine.run_on(0, pmap).store(VA, 1))
    thread = machine.spawn("protect", pmap_protect(pmap, VA, VA + 4096, VM_PROT_READ))
    machine.until(thread, "pte.write", "p", VA)

    assert bool(m.dirty.value) is dirty_first
    assert not pmap.pte(VA).value & PTE_M
    assert m.interlock_count.value == 0
    machine.finish(thread)
    assert m.dirty.value


@pytest.mark.parametrize(("tree", "panics"), [(OLD, False), (NEW, True)])
def test_an_upgrade_behind_a_blind_strip_is_a_panic(tree: Tree, panics: bool) -> None:
    """pmap.c:pmap_enter calls pmap_removed_pte also when the old page is the new one (W46)."""
    machine, pmap, m = mapped(tree, VM_PROT_READ)
    m.flags.state &= ~PG_MAPPED  # a reverse map that did not see the PTE
    if panics:
        with pytest.raises(Panic, match="not PG_MAPPED"):
            machine.enter(pmap, VA, m, RW)
    else:
        machine.enter(pmap, VA, m, RW)
        assert machine.flags(m) & PG_MAPPED


def test_an_upgrade_of_a_page_that_is_known_to_be_mapped_is_none() -> None:
    machine, pmap, m = mapped(NEW, VM_PROT_READ)
    machine.enter(pmap, VA, m, RW)

    assert machine.flags(m) & (PG_MAPPED | PG_WRITEABLE) == PG_MAPPED | PG_WRITEABLE


def test_remove_specific_neither_waits_nor_clears_flags() -> None:
    """pmap.c:pmap_remove_specific: with a PTE in flight, and one the scan does not see."""
    machine, pmap, m = mapped(NEW)
    m.interlock_count.state = 1
    machine.do(machine.kernel.rmap.remove_specific(pmap, m))

    assert machine.flags(m) & PG_MAPPED


def test_an_identical_translation_is_not_entered_again() -> None:
    """pmap.c:pmap_enter: identical up to A and M, which the hardware may have set or a query
    cleared meanwhile."""
    machine, pmap, m = mapped(NEW)
    pmap.pte(VA).state &= ~PTE_A
    machine.events.clear()
    machine.enter(pmap, VA, m, RW)

    assert machine.events == []


def test_nothing_is_replaced_without_a_shootdown() -> None:
    """pmap.c:pmap_enter: 0 -> valid is a plain swap, whoever has CPULOCK_EXCL."""
    machine, pmap, m = mapped(NEW)
    machine.run_on(1, pmap)
    pmap.pm_active.state |= CPULOCK_EXCL
    machine.enter(pmap, VA + 4096, m, RW)
    upgrading = machine.spawn("enter", pmap_enter(pmap, VA, m, VM_PROT_READ, False, ENTRY))
    machine.blocked(upgrading)


@pytest.mark.parametrize(("tree", "shared"), [(OLD, False), (NEW, True)])
def test_placemarks_are_hashed_by_the_page_number(tree: Tree, shared: bool) -> None:
    """pmap.c:pmap_placemarker_hash: 16 slots for PTEs; to 5.4 the lock is the PTE's own
    (`hashed_placemarks`)."""
    _, pmap, _ = mapped(tree)

    assert (pmap.placemark(VA >> 12) is pmap.placemark(FAR >> 12)) is shared
    assert (pmap.placemark(VA >> 12) is pmap.placemark((VA >> 12) + 16)) is shared
    assert pmap.placemark(VA >> 12) is not pmap.placemark((VA >> 12) + 1)


def test_one_page_table_at_a_time_is_entered_or_removed() -> None:
    """pmap.c:pmap_enter, pmap_scan: the pv of the page table page over the whole operation."""
    machine, pmap, m = mapped(NEW)
    entering = machine.spawn("enter", pmap_enter(pmap, VA + 4096, m, RW, False, None))
    machine.step(entering)
    machine.step(entering)  # it has placemark and page table
    removing = machine.spawn("remove", pmap_remove(pmap, VA, VA + 4096))
    while removing.runnable and not removing.done:
        machine.step(removing)

    assert not removing.done
    assert pmap.pte(VA).value
    machine.finish(entering, removing)
    assert not pmap.pte(VA).value


@pytest.mark.parametrize(("tree", "locked"), [(OLD, True), (NEW, False)])
def test_alone_on_the_pmap_a_shootdown_takes_no_lock(tree: Tree, locked: bool) -> None:
    """pmap_inval.c:pmap_inval_smp: the single-CPU shortcut, without CPULOCK_EXCL unless the pmap is
    PMAP_MULTI (W48)."""
    machine, pmap, _ = mapped(tree)
    cpu = machine.run_on(0, pmap)
    pmap.pm_active.state |= CPULOCK_EXCL  # another shootdown is in progress
    thread = machine.spawn("remove", pmap_remove(pmap, VA, VA + 4096))
    machine.kernel.bind(thread.tid, cpu)
    while thread.runnable and not thread.done:
        machine.step(thread)

    assert thread.done is not locked


def test_and_for_a_process_with_threads_it_does() -> None:
    """pmap.c:pmap_maybethreaded."""
    machine, pmap, _ = mapped(NEW)
    pmap.multi = True
    cpu = machine.run_on(0, pmap)
    pmap.pm_active.state |= CPULOCK_EXCL
    thread = machine.spawn("remove", pmap_remove(pmap, VA, VA + 4096))
    machine.kernel.bind(thread.tid, cpu)
    while thread.runnable and not thread.done:
        machine.step(thread)

    assert not thread.done
    machine.do(pmap.deinterlock())
    machine.finish(thread)


@pytest.mark.parametrize("policy", ["pv_entry", "extent_scan"])
def test_a_page_is_mapped_although_its_other_pte_goes_meanwhile(policy: str) -> None:
    """pmap.c:pmap_enter, [54]: PG_MAPPED is set once the pv_entry is on the list."""
    for steps in range(12):
        machine = Machine(policy)
        pmap = machine.pmap()
        m = machine.page(machine.object(), 0)
        machine.enter(pmap, FAR, m)
        entering = machine.spawn("enter", pmap_enter(pmap, VA + 4096, m, RW, False, None))
        for _ in range(steps):
            if not entering.done:
                machine.step(entering)
        removing = machine.spawn("remove", pmap_remove(pmap, FAR, FAR + 4096))
        while removing.runnable and not removing.done:
            machine.step(removing)
        machine.finish(entering, removing)

        assert machine.flags(m) & PG_MAPPED, steps


def test_the_placemark_goes_before_the_count() -> None:
    """pmap.c:pmap_remove_callback; pmap_enter does it the other way round."""
    machine, pmap, m = mapped(NEW)
    thread = machine.spawn("remove", pmap_remove(pmap, VA, VA + 4096))
    machine.until(thread, "pte.write", "p", VA)
    while pmap.placemark(VA >> 12).state is not None:
        machine.step(thread)

    assert m.interlock_count.value == 1
    machine.finish(thread)
    assert m.interlock_count.value == 0
    assert machine.flags(m) & PG_REFERENCED


def test_pmap_remove_pages_takes_wired_ptes_too() -> None:
    """pmap.c:pmap_remove_pages."""
    machine = Machine("extent_scan", tree=NEW)
    pmap = machine.pmap()
    m = machine.page(machine.object(), 0)
    machine.do(pmap_enter(pmap, VA, m, RW, True, ENTRY))
    assert pmap.wired_count == 1
    machine.do(pmap_remove_pages(pmap, 0, 1 << 47))

    assert pmap.pte(VA).value == 0
    assert pmap.wired_count == 0


def test_pmap_pgscan_looks_at_the_pte_again_once_it_has_the_page() -> None:
    """pmap.c:pmap_pgscan: a query may have taken it away meanwhile."""
    machine, pmap, m = mapped(NEW)
    machine.do(vm_page_wakeup(m))
    called = []

    async def callback(va: int, page: VmPage) -> bool:
        called.append(va)
        await vm_page_wakeup(page)
        return True

    thread = machine.spawn("pgscan", pmap_pgscan(pmap, VA, VA + 4096, callback))
    machine.until(thread, "page.busy", m.pfn)
    pmap.pte(VA).state = 0
    machine.finish(thread)

    assert called == []
    assert m.busy_count.value == 0


@pytest.mark.parametrize(("vcpus", "multi"), [(1, False), (2, True)])
def test_a_process_with_threads_is_multi_and_what_it_creates_is_not(
    vcpus: int, multi: bool
) -> None:
    """kern_fork.c:lwp_create1 sets PMAP_MULTI; vm_vmspace.c:sys_vmspace_create does not (W48)."""
    k = Vkernel("extent_scan", vcpus=vcpus)
    k.do(vmspace_create(k.lwp, 1))

    assert k.own.pmap.multi is multi
    assert not k.proc.p_vkernel.value.root[1].vmspace.pmap.multi


def test_a_pmap_is_released_when_nobody_is_on_it() -> None:
    """pmap.c:pmap_release."""
    machine, pmap, _ = mapped(NEW)
    machine.run_on(0, pmap)
    with pytest.raises(Panic, match="pmap still active! 0x1"):
        machine.do(pmap_release(pmap))

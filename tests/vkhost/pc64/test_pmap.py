from __future__ import annotations

from typing import Any

import pytest

from tests.vkhost.machine import ENTRY, Machine
from vkhost.kern.panic import Panic
from vkhost.pc64.pmap import CPULOCK_EXCL, pmap_extract, pmap_resident_count
from vkhost.pc64.pmap_bits import PTE_A, PTE_M, PTE_RW, pte_pfn, pte_prot
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.pc64.pmap_inval import pmap_inval_range
from vkhost.pc64.pmap_pgscan import pmap_pgscan
from vkhost.pc64.pmap_protect import pmap_protect
from vkhost.pc64.pmap_remove import pmap_remove, pmap_remove_pages
from vkhost.pc64.pmap_switch import pmap_setlwpvm, swtch_in, swtch_out
from vkhost.vm.vm import VM_PROT_ALL, VM_PROT_NONE, VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_page import PG_MAPPED, PG_MAPPEDMULTI, PG_REFERENCED, PG_WRITEABLE, VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_protect

pytestmark = pytest.mark.usefixtures("guarded")

VA = 0x5000
ALL_MAPPED = PG_MAPPED | PG_MAPPEDMULTI | PG_WRITEABLE
SCANNING = ["extent_scan", "vptmapped"]
POLICIES = ["pv_entry", *SCANNING]


@pytest.mark.parametrize("policy", POLICIES)
def test_entering_a_page_sets_its_flags(policy: str) -> None:
    machine = Machine(policy)
    pmap = machine.pmap()
    m = machine.page(machine.object(), 0)

    machine.enter(pmap, VA, m, VM_PROT_READ)
    assert machine.flags(m) == PG_MAPPED
    assert pte_prot(pmap.pte(VA).value) == VM_PROT_READ
    assert machine.do(pmap_extract(pmap, VA)) == m.pfn
    assert machine.do(pmap_resident_count(pmap)) == 1

    # RO to RW of the same PTE counts as a second mapping, as it does on the real kernel; and A,
    # which pmap_enter presets, is the page's when the PTE is replaced.
    machine.enter(pmap, VA, m, VM_PROT_ALL)
    assert machine.flags(m) == ALL_MAPPED | PG_REFERENCED
    assert machine.do(pmap_resident_count(pmap)) == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_removing_the_only_pte_of_a_page_unmaps_it(policy: str) -> None:
    machine = Machine(policy)
    pmap = machine.pmap()
    m = machine.page(machine.object(), 0)
    machine.enter(pmap, VA, m)

    machine.do(pmap_remove(pmap, VA, VA + 4096))

    assert machine.flags(m) == PG_REFERENCED
    assert machine.do(pmap_extract(pmap, VA)) is None
    assert pmap.resident_count == 0


def test_a_page_mapped_twice_stays_mapped_for_the_scan_and_not_for_pv_entry() -> None:
    left = {}
    for policy in POLICIES:
        machine = Machine(policy)
        pmap = machine.pmap()
        m = machine.page(machine.object(), 0)
        machine.enter(pmap, VA, m)
        machine.enter(pmap, VA + 4096, m)
        machine.do(pmap_remove(pmap, VA, VA + 8192))
        left[policy] = machine.flags(m) & ~PG_REFERENCED

    assert left == {"pv_entry": 0, "extent_scan": ALL_MAPPED, "vptmapped": ALL_MAPPED}


def test_removal_carries_a_and_m_to_the_page() -> None:
    machine = Machine()
    pmap = machine.pmap()
    m = machine.page(machine.object(), 0)
    machine.enter(pmap, VA, m)
    cpu = machine.run_on(0, pmap)
    machine.do(cpu.store(VA, 1))

    machine.do(pmap_remove(pmap, VA, VA + 4096))

    assert m.dirty.value
    assert machine.flags(m) & PG_REFERENCED


@pytest.mark.parametrize("policy", POLICIES)
def test_replacing_a_page_settles_the_old_one(policy: str) -> None:
    machine = Machine(policy)
    pmap = machine.pmap()
    obj = machine.object()
    old, new = machine.page(obj, 0), machine.page(obj, 1)
    machine.enter(pmap, VA, old)
    cpu = machine.run_on(0, pmap)
    machine.do(cpu.store(VA, 1))

    machine.enter(pmap, VA, new)

    assert machine.flags(old) == PG_REFERENCED
    assert old.dirty.value
    assert old.interlock_count.value == 0
    assert machine.flags(new) == PG_MAPPED | PG_WRITEABLE
    assert machine.do(cpu.load(VA)) == 0


def test_replacing_without_an_entry_panics() -> None:
    machine = Machine()
    pmap = machine.pmap()
    obj = machine.object()
    machine.enter(pmap, VA, machine.page(obj, 0))

    with pytest.raises(Panic, match="no entry to replace"):
        machine.do(pmap_enter(pmap, VA, machine.page(obj, 1), VM_PROT_ALL, False, None))
    assert machine.events[-1][0] == "panic"


def test_w09_entering_the_identical_pte_of_an_unmapped_page_panics() -> None:
    # The scan does not find the PTE, as behind a VPTE; protect(NONE) clears PG_MAPPED all the same.
    machine = Machine("extent_scan")
    pmap = machine.pmap()
    obj = machine.object()
    m = machine.page(obj, 3)
    machine.backing(pmap, obj, 0x100000, vpagetable=True)
    machine.enter(pmap, VA, m)
    machine.do(vm_page_protect(m, VM_PROT_NONE))

    assert machine.flags(m) & PG_MAPPED == 0
    with pytest.raises(Panic, match="entered but not PG_MAPPED"):
        machine.enter(pmap, VA, m)


def test_protect_takes_write_permission_and_keeps_the_dirt() -> None:
    machine = Machine()
    pmap = machine.pmap()
    m = machine.page(machine.object(), 0)
    machine.enter(pmap, VA, m)
    cpu = machine.run_on(0, pmap)
    machine.do(cpu.store(VA, 1))

    machine.do(pmap_protect(pmap, VA, VA + 4096, VM_PROT_READ))

    pte = pmap.pte(VA).value
    assert not pte & (PTE_RW | PTE_M | PTE_A)
    assert m.dirty.value
    assert machine.flags(m) & PG_REFERENCED
    assert cpu.tlb.entries() == []

    machine.do(pmap_protect(pmap, VA, VA + 4096, VM_PROT_NONE))
    assert pmap.pte(VA).value == 0


def test_a_range_is_removed_over_several_page_tables() -> None:
    machine = Machine()
    pmap = machine.pmap()
    m = machine.page(machine.object(), 0)
    for va in (0, 0x1FF000, 0x200000, 0x40000000):
        machine.enter(pmap, va, m)

    machine.do(pmap_remove(pmap, 0x1000, 0x40000000))

    assert [pte.va for pte in machine.do(pmap.valid_ptes(0, 1 << 47))] == [0, 0x40000000]


# Scheduling points.


def removing(machine: Machine, **kwargs: Any) -> tuple[Any, Any, VmPage]:
    """CPUs 0 and 1 have VA cached and dirty; a thread is about to remove it."""
    pmap = machine.pmap()
    m = machine.page(machine.object(), 0)
    machine.enter(pmap, VA, m)
    for cpu in (machine.run_on(0, pmap), machine.run_on(1, pmap)):
        machine.do(cpu.store(VA, 1))
    return pmap, machine.spawn("remove", pmap_remove(pmap, VA, VA + 4096)), m


@pytest.mark.parametrize("ipi_threads", [False, True])
def test_between_the_swap_and_the_last_flush_the_old_translation_works(ipi_threads: bool) -> None:
    machine = Machine(ipi_threads=ipi_threads, shootdown="stream")
    pmap, thread, m = removing(machine)
    one, two = machine.kernel.cpus
    machine.until(thread, "pte.write")
    # Swapped; the page does not know it yet.
    assert machine.flags(m) & PG_MAPPED
    assert not m.dirty.value
    machine.do(one.store(VA, 2))

    if ipi_threads:
        machine.blocked(thread)
        ipis = [t for t in machine.ex.threads.values() if t.name.startswith("ipi")]
        machine.until(ipis[0], "tlb.flush", 0)
        assert not thread.runnable
    else:
        machine.until(thread, "tlb.flush", 0)
    assert machine.do(two.load(VA)) == 2
    assert one.tlb.entries() == []

    if ipi_threads:
        machine.until(ipis[1], "ipi.ack", 1)
    machine.finish(thread)
    assert two.tlb.entries() == []
    assert m.dirty.value


def test_a_rendezvous_which_pc64_does_leaves_no_such_moment() -> None:
    """pmap_inval.c:pmap_inval_smp."""
    machine = Machine()
    pmap, thread, m = removing(machine)

    machine.until(thread, "pte.write")

    assert all(cpu.tlb.entries() == [] for cpu in machine.kernel.cpus)
    machine.finish(thread)


def test_the_initiators_own_cpu_needs_no_ipi() -> None:
    machine = Machine(ipi_threads=True)
    pmap, thread, m = removing(machine)
    machine.kernel.bind(thread.tid, machine.kernel.cpus[0])
    machine.run()

    sent = [event for event in machine.events if event[0] == "ipi.send"]
    assert sent == [("ipi.send", 1, "p", VA)]


def test_inval_range_empties_the_tlb_beyond_128_pages() -> None:
    machine = Machine()
    pmap = machine.pmap()
    machine.run_on(0, pmap)

    for pages, flushed in ((1, [VA]), (128, list(range(VA, VA + 128 * 4096, 4096))), (129, [-1])):
        machine.events.clear()
        machine.do(pmap_inval_range(pmap, VA, VA + pages * 4096))
        assert [event[2] for event in machine.events if event[0] == "tlb.flush"] == flushed


def test_a_cpu_that_comes_during_a_shootdown_waits_with_its_bit_set() -> None:
    machine = Machine(shootdown="stream")
    pmap, thread, m = removing(machine)
    one = machine.kernel.cpus[0]
    lwp: Any = one.lwp
    machine.do(swtch_out(lwp))
    machine.until(thread, "pte.write")

    coming = machine.spawn("coming", swtch_in(lwp))
    machine.step(coming)
    assert pmap.pm_active.value == CPULOCK_EXCL | 0b11
    assert not coming.runnable
    machine.finish(thread, coming)
    assert one.tlb.entries() == []


def test_switching_address_spaces_goes_in_the_order_that_shootdowns_need() -> None:
    machine = Machine()
    old, new = machine.pmap("old"), machine.pmap("new")
    cpu = machine.run_on(0, old)
    lwp: Any = cpu.lwp
    machine.events.clear()

    from types import SimpleNamespace

    machine.do(pmap_setlwpvm(lwp, SimpleNamespace(pmap=new)))  # type: ignore[arg-type]

    assert machine.events == [
        ("cpu.active", "new", 1),
        ("cpu.pmap", 0, "new"),
        ("tlb.flush", 0, -1),
        ("cpu.active", "old", 0),
    ]


@pytest.mark.parametrize(("mutants", "stale"), [((), False), (("swtch-keeps-cr3",), True)])
def test_w24_a_shootdown_misses_a_cpu_that_is_briefly_away(
    mutants: tuple[str, ...], stale: bool
) -> None:
    machine = Machine(mutants=mutants)
    pmap, thread, m = removing(machine)
    lwp: Any = machine.kernel.cpus[1].lwp
    machine.do(swtch_out(lwp))
    machine.finish(thread)
    machine.do(swtch_in(lwp))

    assert bool(lwp.cpu.tlb.entries()) is stale


def test_w23_remove_pages_flushes_nobody_else() -> None:
    machine = Machine()
    pmap, thread, m = removing(machine)
    machine.events.clear()
    machine.do(pmap_remove_pages(pmap, 0, 1 << 47))

    assert pmap.resident_count == 0
    assert machine.flags(m) & PG_MAPPED == 0
    assert all(cpu.tlb.entries() for cpu in machine.kernel.cpus)
    assert not any(event[0] in ("ipi.send", "tlb.flush") for event in machine.events)


# W33: interlock_count.


@pytest.mark.parametrize("policy", ["extent_scan", "vptmapped"])
@pytest.mark.parametrize(("mutants", "lost"), [((), False), (("no-interlock-count",), True)])
def test_w33_replacement_and_remove_all(policy: str, mutants: tuple[str, ...], lost: bool) -> None:
    machine = Machine(policy, mutants=mutants)
    pmap = machine.pmap()
    obj, other = machine.object(), machine.object()
    old, new = machine.page(obj, 0), machine.page(other, 0)
    machine.backing(pmap, obj, VA)
    machine.enter(pmap, VA, old)
    cpu = machine.run_on(0, pmap)
    machine.do(cpu.store(VA, 1))

    replacing = machine.spawn("a", pmap_enter(pmap, VA, new, VM_PROT_ALL, False, ENTRY))
    machine.until(replacing, "pte.write", "p", VA)
    # M of the old page is in a local variable of the replacing thread now.
    removing = machine.spawn("p", vm_page_protect(old, VM_PROT_NONE))
    if lost:
        machine.finish(removing)
        assert not old.dirty.value  # "clean", "unmapped"
        machine.finish(replacing)
    else:
        machine.blocked(removing)
        machine.finish(replacing, removing)
        assert old.dirty.value
    assert machine.flags(old) & PG_MAPPED == 0
    assert old.interlock_count.value == 0


def test_w33_the_waiter_wakes_by_itself_after_a_tick_and_gives_up_after_a_minute() -> None:
    machine = Machine("extent_scan")
    pmap = machine.pmap()
    obj = machine.object()
    m = machine.page(obj, 0)
    machine.backing(pmap, obj, VA)
    machine.enter(pmap, VA, m)
    m.interlock_count.state = 1  # somebody never lets go

    machine.spawn("p", vm_page_protect(m, VM_PROT_NONE))
    with pytest.raises(Panic, match="cannot return interlock_count"):
        machine.run(max_steps=100_000)


# pmap_pgscan.


def test_pgscan_sees_real_ptes_and_skips_busy_pages() -> None:
    machine = Machine()
    pmap = machine.pmap()
    obj = machine.object()
    pages = [machine.page(obj, i) for i in range(3)]
    for i, m in enumerate(pages):
        machine.enter(pmap, VA + i * 4096, m)
    for m in (pages[0], pages[2]):
        machine.do(vm_page_wakeup(m))
    seen: list[tuple[int, int]] = []

    async def callback(va: int, m: VmPage) -> bool:
        seen.append((va, m.pfn))
        await vm_page_wakeup(m)
        return True

    machine.do(pmap_pgscan(pmap, 0, 1 << 47, callback))

    assert seen == [(VA, pages[0].pfn), (VA + 0x2000, pages[2].pfn)]


def test_w08_a_late_removal_marks_whoever_owns_the_frame_now() -> None:
    # Nobody asks whether the PTE's frame is still that of the page it was entered for.
    machine = Machine("extent_scan")
    pmap, other = machine.pmap(), machine.pmap("other")
    obj = machine.object()
    m = machine.page(obj, 0)
    machine.enter(pmap, VA, m)
    cpu = machine.run_on(0, pmap)
    machine.do(cpu.store(VA, 1))
    # The frame's new owner, with a mapping of its own.
    m.flags.state = 0
    machine.enter(other, 0x9000, m, VM_PROT_READ | VM_PROT_WRITE)

    machine.do(pmap_remove(pmap, VA, VA + 4096))

    assert m.dirty.value
    assert machine.flags(m) == PG_REFERENCED  # and not PG_MAPPED, though `other` maps it
    assert pte_pfn(other.pte(0x9000).value) == m.pfn
    assert not other.pte(0x9000).value & PTE_M

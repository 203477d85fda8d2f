"""mlock, munlock, and entries in transition: vm_map.c:vm_map_unwire, vm_map_clip_range."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol.effects import Thread

from tests.vkhost.vkernel import RW, Vkernel
from vkhost.kern.panic import Panic
from vkhost.pc64.pmap_bits import PTE_W, pte_pfn
from vkhost.quirks import Quirks
from vkhost.vm import vm_map_delete as deleting
from vkhost.vm.vm import (
    KERN_FAILURE,
    KERN_INVALID_ADDRESS,
    KERN_INVALID_ARGUMENT,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    MAP_ENTRY_IN_TRANSITION,
    MAP_ENTRY_NEEDS_COPY,
    MAP_ENTRY_USER_WIRED,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_protect import vm_map_protect
from vkhost.vm.vm_map_wire import vm_map_unwire
from vkhost.vm.vm_mmap import kern_mmap
from vkhost.vm.vmspace import Vmspace, vmspace_fork, vmspace_rel

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
ANON, FIXED = 0x1000, 0x10


def anonymous(pages: int = 4, **options: Any) -> Vkernel:
    k = Vkernel(**options)
    k.do(kern_mmap(k.own, k.proc, 0, pages * PAGE, 7, ANON | FIXED, -1, 0))
    return k


def mlock(k: Vkernel, first: int, end: int) -> int:
    result: int = k.do(vm_map_unwire(k.own.vm_map, first * PAGE, end * PAGE, new_pageable=False))
    return result


def munlock(k: Vkernel, first: int, end: int) -> int:
    result: int = k.do(vm_map_unwire(k.own.vm_map, first * PAGE, end * PAGE, new_pageable=True))
    return result


def entries(k: Vkernel) -> list[tuple[int, int, int]]:
    """(first page, end, wired_count) of each; none is left in transition."""
    found = list(k.own.vm_map.entries)
    assert not any(e.eflags & MAP_ENTRY_IN_TRANSITION for e in found)
    return [(e.start // PAGE, e.end // PAGE, e.wired_count) for e in found]


def test_a_locked_range_is_wired_and_can_be_let_go() -> None:
    k = anonymous()
    assert mlock(k, 1, 3) == KERN_SUCCESS
    assert entries(k) == [(0, 1, 0), (1, 3, 1), (3, 4, 0)]
    assert (k.own.pmap.wired_count, k.kernel.vmstats.v_wire_count.value) == (2, 2)
    assert mlock(k, 0, 4) == KERN_SUCCESS
    assert {wired for _, _, wired in entries(k)} == {1}, "once is enough"
    assert munlock(k, 0, 4) == KERN_SUCCESS

    assert entries(k) == [(0, 4, 0)]
    assert (k.own.pmap.wired_count, k.kernel.vmstats.v_wire_count.value) == (0, 0)


def test_a_hole_is_refused_and_nothing_is_wired() -> None:
    k = anonymous()
    k.do(vm_map_remove(k.own.vm_map, 2 * PAGE, 3 * PAGE))

    assert mlock(k, 0, 4) == KERN_INVALID_ADDRESS
    assert [wired for _, _, wired in entries(k)] == [0, 0]


def test_what_is_not_locked_cannot_be_let_go() -> None:
    k = anonymous()
    mlock(k, 0, 1)

    assert munlock(k, 0, 2) == KERN_INVALID_ARGUMENT
    assert entries(k)[0] == (0, 1, 1)


def test_a_page_that_cannot_be_had_undoes_all_of_it() -> None:
    k = Vkernel("pv_entry")
    k.vpagetable(k.tables({1: 10 << 12 | RW, 2: 11 << 12 | RW}))

    assert mlock(k, 1, 4) == KERN_FAILURE
    assert not any(wired for _, _, wired in entries(k))
    assert (k.own.pmap.wired_count, k.kernel.vmstats.v_wire_count.value) == (0, 0)


def wiring(k: Vkernel, end: int = 4) -> tuple[Thread, list[int]]:
    """A thread that is between two faults of mlock(0, end): the map is not locked."""
    said: list[int] = []

    async def body() -> None:
        vm_map = k.own.vm_map
        said.append(await vm_map_unwire(vm_map, 0, end * PAGE, new_pageable=False))

    thread = k.spawn("mlock", body())
    k.until(thread, "fault.end")
    while k.own.vm_map.lock.holders():
        k.step(thread)
    assert k.own.vm_map.entries[0].eflags & MAP_ENTRY_IN_TRANSITION
    return thread, said


def test_munmap_waits_for_an_entry_in_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    """vm_map.c:vm_map_delete; taken back, it deletes what is being wired, and panics."""
    k = anonymous()
    thread, said = wiring(k)
    munmap = k.spawn("munmap", vm_map_remove(k.own.vm_map, 0, 2 * PAGE))
    k.blocked(munmap)
    assert len(k.own.vm_map.entries) == 1
    k.finish(thread, munmap)

    assert said == [KERN_SUCCESS]
    assert entries(k) == [(2, 4, 1)]
    k = anonymous()
    wiring(k)
    monkeypatch.setattr(deleting, "MAP_ENTRY_IN_TRANSITION", 0)
    with pytest.raises(Panic, match="attempt to mess with locked entry"):
        k.finish(k.spawn("munmap", vm_map_remove(k.own.vm_map, 0, 2 * PAGE)))


def test_mprotect_does_not_wait_and_the_parts_are_found_again() -> None:
    """CLIP_CHECK_FWD, CLIP_CHECK_BACK of vm_map.c:vm_map_unwire."""
    k = anonymous()
    thread, said = wiring(k)
    assert k.do(vm_map_protect(k.own.vm_map, PAGE, 2 * PAGE, VM_PROT_READ)) == KERN_SUCCESS
    assert len(k.own.vm_map.entries) == 3
    k.finish(thread)

    assert said == [KERN_SUCCESS]
    assert entries(k) == [(0, 1, 1), (1, 2, 1), (2, 4, 1)]
    assert all(e.eflags & MAP_ENTRY_USER_WIRED for e in k.own.vm_map.entries)


def test_two_that_lock_the_same_wait_for_each_other() -> None:
    k = anonymous()
    thread, said = wiring(k)
    other = k.spawn("other", vm_map_unwire(k.own.vm_map, PAGE, 4 * PAGE, new_pageable=True))
    k.blocked(other)
    k.finish(thread, other)

    assert said == [KERN_SUCCESS]
    assert entries(k) == [(0, 1, 1), (1, 4, 0)]
    assert k.own.pmap.wired_count == 1


def test_fork_takes_an_entry_that_is_being_wired_for_a_wired_one() -> None:
    """vm_map.c:vmspace_fork looks at MAP_ENTRY_IN_TRANSITION nowhere."""
    k = anonymous()
    wiring(k)

    with pytest.raises(Panic, match="vm_fault_copy_wired: page missing"):
        k.do(vmspace_fork(k.own, "child"))


def test_the_entry_of_a_child_is_in_transition_for_ever() -> None:
    """vmspace_fork_normal_entry: `*new_entry = *old_entry`. Its exit waits for a wakeup of a map
    that nobody has in hand."""
    k = anonymous(1)
    thread, _ = wiring(k, 1)  # its one page is there: nothing is missing
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))
    k.finish(thread)
    exiting = k.spawn("exit", vmspace_rel(child))
    k.blocked(exiting)

    assert not k.ex.runnable


@pytest.mark.parametrize("pages", [1, 4])
def test_a_fork_that_waits_copies_what_is_wired(pages: int) -> None:
    k = anonymous(pages, quirks=Quirks(fork_copies_transition=False))
    thread, _ = wiring(k, pages)
    children: list[Vmspace] = []

    async def fork() -> None:
        children.append(await vmspace_fork(k.own, "child"))

    forking = k.spawn("fork", fork())
    k.blocked(forking)
    k.finish(thread, forking)

    assert k.fault(0, VM_PROT_WRITE, children[0]) == KERN_SUCCESS
    k.do(vmspace_rel(children[0]))


@pytest.mark.parametrize("copies", [True, False])
def test_a_wired_vpagetable_entry_is_copied_since_2026(copies: bool) -> None:
    """vm_map.c:vm_map_copy_entry: the pages are looked for where the addresses are (W27)."""
    k = Vkernel("pv_entry", quirks=Quirks(fork_copies_wired_vpagetable=copies))
    k.vpagetable(k.tables({5: 10 << 12 | RW}), flags=2)
    k.fault(5 * PAGE, VM_PROT_WRITE)  # shadowed before it is clipped, or it is shown shifted (W49)
    assert mlock(k, 5, 6) == KERN_SUCCESS

    if copies:
        with pytest.raises(Panic, match="vm_fault_copy_wired: page missing"):
            k.do(vmspace_fork(k.own, "child"))
    else:
        child: Vmspace = k.do(vmspace_fork(k.own, "child"))
        assert child.vm_map.entries[1].eflags & MAP_ENTRY_NEEDS_COPY


def test_a_fork_of_an_entry_that_was_never_touched_is_a_panic_where_mapping_it_wires() -> None:
    """vm_fault.c:vm_fault_copy_entry holds the source's object, which there is none of yet."""
    k = Vkernel("wired")
    k.do(kern_mmap(k.own, k.proc, 0, 4 * PAGE, 7, 0x2000 | ANON | FIXED, -1, 0))

    with pytest.raises(Panic, match="vm_object_hold"):
        k.do(vmspace_fork(k.own, "child"))


@pytest.mark.parametrize("quirk", [True, False])
def test_a_childs_copy_of_locked_memory_permits_what_its_parent_may(quirk: bool) -> None:
    """vm_fault.c:vm_fault_copy_entry: prot = dst_entry->max_protection."""
    k = anonymous(1, quirks=Quirks(fork_enters_max_protection=quirk))
    assert mlock(k, 0, 1) == KERN_SUCCESS
    k.do(vm_map_protect(k.own.vm_map, 0, PAGE, 0))

    child: Vmspace = k.do(vmspace_fork(k.own, "child"))

    assert bool(child.pmap.pte(0).state & RW) is quirk


def private_file(quirks: Quirks) -> Vkernel:
    """Two pages, of which the first was written to; none may be any more."""
    k = Vkernel(quirks=quirks)
    k.do(kern_mmap(k.own, k.proc, 0, 2 * PAGE, 3, FIXED, 3, 0))
    assert k.fault(0, VM_PROT_WRITE) == KERN_SUCCESS
    k.do(vm_map_protect(k.own.vm_map, 0, 2 * PAGE, VM_PROT_READ))
    assert mlock(k, 0, 2) == KERN_SUCCESS
    return k


def test_what_is_locked_in_a_lower_layer_is_missed_by_fork() -> None:
    k = private_file(Quirks())

    with pytest.raises(Panic, match="vm_fault_copy_wired: page missing"):
        k.do(vmspace_fork(k.own, "child"))


def test_what_is_locked_is_first_brought_into_the_first_layer() -> None:
    k = private_file(Quirks(locks_lower_layers=False))
    entry = k.own.vm_map.entries[0]

    assert entry.ba.backing_ba is None
    assert k.fault(PAGE, VM_PROT_READ, k.do(vmspace_fork(k.own, "child"))) == KERN_SUCCESS


@pytest.mark.parametrize("quirk", [True, False])
def test_locked_memory_that_is_to_be_copied_on_write(quirk: bool) -> None:
    """vm_map.c:vm_map_lookup: USER_WIRED and COW."""
    k = private_file(Quirks(locked_copies_fault=quirk, locks_lower_layers=False))
    k.do(vm_map_protect(k.own.vm_map, 0, 2 * PAGE, VM_PROT_READ | VM_PROT_WRITE))

    assert k.fault(PAGE, VM_PROT_WRITE) == (KERN_PROTECTION_FAILURE if quirk else KERN_SUCCESS)


def test_a_page_of_a_file_that_is_locked_is_read_from_it() -> None:
    """TRYPAGER: not for who wires, unless the entry is wired already, as that of mlock is."""
    k = Vkernel()
    k.proc.files[3].vnode.pwrite(0, b"12345678")
    k.do(kern_mmap(k.own, k.proc, 0, PAGE, 3, FIXED, 3, 0))

    assert mlock(k, 0, 1) == KERN_SUCCESS

    m = k.kernel.pages[pte_pfn(k.own.pmap.pte(0).state)]
    assert m.frame.words.tobytes()[:8] == b"12345678"


def test_a_vmspace_with_wired_ptes_goes_entries_first() -> None:
    """vm_map.c:vmspace_terminate: vm_fault_unwire finds the pages by their PTEs."""
    k = anonymous(2)
    assert k.do(vm_map_unwire(k.own.vm_map, 0, 2 * PAGE, new_pageable=False)) == KERN_SUCCESS
    assert k.kernel.vmstats.v_wire_count.value == 2
    k.do(vmspace_rel(k.own))

    assert k.kernel.vmstats.v_wire_count.value == 0


def test_the_last_wiring_of_an_entry_unwires_its_pages() -> None:
    """vm_map.c:vm_map_unwire."""
    k = anonymous(2)
    assert mlock(k, 0, 2) == KERN_SUCCESS
    entry = k.own.vm_map.entries[0]
    entry.wired_count += 1
    assert munlock(k, 0, 2) == KERN_SUCCESS

    assert (entry.wired_count, k.own.pmap.wired_count) == (1, 2)


def test_what_has_other_layers_behind_it_is_no_continuation() -> None:
    """vm_map.c:vm_map_simplify_entry: prev->ba.backing_ba == entry->ba.backing_ba."""
    k = Vkernel(quirks=Quirks(locks_lower_layers=False))
    k.do(kern_mmap(k.own, k.proc, 0, 2 * PAGE, 3, FIXED, 3, 0))
    assert k.fault(0, VM_PROT_WRITE) == KERN_SUCCESS

    assert (mlock(k, 1, 2), munlock(k, 1, 2)) == (KERN_SUCCESS, KERN_SUCCESS)

    assert entries(k) == [(0, 1, 0), (1, 2, 0)]
    assert k.own.vm_map.entries[0].ba.object is k.own.vm_map.entries[1].ba.object


def test_what_is_hidden_while_it_is_locked_stays_wired_for_ever() -> None:
    """vm_fault.c:vm_fault_unwire goes by the PTE, which pmap.c:pmap_protect has removed."""
    k = anonymous()
    assert mlock(k, 0, 2) == KERN_SUCCESS
    assert k.do(vm_map_protect(k.own.vm_map, 0, PAGE, 0)) == KERN_SUCCESS

    assert munlock(k, 0, 2) == KERN_SUCCESS

    assert k.kernel.vmstats.v_wire_count.value == 1


def test_a_page_whose_pte_has_lost_its_w_is_unwired_too() -> None:
    """pmap.c:pmap_unwire gives its page to vm_fault_unwire all the same, and counts it not."""
    k = anonymous(2)
    assert mlock(k, 0, 2) == KERN_SUCCESS
    k.own.pmap.pte(PAGE).state &= ~PTE_W
    k.own.pmap.wired_count -= 1

    assert munlock(k, 0, 2) == KERN_SUCCESS
    assert (k.own.pmap.wired_count, k.kernel.vmstats.v_wire_count.value) == (0, 0)

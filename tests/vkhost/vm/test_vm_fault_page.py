"""vm_fault_page: the kernel's own way to a user page."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol.mman import MADV_INVAL
from vkprotocol.vpte import VPTE_A, VPTE_M

from tests.vkhost.vkernel import RW, R, Vkernel
from vkhost.kern.panic import Panic
from vkhost.quirks import Quirks
from vkhost.vm.vm import (
    KERN_FAILURE,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    MAP_ENTRY_NOFAULT,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault_page import Found, vm_fault_page
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_page import PBUSY_LOCKED, PG_MAPPED, PG_REFERENCED, PG_VPTMAPPED, VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_wire import vm_page_unhold

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
READ, WRITE = VM_PROT_READ, VM_PROT_WRITE
PRIVATE, SHARED = 0x2, 0x1


def vkernel(**options: Any) -> Vkernel:
    k = Vkernel(**options)
    k.vpagetable(k.tables({1: 10 << 12 | RW, 2: 11 << 12 | R}))
    return k


def access(k: Vkernel, va: int, fault_type: int, *, busy: bool = False) -> Found:
    found: Found = k.do(vm_fault_page(k.own.vm_map, va, fault_type, busy=busy))
    return found


def page(found: Found) -> VmPage:
    assert found[0] is not None
    assert found[1] == KERN_SUCCESS
    return found[0]


def test_a_page_is_found_held_and_not_mapped() -> None:
    k = vkernel()
    found = access(k, PAGE, READ)
    m = page(found)

    assert (m.pindex, found[2], m.hold_count.value, m.busy_count.value) == (10, False, 1, 0)
    assert k.mapped(PAGE) is None
    assert k.flags(m) & (PG_MAPPED | PG_REFERENCED | PG_VPTMAPPED) == PG_REFERENCED | PG_VPTMAPPED
    assert m.dirty.value == 0
    k.do(vm_page_unhold(m))


def test_it_takes_no_interlock_and_counts_no_fault() -> None:
    k = vkernel()
    access(k, PAGE, READ)

    assert k.named("ilock.enter") == []
    assert k.kernel.vmmeter.vpagetable["vpagetable_faults"].value == 0


def test_a_write_dirties_the_page_and_the_vpte_and_may_return_it_busied() -> None:
    k = vkernel()
    found = access(k, PAGE, WRITE, busy=True)
    m = page(found)

    assert found[2]
    assert m.busy_count.value == PBUSY_LOCKED
    assert (m.dirty.value, m.hold_count.value) == (0xFF, 0)
    assert k.word(4, 1) & (VPTE_A | VPTE_M) == VPTE_A | VPTE_M
    k.do(vm_page_wakeup(m))


@pytest.mark.parametrize(
    ("va", "kind"),
    [(2 * PAGE, WRITE), (5 * PAGE, READ), (1 << 46, READ)],
)
def test_failures(va: int, kind: int) -> None:
    assert access(vkernel(), va, kind) == (None, KERN_FAILURE, False)


def test_an_entry_that_forbids_it_fails() -> None:
    k = Vkernel()
    k.mmap(k.own, 0, PAGE, SHARED, prot=READ)

    assert access(k, 0, WRITE) == (None, KERN_PROTECTION_FAILURE, False)
    assert k.own.vm_map.lock.state == (None, (), 0)


def test_a_nofault_entry_panics() -> None:
    k = vkernel()
    k.own.vm_map.entries[0].eflags |= MAP_ENTRY_NOFAULT

    with pytest.raises(Panic, match="nofault"):
        access(k, PAGE, READ)


def test_an_existing_pte_is_trusted_to_5_4() -> None:
    k = vkernel(tree="5.4")
    k.fault(PAGE, WRITE)
    walks = len(k.named("vpte.read"))
    m = page(access(k, PAGE, WRITE))

    assert (m.pindex, m.hold_count.value, m.dirty.value) == (10, 1, 0xFF)
    assert len(k.named("vpte.read")) == walks
    assert access(k, PAGE, WRITE, busy=True)[2]


def test_a_read_only_pte_does_not_do_for_a_write() -> None:
    k = vkernel()
    k.fault(PAGE, READ)
    walks = len(k.named("vpte.read"))
    page(access(k, PAGE, WRITE))

    assert len(k.named("vpte.read")) > walks


def test_since_2019_it_never_is() -> None:
    """pmap.c:pmap_fault_page_quick asks for the pv_entry of a terminal PTE, and there is none."""
    k = vkernel(tree="2020")
    k.fault(PAGE, WRITE)
    walks = len(k.named("vpte.read"))
    page(access(k, PAGE, WRITE))

    assert len(k.named("vpte.read")) > walks


def test_a_pte_that_changes_under_the_quick_look_is_not_used() -> None:
    k = vkernel(tree="5.4")
    k.fault(PAGE, READ)
    found: list[Found] = []

    async def body() -> None:
        found.append(await vm_fault_page(k.own.vm_map, PAGE, READ))

    thread = k.spawn("host", body())
    k.step(thread)  # the PTE has been read
    k.do(vm_map_madvise(k.own.vm_map, PAGE, 2 * PAGE, MADV_INVAL))
    k.finish(thread)

    assert page(found[0]).hold_count.value == 1
    assert k.named("vpte.read")[-1][4] == 0


def test_w25_the_guest_may_have_given_the_page_away_meanwhile() -> None:
    """Its INVAL returns although the host is going to write the page it walked to."""
    k = vkernel()
    m = page(access(k, PAGE, WRITE))
    k.put(4, 1, 0)
    assert k.vnode.object is not None
    k.vnode.object.memq[4].frame.words[1] = 0

    assert k.do(vm_map_madvise(k.own.vm_map, PAGE, 2 * PAGE, MADV_INVAL)) == 0
    assert m.hold_count.value == 1
    assert m.object is k.vnode.object


def cow(**options: Any) -> Vkernel:
    """A private mapping of the image; page 1 is mapped read-only."""
    k = Vkernel(**options)
    k.mmap(k.own, 0, 4 * PAGE, PRIVATE)
    k.put(1, 0, 77)
    k.fault(PAGE, READ)
    return k


@pytest.mark.parametrize("quirk", [True, False])
@pytest.mark.parametrize("mutants", [(), ("copied-page-kept-mapped",)])
def test_w26_after_a_copy_the_old_page_is_unmapped(quirk: bool, mutants: tuple[str, ...]) -> None:
    k = cow(quirks=Quirks(didcow_or=quirk), mutants=mutants)
    m = page(access(k, PAGE, WRITE))

    assert m.object is not k.vnode.object
    assert m.frame.words[0] == 77
    assert (k.mapped(PAGE) is None) is not bool(mutants)


@pytest.mark.parametrize(("quirk", "removed"), [(True, True), (False, False)])
def test_the_or_removes_it_without_a_copy_too(quirk: bool, removed: bool) -> None:
    k = Vkernel(quirks=Quirks(didcow_or=quirk))
    k.vpagetable(k.tables({1: 10 << 12 | RW}))
    k.fault(PAGE, READ)
    access(k, PAGE, WRITE)

    assert (k.mapped(PAGE) is None) is removed


def test_a_copy_that_took_several_tries_is_remembered() -> None:
    """FW_DIDCOW of the try that made the shadow object; the page comes with a later one."""
    k = cow(quirks=Quirks(didcow_or=False))
    assert k.own.vm_map.entries[0].ba.backing_ba is None
    access(k, PAGE, WRITE)

    assert len(k.named("fault.retry")) > 1
    assert k.mapped(PAGE) is None

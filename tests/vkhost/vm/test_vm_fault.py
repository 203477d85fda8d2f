"""vm_fault as a whole: the order of its steps, restarts, shortcuts, wiring."""

from __future__ import annotations

from typing import Any

import pytest
from vkemu.executors.deadlock import Deadlock
from vkprotocol.effects import curthread
from vkprotocol.mman import MADV_INVAL
from vkprotocol.vpte import VPTE_M

from tests.vkhost.vkernel import RW, Vkernel
from vkhost.kern.panic import Panic
from vkhost.quirks import Quirks
from vkhost.vm.vm import (
    KERN_FAILURE,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    MAP_ENTRY_NOFAULT,
    VM_FAULT_BURST,
    VM_FAULT_DIRTY,
    VM_FAULT_USERMODE,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_fault_wire import vm_fault_wire
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_page import PG_MAPPED, PG_REFERENCED, PG_VPTMAPPED
from vkhost.vm.vm_page_busy import vm_page_busy_wait, vm_page_wakeup

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
READ, WRITE = VM_PROT_READ, VM_PROT_WRITE
SHARED, PRIVATE = 0x1, 0x2


def warm(policy: str = "vptmapped", **config: Any) -> Vkernel:
    """Page 1 of a VPAGETABLE mapping is image page 10; its tables are resident."""
    k = Vkernel(policy, **config)
    k.vpagetable(k.tables({1: 10 << 12 | RW, 2: 11 << 12 | RW}))
    assert k.fault(2 * PAGE, READ) == KERN_SUCCESS
    return k


def test_the_steps_come_in_their_order() -> None:
    k = warm()
    k.fault(PAGE, READ)
    k.do(vm_map_madvise(k.own.vm_map, PAGE, 2 * PAGE, MADV_INVAL))
    del k.events[:]
    k.fault(PAGE, READ)

    interesting = {
        "fault.begin", "map.lock", "ilock.enter", "vpte.read", "page.flags", "pte.write",
        "ilock.exit", "map.unlock", "fault.end",
    }  # fmt: skip
    order = [event[0] for event in k.events if event[0] in interesting]
    assert order == [
        "fault.begin", "map.lock", "ilock.enter", *["vpte.read"] * 5, "page.flags", "pte.write",
        "ilock.exit", "map.unlock", "fault.end",
    ]  # fmt: skip


def test_the_page_is_marked_before_it_is_entered() -> None:
    k = warm()
    k.fault(PAGE, READ)
    assert k.vnode.object is not None
    flags = k.flags(k.vnode.object.memq[10])

    assert flags & (PG_MAPPED | PG_REFERENCED | PG_VPTMAPPED) == (
        PG_MAPPED | PG_REFERENCED | PG_VPTMAPPED
    )


def test_all_is_released_at_the_end() -> None:
    k = warm()

    async def body() -> list[Any]:
        await vm_fault(k.own.vm_map, PAGE, WRITE)
        await vm_fault(k.own.vm_map, 9 * PAGE, WRITE)  # no VPTE
        assert curthread().tokens == []
        held = curthread().held
        assert held is not None
        return list(held)

    assert k.do(body()) == []
    assert k.own.vm_map.ilock_base is None
    assert k.own.vm_map.lock.state == (None, (), 0)
    assert k.vnode.object is not None
    assert all(m.busy_count.value == 0 for m in k.vnode.object.memq.values())


def test_nothing_mapped_fails() -> None:
    k = Vkernel()

    assert k.fault(0, READ) == KERN_FAILURE


def test_an_entry_that_forbids_the_access_fails() -> None:
    k = Vkernel()
    k.mmap(k.own, 0, PAGE, SHARED, prot=READ)

    assert k.fault(0, WRITE) == KERN_PROTECTION_FAILURE


def test_a_nofault_entry_panics() -> None:
    k = warm()
    k.own.vm_map.entries[0].eflags |= MAP_ENTRY_NOFAULT

    with pytest.raises(Panic, match="fault on nofault entry, addr: 1000"):
        k.fault(PAGE, READ)


def test_a_second_fault_of_the_address_waits_for_the_first() -> None:
    k = warm()

    async def body() -> None:
        assert await vm_fault(k.own.vm_map, PAGE, READ) == KERN_SUCCESS

    first = k.spawn("first", body())
    k.until(first, "vpte.read")
    second = k.spawn("second", body())
    k.until(second, "ilock.wait")
    k.blocked(second)
    k.run()


@pytest.mark.parametrize("interlock", [True, False])
def test_w01_an_inval_does_not_return_before_a_fault_that_read_the_old_vpte(
    interlock: bool,
) -> None:
    k = warm(interlock=interlock)
    k.fault(PAGE, READ)
    k.do(vm_map_madvise(k.own.vm_map, PAGE, 2 * PAGE, MADV_INVAL))

    async def fault() -> None:
        await vm_fault(k.own.vm_map, PAGE, READ)

    assert k.vnode.object is not None
    table = k.vnode.object.memq[4].frame

    async def edit_and_inval() -> None:
        await table.store(1, 0)
        await vm_map_madvise(k.own.vm_map, PAGE, 2 * PAGE, MADV_INVAL)

    worker = k.spawn("fault", fault())
    while k.until(worker, "vpte.read")[4] != 0:
        pass
    guest = k.spawn("guest", edit_and_inval())
    while not guest.done:
        k.step(guest if guest.runnable else worker)
    k.finish(worker)

    assert (k.mapped(PAGE) is None) is interlock


def three_parties(k: Vkernel) -> None:
    """W43: a fault restarts, an INVAL waits for its interlock, a mapper for the map."""
    assert k.vnode.object is not None
    m = k.vnode.object.memq[10]
    k.do(vm_page_busy_wait(m, "test"))

    async def fault() -> None:
        await vm_fault(k.own.vm_map, PAGE, READ)

    async def inval() -> None:
        await vm_map_madvise(k.own.vm_map, PAGE, 2 * PAGE, MADV_INVAL)

    async def munmap() -> None:
        await vm_map_remove(k.own.vm_map, 1 << 30, 1 << 31)

    a = k.spawn("a", fault())
    k.blocked(a)  # on the busy page, with the interlock
    b = k.spawn("b", inval())
    k.blocked(b)  # on the interlock, with the map lock
    c = k.spawn("c", munmap())
    k.blocked(c)  # on the map lock, and nobody may share it any more
    k.do(vm_page_wakeup(m))
    k.run()


def test_w43_the_interlock_goes_before_the_map_lock_is_asked_for() -> None:
    k = warm()
    k.fault(PAGE, READ)

    three_parties(k)


def test_mutant_w43_kept_over_the_retry_it_deadlocks() -> None:
    k = warm(mutants=("ilock-kept-over-retry",))
    k.fault(PAGE, READ)

    with pytest.raises(Deadlock, match="vm_map"):
        three_parties(k)


def dmap() -> Vkernel:
    k = Vkernel()
    k.mmap(k.own, 0, 16 * PAGE, SHARED)
    return k


def test_f4_a_resident_page_of_a_normal_entry_needs_no_token() -> None:
    k = dmap()
    k.fault(PAGE, READ | WRITE, flags=VM_FAULT_DIRTY)
    k.do(vm_map_madvise(k.own.vm_map, 0, 16 * PAGE, MADV_INVAL))
    del k.events[:]
    k.fault(PAGE, READ)

    assert ("page.busy", 0, "soft") in k.events
    assert ("page.busy", 0, "hard") not in k.events
    assert k.mapped(PAGE) == (1, 7)
    assert k.vnode.object is not None
    assert k.vnode.object.memq[1].busy_count.value == 0


@pytest.mark.parametrize(("mutants", "frame"), [((), 10), (("linear-shortcut",), 1)])
def test_f4_is_refused_to_vpagetable_entries(mutants: tuple[str, ...], frame: int) -> None:
    """W42: the frame whose number is the address is a page table here."""
    k = warm(mutants=mutants)
    k.fault(PAGE, READ)
    k.do(vm_map_madvise(k.own.vm_map, PAGE, 2 * PAGE, MADV_INVAL))
    assert k.vnode.object is not None
    k.vnode.object.memq[1].dirty.state = 0xFF
    k.fault(PAGE, READ)

    assert k.mapped(PAGE) is not None
    assert k.mapped(PAGE)[0] == frame  # type: ignore[index]


def test_f20_resident_neighbours_are_mapped_with_a_burst() -> None:
    k = dmap()
    for page in (3, 4, 6):
        k.fault(page * PAGE, READ)
    k.do(vm_map_madvise(k.own.vm_map, 0, 16 * PAGE, MADV_INVAL))
    k.fault(5 * PAGE, WRITE, flags=VM_FAULT_BURST | VM_FAULT_USERMODE)

    assert [page for page in range(16) if k.mapped(page * PAGE)] == [3, 4, 5, 6]
    assert k.mapped(4 * PAGE) == (4, 7)


def test_f20_not_in_a_vpagetable_entry() -> None:
    k = warm()
    k.do(vm_map_madvise(k.own.vm_map, 0, 16 * PAGE, MADV_INVAL))
    k.fault(PAGE, READ, flags=VM_FAULT_BURST)

    assert [page for page in range(16) if k.mapped(page * PAGE)] == [1]


def test_the_fault_counter_counts_every_attempt() -> None:
    """facts 9: restarts again, failures too, host faults of NORMAL entries not."""
    k = warm()
    counter = k.kernel.vmmeter.vpagetable["vpagetable_faults"]
    before = counter.value
    retries = len(k.named("fault.retry"))
    k.fault(PAGE, READ)
    k.fault(9 * PAGE, READ)

    assert counter.value - before == 2 + len(k.named("fault.retry")) - retries
    assert k.kernel.vmmeter.counters["v_vm_faults"] == 2


def test_debug_vpagetable_and_debug_fault_print() -> None:
    k = warm()
    k.kernel.vmmeter.tunables["debug_vpagetable"] = 1
    k.kernel.vmmeter.tunables["debug_fault"] = -2
    pde = k.own.vm_map.entries[0].master_pde
    k.fault(9 * PAGE, READ)
    lines = [event[1] for event in k.named("console")]

    assert lines[0] == f"VPAGETABLE fault: vaddr=9000 pde={pde:x} type=01 pid={k.proc.pid}"
    assert lines[-1].startswith("VM_FAULT result 5 addr=9000 type=01")
    k.kernel.vmmeter.tunables["debug_fault"] = 1
    k.fault(2 * PAGE, READ)
    assert k.kernel.vmmeter.tunables["debug_fault"] == 0
    assert k.named("console")[-1][1].startswith("VM_FAULT result 0 addr=2000")


@pytest.mark.parametrize("full", [True, False])
def test_f3_a_wired_entry_is_faulted_for_all_it_allows(full: bool) -> None:
    k = Vkernel(quirks=Quirks(wired_full_protection=full))
    k.vpagetable(k.tables({1: 10 << 12 | RW}))
    k.own.vm_map.entries[0].wired_count = 1

    assert k.fault(PAGE, READ) == KERN_SUCCESS
    assert bool(k.word(4, 1) & VPTE_M) is full


def test_wiring_and_unwiring_of_a_vpagetable_entry() -> None:
    k = warm(policy="pv_entry")
    vm_map = k.own.vm_map
    vm_map.entries[0].wired_count = 1
    assert k.do(vm_fault_wire(vm_map, PAGE, 3 * PAGE, user_wire=False)) == KERN_SUCCESS
    assert k.vnode.object is not None
    wired = [k.vnode.object.memq[frame].wire_count.value for frame in (10, 11, 4)]

    assert wired == [1, 1, 0]
    assert k.own.pmap.wired_count == 2
    k.do(vm_map_remove(vm_map, 0, 1 << 47))
    assert k.own.pmap.wired_count == 0
    assert k.kernel.vmstats.v_wire_count.value == 0


def test_wiring_that_fails_undoes_itself() -> None:
    k = warm(policy="pv_entry")
    k.own.vm_map.entries[0].wired_count = 1

    assert k.do(vm_fault_wire(k.own.vm_map, 2 * PAGE, 4 * PAGE, user_wire=False)) == KERN_FAILURE
    assert k.kernel.vmstats.v_wire_count.value == 0


def test_the_resident_set_limit_is_enforced_at_user_faults() -> None:
    k = warm(policy="pv_entry")
    k.proc.rlimit_rss = PAGE
    k.fault(PAGE, READ, flags=VM_FAULT_USERMODE)
    assert k.named("pageout.rss") == []
    k.proc.rss_hysteresis = 0
    k.fault(PAGE, READ)
    assert k.named("pageout.rss") == []
    k.fault(PAGE, READ, flags=VM_FAULT_USERMODE)

    assert len(k.named("pageout.rss")) == 1

"""The blocks of vm_fault_object: what each waits for, what is held meanwhile, what comes of it."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol.effects import Thread, pause

from tests.vkhost.vkernel import RW, Vkernel
from vkhost.quirks import Quirks
from vkhost.vm.vm import (
    KERN_FAILURE,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    VM_FAULT_DIRTY,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_map_interlock import vm_map_deinterlock, vm_map_interlock
from vkhost.vm.vm_mmap import kern_mmap
from vkhost.vm.vm_page import PG_SWAPPED, VmPage
from vkhost.vm.vm_page_busy import (
    vm_page_busy_wait,
    vm_page_io_finish,
    vm_page_io_start,
    vm_page_wakeup,
)
from vkhost.vm.vm_page_cache import vm_page_cache
from vkhost.vm.vm_page_queue import PQ_ACTIVE, PQ_CACHE
from vkhost.vm.vm_pager import vm_pager_put_pages
from vkhost.vm.vmspace import vmspace_fork

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
READ, WRITE = VM_PROT_READ, VM_PROT_WRITE
ANON, PRIVATE, SHARED = 0x1000, 0x2, 0x1


def linear(**config: Any) -> Vkernel:
    """A VPAGETABLE mapping of the image by a master pde with PS: no tables in the way."""
    k = Vkernel(**config)
    k.vpagetable(RW | 0x80)
    return k


def page_of(k: Vkernel, frame: int) -> VmPage:
    assert k.vnode.object is not None
    return k.vnode.object.memq[frame]


def spawn_fault(k: Vkernel, va: int, fault_type: int) -> tuple[Thread, list[int]]:
    results: list[int] = []

    async def body() -> None:
        results.append(await vm_fault(k.own.vm_map, va, fault_type))

    return k.spawn("fault", body()), results


def busy(k: Vkernel, m: VmPage) -> None:
    k.do(vm_page_busy_wait(m, "test"))


def nothing_held_but_the_interlock(k: Vkernel, thread: Thread) -> None:
    assert k.own.vm_map.lock.state == (None, (), 0)
    assert k.vnode.lock.state == (None, (), 0)
    assert k.vnode.object is not None
    assert k.vnode.object.token.state == (None, ())
    assert thread.held == []
    assert k.own.vm_map.ilock_base is not None


def test_1_a_dead_object_fails() -> None:
    k = linear()
    k.fault(0, READ)
    assert k.vnode.object is not None
    k.vnode.object.dead = True

    assert k.fault(PAGE, READ) == KERN_PROTECTION_FAILURE


def test_2_a_busy_page_is_waited_for_with_the_interlock_only() -> None:
    k = linear()
    k.fault(0, READ)
    busy(k, page_of(k, 0))
    thread, results = spawn_fault(k, 0, READ)
    k.blocked(thread)

    nothing_held_but_the_interlock(k, thread)
    k.do(vm_page_wakeup(page_of(k, 0)))
    k.finish(thread)
    assert results == [KERN_SUCCESS]
    assert [event[3] for event in k.named("fault.retry")][-1] == "busy"
    assert k.kernel.vmmeter.counters["v_intrans"] == 1


def test_2_an_inval_of_the_address_waits_for_all_of_the_sleep() -> None:
    """W30."""
    k = linear()
    k.fault(0, READ)
    busy(k, page_of(k, 0))
    thread, _ = spawn_fault(k, 0, READ)
    k.blocked(thread)

    async def inval(start: int) -> None:
        from vkhost.vm.vm_map_madvise import vm_map_madvise

        assert await vm_map_madvise(k.own.vm_map, start, start + PAGE, 10) == 0

    other = k.spawn("elsewhere", inval(PAGE))
    k.finish(other)
    stalled = k.spawn("inval", inval(0))
    k.blocked(stalled)
    assert k.own.vm_map.lock.state[1] == (stalled.tid,)
    k.do(vm_page_wakeup(page_of(k, 0)))
    k.run()
    assert stalled.done


def cached(k: Vkernel, frame: int) -> VmPage:
    """Put a resident page on PQ_CACHE, unmapped."""
    k.fault(frame * PAGE, READ)
    m = page_of(k, frame)
    from vkhost.vm.vm_map_madvise import vm_map_madvise

    k.do(vm_map_madvise(k.own.vm_map, 0, 1 << 30, 10))
    busy(k, m)
    k.do(vm_page_cache(m))
    assert m.queue == PQ_CACHE
    return m


def test_a_cached_page_is_taken_back_without_io() -> None:
    k = linear(policy="pv_entry")
    m = cached(k, 0)
    gets = len(k.named("pager.get"))

    assert k.fault(0, READ) == KERN_SUCCESS
    assert m.queue == PQ_ACTIVE
    assert len(k.named("pager.get")) == gets


@pytest.mark.parametrize("killed", [False, True])
def test_3_a_cached_page_waits_while_memory_is_severe(killed: bool) -> None:
    k = linear(policy="pv_entry")
    m = cached(k, 0)
    k.kernel.vmmeter.v_free_severe = 1000
    thread, results = spawn_fault(k, 0, READ)
    k.blocked(thread)

    nothing_held_but_the_interlock(k, thread)
    assert m.queue == PQ_ACTIVE
    assert k.events[-1] == ("pageout.wait", "pfault")
    if killed:
        k.proc.lowmemkill.state = True
    k.kernel.vmmeter.v_free_severe = 1
    k.run()
    assert results == [KERN_PROTECTION_FAILURE if killed else KERN_SUCCESS]


def test_4_a_page_not_resident_needs_the_exclusive_token() -> None:
    k = linear()

    assert k.fault(0, READ) == KERN_SUCCESS
    assert [event[3] for event in k.named("fault.retry")] == ["exclusive", "pagein"]
    assert k.own.vm_map.entries[0].ba.excl_heur.value is False  # cleared by the page found


def test_4_the_next_fault_there_asks_for_it_at_once() -> None:
    k = linear()
    k.fault(0, READ)
    k.own.vm_map.entries[0].ba.excl_heur.state = True

    assert k.fault(PAGE, READ) == KERN_SUCCESS
    assert [event[3] for event in k.named("fault.retry")] == ["exclusive", "pagein", "pagein"]


@pytest.mark.parametrize("unbounded", [False, True])
def test_5_a_vpte_beyond_the_object(unbounded: bool) -> None:
    """W35. Of anonymous memory: a file has no page there under any quirk."""
    k = Vkernel(quirks=Quirks(unbounded_object=unbounded))
    k.do(mmap_anon(k, 4 * PAGE))
    k.own.vm_map.entries[0].master_pde = 1000 << 12 | RW | 0x80

    result = k.fault(0, WRITE)
    assert result == (KERN_SUCCESS if unbounded else KERN_PROTECTION_FAILURE)
    assert k.own.vm_map.ilock_base is None
    if unbounded:
        assert k.mapped(0) == (1000, 7)


@pytest.mark.parametrize("unbounded", [False, True])
@pytest.mark.parametrize("flags", [SHARED, PRIVATE])
def test_5_of_the_file_too(unbounded: bool, flags: int) -> None:
    """However long the shadow before it is: the file is asked, and ends where it ends."""
    k = Vkernel(quirks=Quirks(unbounded_object=unbounded))
    k.vpagetable(64 << 12 | RW | 0x80, flags=flags)

    assert k.fault(0, READ) == KERN_PROTECTION_FAILURE


async def mmap_anon(k: Vkernel, size: int, flags: int = PRIVATE) -> None:
    from vkhost.vm.vm_mmap import kern_mmap

    found = await kern_mmap(k.own, k.proc, 0, size, 7, flags | ANON | 0x2000 | 0x10, -1, 0)
    assert found == (0, 0)


def test_6_without_memory_the_fault_waits_and_starts_again() -> None:
    k = linear()
    k.kernel.vmmeter.v_free_severe = 1000
    thread, results = spawn_fault(k, 0, READ)
    k.blocked(thread)

    nothing_held_but_the_interlock(k, thread)
    k.kernel.vmmeter.v_free_severe = 1
    k.run()
    assert results == [KERN_SUCCESS]
    assert "memory" in [event[3] for event in k.named("fault.retry")]


def test_7_page_in_holds_map_object_vnode_and_interlock() -> None:
    k = linear()
    thread, _ = spawn_fault(k, 0, READ)
    k.until(thread, "pager.get")

    assert k.own.vm_map.lock.state[1] == (thread.tid,)
    assert k.vnode.object is not None
    assert k.vnode.object.token.state == (thread.tid, ())
    assert k.vnode.lock.state[1] == (thread.tid,)
    assert k.own.vm_map.ilock_base is not None
    k.finish(thread)


def test_7_a_page_brought_in_is_valid_clean_and_what_the_file_says() -> None:
    k = linear()
    k.put(3, 7, 0xABCD)
    k.fault(3 * PAGE, READ)
    m = page_of(k, 3)

    assert m.frame.words[7] == 0xABCD
    assert (m.valid, m.dirty.value) == (0xFF, 0)


def test_7_an_io_error_fails_the_fault_and_frees_the_page(monkeypatch: Any) -> None:
    k = linear()

    def broken(offset: int, count: int) -> bytes:
        raise OSError("broken disk")

    monkeypatch.setattr(k.vnode, "pread", broken)

    assert k.fault(0, READ) == KERN_FAILURE
    assert k.vnode.object is not None
    assert k.vnode.object.memq == {}
    assert k.own.vm_map.ilock_base is None


def private(k: Vkernel) -> Vkernel:
    """Pages 0-3 of the image, copy-on-write, as a NORMAL mapping."""
    k.mmap(k.own, 0, 4 * PAGE, PRIVATE)
    return k


def test_8_a_write_copies_the_page_of_a_deeper_layer() -> None:
    k = private(Vkernel())
    k.put(1, 0, 77)

    assert k.fault(PAGE, READ) == KERN_SUCCESS
    assert k.mapped(PAGE) == (1, 5)  # shared, so not writable
    assert k.fault(PAGE, WRITE) == KERN_SUCCESS
    assert k.mapped(PAGE) == (1, 7)
    shadow = k.own.vm_map.entries[0].ba.object
    assert shadow is not None
    assert shadow is not k.vnode.object
    assert shadow.memq[1].frame.words[0] == 77
    assert page_of(k, 1).frame is not shadow.memq[1].frame
    assert k.kernel.vmmeter.counters["v_cow_faults"] == 1


def test_8_a_read_below_frees_the_page_taken_for_the_copy() -> None:
    k = private(Vkernel())
    k.fault(PAGE, WRITE)  # makes the shadow object
    shadow = k.own.vm_map.entries[0].ba.object
    assert shadow is not None
    k.fault(2 * PAGE, READ)

    assert sorted(shadow.memq) == [1]
    assert k.mapped(2 * PAGE) == (2, 5)


def test_9_anonymous_memory_is_zeroed_whatever_the_frame_held() -> None:
    k = Vkernel()
    for pfn in range(k.kernel.config.pages):
        k.kernel.physmem.frames[pfn].words[5] = 0xDEAD
    k.do(mmap_anon(k, 4 * PAGE))
    k.own.vm_map.entries[0].master_pde = RW | 0x80

    assert k.fault(PAGE, WRITE) == KERN_SUCCESS
    obj = k.own.vm_map.entries[0].ba.object
    assert obj is not None
    assert list(obj.memq[1].frame.words) == [0] * 512
    assert k.kernel.vmmeter.counters["v_zfod"] == 1


def test_9_zeroes_also_at_the_end_of_a_chain() -> None:
    k = Vkernel()
    k.do(mmap_anon(k, 4 * PAGE))
    k.own.vm_map.entries[0].master_pde = RW | 0x80
    k.fault(0, WRITE)
    k.do(vmspace_fork(k.own, "child"))

    assert k.fault(PAGE, WRITE) == KERN_SUCCESS
    entry = k.own.vm_map.entries[0]
    assert entry.ba.backing_ba is not None
    assert k.mapped(PAGE) == (1, 7)
    assert k.kernel.vmmeter.counters["v_zfod"] == 2


def test_a_write_fault_of_a_user_dirties_the_page_at_once() -> None:
    k = linear()
    k.fault(0, WRITE)

    assert page_of(k, 0).dirty.value == 0
    k.fault(PAGE, WRITE, flags=VM_FAULT_DIRTY)
    assert page_of(k, 1).dirty.value == 0xFF


def test_the_vnode_lock_is_waited_for_without_the_token() -> None:
    """Or the pageout daemon, which locks the vnode first, could not have the object's."""
    k = linear()
    k.fault(0, READ)

    async def vget() -> None:
        await k.vnode.lock.acquire_exclusive()
        await pause(1)
        await k.vnode.lock.release()

    owner = k.spawn("vget", vget())
    k.blocked(owner)
    thread, results = spawn_fault(k, 0, READ)
    k.blocked(thread)
    assert k.vnode.object is not None
    assert k.vnode.object.token.state == (None, ())
    k.run()
    assert results == [KERN_SUCCESS]


def test_a_cold_walk_restarts_about_twice_for_each_page() -> None:
    k = Vkernel()
    k.vpagetable(k.tables({1: 10 << 12 | RW}))
    k.fault(PAGE, READ)

    assert len(k.named("pager.get")) == 5
    assert 5 <= len(k.named("fault.retry")) <= 10
    assert len(k.named("fault.retry")) == len(k.named("ilock.exit")) - 1


def test_the_interlock_is_not_what_restarts_leave_behind() -> None:
    k = linear()

    async def take() -> None:
        ilock = await vm_map_interlock(k.own.vm_map, 0, 1 << 40)
        await vm_map_deinterlock(k.own.vm_map, ilock)

    for va in range(0, 8 * PAGE, PAGE):
        assert k.fault(va, READ) == KERN_SUCCESS
    k.do(take())


def test_a_write_gives_up_the_copy_on_swap() -> None:
    """vm_fault.c:vm_fault_object (VM_FAULT_DIRTY): the block is stale from now on, and a page that
    is clean for once must not be found in it again."""
    k = Vkernel(swap_pages=2)
    k.do(kern_mmap(k.own, k.proc, 0, PAGE, 7, ANON | PRIVATE | 0x10, -1, 0))
    assert k.fault(0, WRITE, flags=VM_FAULT_DIRTY) == KERN_SUCCESS
    obj = k.own.vm_map.entries[0].ba.object
    assert obj is not None
    m = obj.memq[0]

    async def page_out() -> None:
        await vm_page_io_start(m)
        await vm_pager_put_pages(obj, [m], 0)
        await vm_page_io_finish(m)

    k.do(page_out())
    assert (obj.swblocks, m.dirty.value, bool(m.flags.value & PG_SWAPPED)) == ({0: 0}, 0, True)
    assert k.fault(0, READ) == KERN_SUCCESS
    assert m.flags.value & PG_SWAPPED

    assert k.fault(0, WRITE, flags=VM_FAULT_DIRTY) == KERN_SUCCESS
    assert not obj.swblocks
    assert not m.flags.value & PG_SWAPPED
    assert k.kernel.swap.vm_swap_size.value == 2

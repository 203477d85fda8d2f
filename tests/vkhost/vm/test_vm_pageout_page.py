"""What the inactive scan does to one page: every path of vm_pageout_page."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol.effects import Cell

from tests.vkhost.vm.pages import Pages, queue_of
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.vm.vm import VM_PROT_READ
from vkhost.vm.vm_page import ACT_INIT, PG_REFERENCED, PG_UNQUEUED, PG_WINATCFLS, VmPage
from vkhost.vm.vm_page_alloc import vm_page_free
from vkhost.vm.vm_page_busy import vm_page_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_flag_set, vm_page_undirty
from vkhost.vm.vm_page_queue import PQ_INACTIVE
from vkhost.vm.vm_page_wire import vm_page_hold, vm_page_wire
from vkhost.vm.vm_pageout_clean import OBJPC_ALLOW_ACTIVE, OBJPC_TRY_TO_CACHE
from vkhost.vm.vm_pageout_page import Laundry, vm_pageout_page

pytestmark = pytest.mark.usefixtures("guarded")


def page_out(
    host: Pages, m: VmPage, *, passes: int = 0, laundry: Laundry | None = None, flags: int = 0
) -> int:
    host.busied(m)
    count: int = host.drive(
        vm_pageout_page(host.kernel, m, laundry or Laundry(max_launder=99), passes, flags)
    )
    assert not m.busy_count.value
    return count


def inactive(host: Pages) -> list[int]:
    queue = host.kernel.queues.of(PQ_INACTIVE, 0)
    return [link.pindex for link in queue if isinstance(link, VmPage)]


def test_a_wired_page_leaves_the_queue() -> None:
    host = Pages()
    m = host.resident(0)
    m.wire_count.state = 1

    assert page_out(host, m) == 0
    assert queue_of(m) == "none"


def test_wiring_takes_a_page_off_its_queue() -> None:
    host = Pages()
    m = host.busied(host.resident(0))
    host.drive(vm_page_wire(m))

    assert queue_of(m) == "none"


def test_a_held_page_goes_to_the_tail() -> None:
    host = Pages()
    m = host.resident(0)
    host.resident(1)
    host.drive(vm_page_hold(m))

    assert page_out(host, m) == 0
    assert inactive(host) == [1, 0]


def test_a_referenced_page_is_activated() -> None:
    host = Pages()
    m = host.resident(0)
    host.drive(vm_page_flag_set(m, PG_REFERENCED))
    laundry = Laundry(max_launder=1)

    assert page_out(host, m, laundry=laundry) == 0
    assert queue_of(m) == "active"
    assert m.act_count == ACT_INIT + 4
    assert not m.flags.value & PG_REFERENCED
    assert laundry.reactivated == 1


def test_a_page_used_through_a_pte_is_activated() -> None:
    host = Pages()
    m = host.busied(host.resident(0))
    entry = host.vmspace.vm_map.entries[0]
    host.drive(pmap_enter(host.vmspace.pmap, 0, m, VM_PROT_READ, False, entry))
    pte = host.vmspace.pmap.pte(0)
    pte.state |= 0x20
    host.drive(vm_page_wakeup(m))

    assert page_out(host, m) == 0
    assert queue_of(m) == "active"
    assert not pte.state & 0x20


def test_references_to_an_unused_object_do_not_count() -> None:
    host = Pages()
    m = host.resident(0)
    host.drive(vm_page_flag_set(m, PG_REFERENCED))
    host.file.ref_count.state = 0

    assert page_out(host, m) == 1
    assert queue_of(m) == "cache"


def test_an_invalid_page_is_freed() -> None:
    host = Pages()
    m = host.busied(host.resident(0))
    m.valid = 0
    host.drive(vm_page_wakeup(m))

    assert page_out(host, m) == 1
    assert queue_of(m) == "free"
    assert 0 not in host.file.memq


def test_a_clean_page_is_cached() -> None:
    host = Pages()
    m = host.resident(0)

    assert page_out(host, m) == 1
    assert queue_of(m) == "cache"
    assert host.file.memq[0] is m


def test_a_dirty_page_goes_round_once_more() -> None:
    host = Pages()
    m = host.resident(0, dirty=True)
    host.resident(1)
    laundry = Laundry(max_launder=9)

    assert page_out(host, m, laundry=laundry) == 0
    assert inactive(host) == [1, 0]
    assert m.flags.value & PG_WINATCFLS
    assert laundry.lru2 == 1
    assert host.stored(0) == 0


@pytest.mark.parametrize(("passes", "flags"), [(0, OBJPC_TRY_TO_CACHE), (1, 0)])
def test_then_it_is_written(passes: int, flags: int) -> None:
    host = Pages()
    m = host.resident(0, dirty=True)
    if not passes:
        page_out(host, m)
    laundry = Laundry(max_launder=9)

    assert page_out(host, m, passes=passes, laundry=laundry, flags=flags) == 1
    assert host.stored(0) == 1
    assert m.dirty.value == 0
    assert queue_of(m) == ("cache" if flags else "inactive")
    assert (laundry.flushed, laundry.max_launder) == (1, 8)


def test_but_no_more_than_so_many() -> None:
    host = Pages()
    m = host.resident(0, dirty=True)

    assert page_out(host, m, passes=1, laundry=Laundry(max_launder=0)) == 0
    assert queue_of(m) == "inactive"
    assert host.stored(0) == 0


def test_anonymous_memory_goes_to_swap() -> None:
    host = Pages()
    m = host.resident(3, obj=host.anonymous(), dirty=True)

    assert page_out(host, m, passes=1) == 1
    assert m.dirty.value == 0
    assert m.object is not None
    assert 3 in m.object.swblocks


def test_when_swap_is_full_it_stays_dirty() -> None:
    host = Pages(swap_pages=0)
    m = host.resident(3, obj=host.anonymous(), dirty=True)

    assert page_out(host, m, passes=1) == 0
    assert m.dirty.value
    assert queue_of(m) == "inactive"


def test_a_dead_object_is_left_alone() -> None:
    host = Pages()
    obj = host.anonymous()
    m = host.resident(0, obj=obj, dirty=True)
    object.__setattr__(obj, "dead", True)

    assert page_out(host, m, passes=1) == 0
    assert m.dirty.value


def test_a_locked_vnode_is_not_waited_for_for_ever() -> None:
    host = Pages()
    m = host.resident(0, dirty=True)
    host.drive(host.vnode.lock.acquire_exclusive())
    laundry = Laundry(max_launder=9)

    assert page_out(host, m, passes=1, laundry=laundry) == 0
    assert laundry.vpfailed is host.vnode
    assert laundry.vnodes_skipped == 1
    assert m.hold_count.value == 0
    assert m.dirty.value


def while_waiting(change: Any) -> tuple[Pages, VmPage]:
    """The pageout path waits for the vnode; meanwhile something happens to the page."""
    host = Pages()
    m = host.resident(0, dirty=True)
    go = Cell("go", False)

    async def hold_the_vnode() -> None:
        await host.vnode.lock.acquire_exclusive()
        await go.wait(bool)
        await host.vnode.lock.release()

    holder = host.spawn("holder", hold_the_vnode())
    host.blocked(holder)
    host.busied(m)
    thread = host.spawn("pagedaemon", vm_pageout_page(host.kernel, m, Laundry(max_launder=9), 1, 0))
    host.blocked(thread)
    host.drive(change(host, m))
    host.drive(go.store(True))
    host.finish(holder, thread)
    return host, m


def test_the_page_is_somebody_elses_after_the_wait() -> None:
    async def freed(host: Pages, m: VmPage) -> None:
        await vm_page_busy_wait(m, "test")
        await vm_page_free(m)

    host, m = while_waiting(freed)

    assert host.stored(0) == 0
    assert queue_of(m) == "free"
    assert m.hold_count.value == 0
    assert host.vnode.lock.state[0] is None


def test_the_page_is_clean_after_the_wait() -> None:
    async def cleaned(host: Pages, m: VmPage) -> None:
        await vm_page_undirty(m)

    host, m = while_waiting(cleaned)

    assert ("console", f"vm_pageout_page: rebusy {m.pfn} failed(C)") in host.events
    assert queue_of(m) == "inactive"


def test_a_wait_that_changes_nothing() -> None:
    async def nothing(host: Pages, m: VmPage) -> None:
        pass

    host, m = while_waiting(nothing)

    assert host.stored(0) == 1
    assert not m.dirty.value


def cluster_of(host: Pages) -> list[int]:
    """Page indexes of what was laundered, in order."""
    frames = [event[1] for event in host.events if event[0] == "pageout.launder"]
    return [host.kernel.pages[pfn].pindex for pfn in frames]


def test_dirty_neighbours_are_written_along() -> None:
    host = Pages()
    pages = [host.resident(i, dirty=True) for i in range(5)]

    assert page_out(host, pages[2], passes=1) == 5
    assert cluster_of(host) == [0, 1, 2, 3, 4]
    assert [host.stored(i) for i in range(5)] == [1, 2, 3, 4, 5]


def test_a_cluster_stays_in_its_window() -> None:
    host = Pages(cluster_pages=4)
    pages = [host.resident(i, dirty=True) for i in range(2, 10)]

    assert page_out(host, pages[3], passes=1) == 4
    assert cluster_of(host) == [4, 5, 6, 7]


@pytest.mark.parametrize("why", ["clean", "wired", "held", "busy", "absent", "unqueued"])
def test_a_cluster_ends_at(why: str) -> None:
    host = Pages()
    for i in (0, 1, 3):
        host.resident(i, dirty=True)
    if why != "absent":
        odd = host.resident(2, dirty=why != "clean")
        if why == "wired":
            odd.wire_count.state = 1
        elif why == "held":
            odd.hold_count.state = 1
        elif why == "busy":
            host.busied(odd)
        elif why == "unqueued":
            host.drive(vm_page_flag_set(odd, PG_UNQUEUED))
    first = host.file.memq[1]

    assert page_out(host, first, passes=1) == 2
    assert cluster_of(host) == [0, 1]


@pytest.mark.parametrize("flags", [0, OBJPC_ALLOW_ACTIVE])
def test_active_neighbours_only_when_allowed(flags: int) -> None:
    host = Pages()
    m = host.resident(0, dirty=True)
    host.resident(1, dirty=True, active=True)

    assert page_out(host, m, passes=1, flags=flags) == (2 if flags else 1)


def test_a_cluster_is_not_asked_whether_it_is_used() -> None:
    """W07: the neighbour is referenced, and cached all the same."""
    host = Pages()
    m = host.resident(0, dirty=True)
    used = host.resident(1, dirty=True, active=True)
    host.drive(vm_page_flag_set(used, PG_REFERENCED))

    page_out(host, m, passes=1, flags=OBJPC_ALLOW_ACTIVE | OBJPC_TRY_TO_CACHE)

    assert queue_of(used) == "cache"

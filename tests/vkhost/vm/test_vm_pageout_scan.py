"""The scans: markers, shares, ageing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vkhost.vm.pages import Pages, queue_of
from vkhost.pc64.pmap_bits import PTE_A
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.vm import vm_pageout
from vkhost.vm.vm import VM_PROT_READ
from vkhost.vm.vm_page import ACT_MAX, PG_REFERENCED
from vkhost.vm.vm_page_alloc import vm_page_free
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_flag_set
from vkhost.vm.vm_page_queue import PQ_INACTIVE
from vkhost.vm.vm_page_wire import vm_page_hold, vm_page_unhold
from vkhost.vm.vm_pageout import Pageout
from vkhost.vm.vm_pageout_active import Ageing, vm_pageout_scan_active
from vkhost.vm.vm_pageout_cache import vm_pageout_scan_cache
from vkhost.vm.vm_pageout_inactive import max_launder, vm_pageout_scan_inactive
from vkhost.vm.vm_pageout_page import Laundry
from vkhost.vm.vm_pageout_scan import PageScan, pqaverage
from vkhost.vm.vm_pageout_stats import vm_pageout_page_stats, vm_pageout_scan_hold

pytestmark = pytest.mark.usefixtures("guarded")


@given(st.integers(1, 1 << 20), st.sampled_from([1, 2, 4, 64, 1024]))
def test_half_of_the_queues_suffice(n: int, colors: int) -> None:
    assert pqaverage(n, colors) * max(colors // 2, 1) >= n
    assert pqaverage(-n, colors) == -pqaverage(n, colors)


def scanned(host: Pages, divider: int) -> list[int]:
    """Page indexes in the order a scan gives them."""

    async def walk() -> list[int]:
        scan = PageScan(host.kernel, PQ_INACTIVE, 0)
        await scan.start(divider)
        seen = []
        while (m := await scan.busy_next()) is not None:
            seen.append(m.pindex)
            await vm_page_wakeup(m)
        await scan.finish()
        return seen

    seen: list[int] = host.drive(walk())
    return seen


def test_a_scan_looks_at_a_tenth() -> None:
    host = Pages(pages=64)
    for i in range(15):
        host.resident(i)

    assert scanned(host, 10) == [0, 1]
    assert scanned(host, 1) == list(range(15))


def test_a_scan_passes_busy_pages_by() -> None:
    host = Pages()
    pages = [host.resident(i) for i in range(4)]
    host.busied(pages[1])

    assert scanned(host, 1) == [0, 2, 3]
    assert list(host.kernel.queues.of(PQ_INACTIVE, 0)) == pages


def test_two_scans_at_once() -> None:
    """Each passes the other's marker by, and both leave the queue as it was."""
    host = Pages()
    pages = [host.resident(i) for i in range(4)]
    seen: list[int] = []

    async def walk() -> None:
        scan = PageScan(host.kernel, PQ_INACTIVE, 0)
        await scan.start(1)
        while (m := await scan.busy_next()) is not None:
            seen.append(m.pindex)
            await vm_page_wakeup(m)
        await scan.finish()

    threads = [host.spawn(name, walk()) for name in "ab"]
    turn = 0
    while not all(thread.done for thread in threads):
        turn += 1
        ready = [thread for thread in threads if thread.runnable]
        host.step(ready[turn % len(ready)])

    assert set(seen) == set(range(4))
    assert list(host.kernel.queues.of(PQ_INACTIVE, 0)) == pages


def test_the_inactive_scan_stops_when_the_shortage_is_made_up() -> None:
    host = Pages(pages=64)
    for i in range(12):
        host.resident(i)

    delta = host.drive(vm_pageout_scan_inactive(host.kernel, 0, 0, 1, Laundry(0), isep=False))

    assert delta == 1
    assert [action for _, action in host.actions()] == ["cache"]


def test_the_second_round_caches() -> None:
    host = Pages()
    m = host.resident(0, dirty=True)
    for _ in range(2):
        host.drive(vm_pageout_scan_inactive(host.kernel, 0, 0, 9, Laundry(0), isep=False))

    assert [action for _, action in host.actions()] == ["lru2", "launder"]
    assert queue_of(m) == "cache"


def test_single_lru_mode_launders_at_once() -> None:
    host = Pages()
    m = host.resident(0, dirty=True)
    host.kernel.vmmeter.tunables["pageout_memuse_mode"] = 3
    host.drive(vm_pageout_scan_inactive(host.kernel, 0, 0, 9, Laundry(0), isep=False))

    assert m.dirty.value == 0
    assert queue_of(m) == "cache"


def test_the_emergency_pager_keeps_off_vnodes() -> None:
    host = Pages()
    file = host.resident(0)
    anonymous = host.resident(0, obj=host.anonymous())
    host.drive(vm_pageout_scan_inactive(host.kernel, 0, 0, 9, Laundry(0), isep=True))

    assert queue_of(file) == "inactive"
    assert queue_of(anonymous) == "inactive"  # a tenth of the queue is one page

    host.drive(vm_pageout_scan_inactive(host.kernel, 0, 0, 9, Laundry(0), isep=False))
    host.drive(vm_pageout_scan_inactive(host.kernel, 0, 0, 9, Laundry(0), isep=True))

    assert queue_of(anonymous) == "cache"


@given(st.integers(0, 2000), st.integers(1, 4096))
def test_laundering_grows_with_the_passes_up_to_a_sixteenth(passes: int, whole: int) -> None:
    host = LAUNDRY_HOST
    host.kernel.vmmeter.tunables["max_launder"] = whole

    assert 1 <= max_launder(host.kernel, passes) <= whole // 16 + 1
    assert max_launder(host.kernel, passes) <= max_launder(host.kernel, passes + 1)


LAUNDRY_HOST = Pages()


def age(host: Pages, *, avail: int = 0, inactive: int = 9, passes: int = 0) -> Ageing:
    aged: Ageing = host.drive(
        vm_pageout_scan_active(host.kernel, passes, 0, avail, inactive, isep=False)
    )
    return aged


def test_a_used_page_gains() -> None:
    host = Pages()
    m = host.resident(0, active=True, act_count=5)
    host.drive(vm_page_flag_set(m, PG_REFERENCED))
    age(host)

    assert m.act_count == 5 + 3 + 1
    assert not m.flags.value & PG_REFERENCED


def test_but_not_without_end() -> None:
    host = Pages()
    m = host.resident(0, active=True, act_count=ACT_MAX - 1)
    host.drive(vm_page_flag_set(m, PG_REFERENCED))
    age(host)

    assert m.act_count == ACT_MAX


@pytest.mark.parametrize(("file", "left"), [(True, 3), (False, 4)])
def test_an_idle_page_declines(file: bool, left: int) -> None:
    host = Pages()
    m = host.resident(0, obj=None if file else host.anonymous(), active=True, act_count=5)
    age(host)

    assert m.act_count == left
    assert queue_of(m) == "active"


def test_an_old_page_is_deactivated_with_its_mappings() -> None:
    host = Pages()
    m = host.busied(host.resident(0, active=True, act_count=1))
    entry = host.vmspace.vm_map.entries[0]
    host.drive(pmap_enter(host.vmspace.pmap, 0, m, VM_PROT_READ, False, entry))
    host.drive(vm_page_wakeup(m))
    host.vmspace.pmap.pte(0).state &= ~PTE_A  # as an earlier scan has left it
    aged = age(host)

    assert queue_of(m) == "inactive"
    assert host.vmspace.pmap.pte(0).state
    assert (aged.delta, aged.recycle_count, aged.inactive_shortage) == (1, 0, 8)


def test_in_need_it_is_cached_at_once() -> None:
    host = Pages()
    m = host.busied(host.resident(0, active=True, act_count=1))
    entry = host.vmspace.vm_map.entries[0]
    host.drive(pmap_enter(host.vmspace.pmap, 0, m, VM_PROT_READ, False, entry))
    host.drive(vm_page_wakeup(m))
    host.vmspace.pmap.pte(0).state &= ~PTE_A  # as an earlier scan has left it
    aged = age(host, avail=1)

    assert queue_of(m) == "cache"
    assert not host.vmspace.pmap.pte(0).state
    assert aged.recycle_count == 1


def test_in_need_a_dirty_page_is_deactivated() -> None:
    host = Pages()
    m = host.resident(0, active=True, dirty=True, act_count=1)
    age(host, avail=1)

    assert queue_of(m) == "inactive"


def test_more_passes_more_pages() -> None:
    host = Pages()
    m = host.resident(0, active=True, act_count=9)
    age(host, passes=7)

    assert queue_of(m) == "inactive"


def test_statistics_age_slowly() -> None:
    host = Pages(inactive_target=20)
    m = host.resident(0, active=True, act_count=2)
    host.kernel.vmmeter.v_inactive_target = 99
    for _ in range(2):
        host.drive(vm_pageout_page_stats(host.kernel, 0, full=True))
    assert (queue_of(m), m.act_count) == ("active", 0)

    host.drive(vm_pageout_page_stats(host.kernel, 0, full=True))

    assert queue_of(m) == "inactive"


def test_statistics_only_while_few_pages_are_inactive() -> None:
    host = Pages(inactive_target=0)
    m = host.resident(0, active=True, act_count=2)
    host.drive(vm_pageout_page_stats(host.kernel, 0, full=True))

    assert m.act_count == 2


def test_a_page_forgotten_on_the_hold_queue() -> None:
    host = Pages()
    m = host.resident(0)
    host.drive(vm_page_hold(m))
    host.busied(m)
    m.valid = 0
    host.drive(vm_page_free(m))
    assert queue_of(m) == "hold"
    m.hold_count.state = 0  # the last unhold came between two looks

    host.drive(vm_pageout_scan_hold(host.kernel, 0))

    assert queue_of(m) == "free"


def test_the_primary_looks_at_each_colour_of_the_hold_queue_in_turn() -> None:
    host = Pages(pqcolors=2)
    pages = [host.resident(n) for n in range(4)]
    for m in pages:
        host.drive(vm_page_hold(m))
        host.busied(m)
        m.valid = 0
        host.drive(vm_page_free(m))
        m.hold_count.state = 0
    host.kernel.pagedaemon.vm_pages_needed.state = 1
    primary = Pageout(host.kernel, False)

    for _ in pages:
        assert host.drive(vm_pageout._asked(primary))

    assert [queue_of(m) for m in pages] == ["free"] * 4


def test_a_page_still_held_stays_there() -> None:
    host = Pages()
    m = host.resident(0)
    host.drive(vm_page_hold(m))
    host.busied(m)
    host.drive(vm_page_free(m))
    host.drive(vm_pageout_scan_hold(host.kernel, 0))
    assert queue_of(m) == "hold"

    host.drive(vm_page_unhold(m))

    assert queue_of(m) == "free"


def test_the_cache_scan_frees_up_to_half_the_way() -> None:
    host = Pages(pages=20, free_min=4, free_target=10)
    for i in range(16):
        m = host.resident(i)
        host.drive(vm_pageout_scan_inactive(host.kernel, 0, 0, 9, Laundry(0), isep=False))
        assert queue_of(m) == "cache"
    assert host.kernel.vmstats.v_free_count.value == 4

    host.drive(vm_pageout_scan_cache(host.kernel, 0))

    assert host.kernel.vmstats.v_free_count.value == (4 + 10) // 2
    assert host.kernel.vmstats.v_cache_count.value == 13


def test_a_cached_page_that_is_held_is_not_freed() -> None:
    host = Pages(pages=20, free_min=30, free_target=30)
    m = host.resident(0)
    host.drive(vm_pageout_scan_inactive(host.kernel, 0, 0, 9, Laundry(0), isep=False))
    host.drive(vm_page_hold(m))
    host.drive(vm_pageout_scan_cache(host.kernel, 0))

    assert queue_of(m) == "inactive"

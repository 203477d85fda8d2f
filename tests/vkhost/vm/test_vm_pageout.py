"""The daemon as a whole: passes and naps, who wakes whom, the emergency, the kill, the limit."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol.effects import CLOCK, Cell
from vkprotocol.param import PAGE_SIZE

from tests.vkhost.vm.pages import SIZE, Pages, queue_of
from vkhost.kern.lwp import Proc
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.vm.vm import KERN_SUCCESS, VM_MAPTYPE_NORMAL, VM_PROT_ALL, VM_PROT_READ
from vkhost.vm.vm_map import vm_map_find
from vkhost.vm.vm_object import OBJT_DEFAULT, vm_object_allocate
from vkhost.vm.vm_oom import oom, oom_victim, vmspace_anonymous_count, vmspace_swap_count
from vkhost.vm.vm_page import PG_REFERENCED, PG_UNQUEUED, PG_WINATCFLS, VmPage
from vkhost.vm.vm_page_alloc import VM_ALLOC_NORMAL, vm_page_alloc
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_flag_set
from vkhost.vm.vm_page_lru import vm_page_deactivate
from vkhost.vm.vm_pageout import Pageout, _emergency, vm_pageout_pass
from vkhost.vm.vm_pageout_rss import vm_pageout_map_deactivate_pages
from vkhost.vm.vm_pageout_wakeup import NS_PER_SECOND
from vkhost.vm.vm_wait import vm_page_count_severe, vm_wait_pfault
from vkhost.vm.vmspace import Vmspace, vmspace_alloc

pytestmark = pytest.mark.usefixtures("guarded")

MARKS: dict[str, Any] = {
    "pages": 24, "free_min": 4, "free_reserved": 3, "free_severe": 3, "free_target": 8,
    "cache_min": 2, "inactive_target": 4, "max_launder": 64,
}  # fmt: skip


def passes(host: Pages, count: int, *, emergency: bool = False) -> Pageout:
    """So many passes of a daemon that does not wait in between."""
    p = Pageout(host.kernel, emergency)
    for _ in range(count):
        host.drive(vm_pageout_pass(p))
    return p


def available(host: Pages) -> int:
    stats = host.kernel.vmstats
    return int(stats.v_free_count.value) + int(stats.v_cache_count.value)


def test_clean_pages_are_enough() -> None:
    host = Pages(**MARKS)
    for i in range(SIZE):
        host.resident(i)
    assert available(host) == 8
    passes(host, 30)

    assert available(host) >= 8 + 2
    assert host.kernel.vmstats.v_free_count.value >= (4 + 8) // 2


def test_dirty_pages_are_written_and_then_given() -> None:
    host = Pages(**MARKS)
    for i in range(SIZE):
        host.resident(i, dirty=True)
    passes(host, 60)

    assert available(host) >= 8 + 2
    pages = host.file.memq
    gone = [i for i in range(SIZE) if i not in pages or queue_of(pages[i]) == "cache"]
    assert gone
    assert all(host.stored(i) == i + 1 for i in gone)


def test_active_pages_are_deactivated_when_too_few_are_not() -> None:
    host = Pages(**MARKS)
    pages = [host.resident(i, active=True, act_count=0) for i in range(6)]
    passes(host, 1)

    assert [queue_of(m) for m in pages].count("inactive") >= 1


def test_a_pass_without_shortage_forgets_the_passes() -> None:
    host = Pages(**MARKS)
    p = Pageout(host.kernel, False)
    p.passes = 7
    host.drive(vm_pageout_pass(p))

    assert p.passes == 0


@pytest.mark.parametrize(
    ("before", "needed", "swap", "nap"),
    [
        (0, 1, 16, 2 * NS_PER_SECOND // 100),
        (0, 3, 16, 0),
        (0, 3, 0, NS_PER_SECOND // 5),
        (99, 1, 16, NS_PER_SECOND // 10),
        (99, 1, 0, NS_PER_SECOND),
    ],
)
def test_naps_grow_with_the_passes_in_vain(before: int, needed: int, swap: int, nap: int) -> None:
    host = Pages(**MARKS | {"swap_pages": swap})
    for i in range(SIZE):
        host.busied(host.resident(i))  # nothing can be had
    host.kernel.pagedaemon.vm_pages_needed.state = needed
    p = Pageout(host.kernel, False)
    p.passes = before
    start = CLOCK[0]
    host.drive(vm_pageout_pass(p))

    assert p.passes == before + 1
    assert CLOCK[0] - start == nap


def allocate_all(host: Pages, done: Cell) -> Any:
    """Fill the file's pages, waiting for memory as a fault does."""

    async def body() -> None:
        for i in range(SIZE):
            m: VmPage | None = None
            while m is None:
                if await vm_page_count_severe(host.kernel):
                    await vm_wait_pfault(host.kernel)
                async with host.file.token:
                    m = await vm_page_alloc(host.file, i, VM_ALLOC_NORMAL)
            await m.frame.write_bytes(bytes([i + 1]) * PAGE_SIZE)
            m.valid = 0xFF
            await vm_page_dirty(m)
            await vm_page_deactivate(m)
            await vm_page_wakeup(m)
        await done.store(True)

    return body()


def test_an_allocator_is_woken() -> None:
    host = Pages(**MARKS | {"pages": 12, "pageout": True, "emergency": True})
    done = Cell("done", False)
    host.drive(allocate_all(host, done))

    assert done.value
    assert any(event[0] == "pageout.wait" for event in host.events)
    assert host.kernel.pagedaemon.vm_pages_needed.value <= 2
    written = [i for i in range(SIZE) if host.stored(i) == i + 1]
    assert len(written) + len(host.file.memq) >= SIZE


def test_the_emergency_pager_waits_for_two_seconds_of_silence() -> None:
    host = Pages(**MARKS)
    daemon = host.kernel.pagedaemon
    emergency = Pageout(host.kernel, True)
    assert not host.drive(_emergency(emergency))  # nobody needs pages

    daemon.vm_pages_needed.state = 1
    daemon.vm_pagedaemon_time.state = CLOCK[0]
    assert not host.drive(_emergency(emergency))  # one second later

    assert host.drive(_emergency(emergency))


def test_the_emergency_pager_writes_to_swap_only() -> None:
    host = Pages(**MARKS | {"pages": 20})
    obj = host.anonymous()
    for i in range(6):
        m = host.resident(i, obj=obj, dirty=True)
        host.drive(vm_page_flag_set(m, PG_WINATCFLS))  # on its second round
    for i in range(6):
        host.resident(i, dirty=True)
    passes(host, 9, emergency=True)

    assert not any(host.stored(i) for i in range(6))
    assert obj.swblocks
    assert {queue_of(host.file.memq[i]) for i in range(6)} == {"inactive"}


def test_vnode_pages_at_the_head_starve_the_emergency_pager() -> None:
    """It passes them by without moving them, and looks at a tenth of the queue: so does the real
    one."""
    host = Pages(**MARKS | {"pages": 20})
    obj = host.anonymous()
    for i in range(6):
        host.resident(i, dirty=True)
    for i in range(6):
        host.resident(i, obj=obj, dirty=True)
    passes(host, 60, emergency=True)

    assert not obj.swblocks


# Out of memory.


def process(host: Pages, pid: int, pages: int, *, file: bool = False) -> Proc:
    """A process with so many resident pages, anonymous or of the file."""
    vmspace: Vmspace = vmspace_alloc(host.kernel, f"p{pid}", pmap_id=pid)
    proc = Proc(host.kernel, pid, f"p{pid}", vmspace)
    host.kernel.procs.append(proc)
    obj = host.file if file else vm_object_allocate(host.kernel, OBJT_DEFAULT, SIZE)
    result = host.drive(
        vm_map_find(
            vmspace.vm_map, obj, 0, 0, SIZE * PAGE_SIZE, PAGE_SIZE, False, VM_MAPTYPE_NORMAL,
            VM_PROT_ALL, VM_PROT_ALL, 0,
        )
    )  # fmt: skip
    assert result[0] == KERN_SUCCESS
    for i in range(pages):
        host.resident(i, obj=obj)
    return proc


def test_the_victim_has_the_most_anonymous_memory() -> None:
    """W11: a vkernel's memory is a file, and counts for nothing."""
    host = Pages(swap_pages=0)
    process(host, 100, 2)
    innocent = process(host, 101, 4)
    process(host, 102, 12, file=True)

    assert host.drive(oom_victim(host.kernel)) == (innocent, 4)


def test_init_and_low_pids_are_spared() -> None:
    host = Pages(swap_pages=4)
    process(host, 1, 9)
    process(host, 20, 5)
    other = process(host, 300, 1)

    assert host.drive(oom_victim(host.kernel)) == (other, 1)


def test_nobody_has_anything() -> None:
    host = Pages()
    process(host, 100, 3, file=True)

    assert host.drive(oom_victim(host.kernel)) is None


def test_swap_counts_too() -> None:
    host = Pages()
    proc = process(host, 100, 2)
    obj = proc.p_vmspace.vm_map.entries[0].ba.object
    assert obj is not None
    obj.type = type(obj.type)(1)
    obj.swblocks.update({i: i for i in range(5)})

    assert host.drive(_counts(proc)) == (2, 5)


async def _counts(proc: Proc) -> tuple[int, int]:
    vm_map = proc.p_vmspace.vm_map
    await vm_map.lock.acquire_shared()
    counts = await vmspace_anonymous_count(vm_map), await vmspace_swap_count(vm_map)
    await vm_map.lock.release()
    return counts


def test_a_process_whose_map_is_locked_is_passed_over() -> None:
    host = Pages(swap_pages=0)
    locked = process(host, 100, 5)
    other = process(host, 101, 2)
    host.drive(locked.p_vmspace.vm_map.lock.acquire_exclusive())

    assert host.drive(oom_victim(host.kernel)) == (other, 2)


@pytest.mark.parametrize(
    ("swap", "passes_in_vain", "shortage", "kills"),
    [(0, 2, 5, 1), (0, 1, 5, 0), (0, 2, 0, 0), (4, 2, 5, 0)],
)
def test_when_a_process_is_killed(
    swap: int, passes_in_vain: int, shortage: int, kills: int
) -> None:
    host = Pages(**MARKS | {"swap_pages": swap, "pages": 20})
    victim = process(host, 100, 14)
    for _ in range(2):
        host.drive(oom(host.kernel, shortage, passes_in_vain, 0))

    killed = [event for event in host.events if event[0] == "oom.kill"]
    assert len(killed) == kills  # at most one a second
    assert victim.lowmemkill.value == bool(kills)


def test_a_second_later_another() -> None:
    host = Pages(**MARKS | {"swap_pages": 0, "pages": 20})
    process(host, 100, 14)
    for _ in range(2):
        host.drive(oom(host.kernel, 5, 2, 0))
        CLOCK[0] += NS_PER_SECOND

    assert len([event for event in host.events if event[0] == "oom.kill"]) == 2


# Resident set limits.


def mapped(host: Pages, count: int) -> list[VmPage]:
    pages = [host.resident(i, active=True) for i in range(count)]
    entry = host.vmspace.vm_map.entries[0]
    for i, m in enumerate(pages):
        host.busied(m)
        host.drive(pmap_enter(host.vmspace.pmap, i * PAGE_SIZE, m, VM_PROT_READ, False, entry))
        host.drive(vm_page_wakeup(m))
    return pages


@pytest.mark.parametrize(("mode", "queue"), [(1, "inactive"), (2, "cache"), (3, "cache")])
def test_pages_beyond_the_limit_are_given_up(mode: int, queue: str) -> None:
    """From 2 on each is cleaned and cached at once; before, by the daemon."""
    host = Pages()
    pages = mapped(host, 8)
    host.kernel.vmmeter.tunables["pageout_memuse_mode"] = mode
    host.drive(vm_pageout_map_deactivate_pages(host.kernel, host.vmspace.pmap, 3))

    assert host.vmspace.pmap.resident_count == 3
    assert [queue_of(m) for m in pages].count(queue) == 5


def test_pages_in_use_are_not() -> None:
    host = Pages()
    pages = mapped(host, 4)
    for m in pages[1:]:
        m.wire_count.state = 1
    host.drive(vm_page_flag_set(pages[0], PG_UNQUEUED))
    host.drive(vm_pageout_map_deactivate_pages(host.kernel, host.vmspace.pmap, 0))

    assert host.vmspace.pmap.resident_count == 4


def test_referenced_pages_get_another_round() -> None:
    host = Pages()
    (m,) = mapped(host, 1)
    host.drive(vm_page_flag_set(m, PG_REFERENCED))
    host.drive(vm_pageout_map_deactivate_pages(host.kernel, host.vmspace.pmap, 0))

    assert host.vmspace.pmap.resident_count == 0
    assert ("pageout.rss", 1, 1) in host.events

"""Pages on their queues: moved, counted, cached, protected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vkprotocol.effects import Cell

from tests.vkhost.machine import Machine
from tests.vkhost.vm.pages import counts
from vkhost.kern.panic import Panic
from vkhost.vm.vm import VM_PROT_NONE, VM_PROT_READ
from vkhost.vm.vm_page import ACT_INIT, PG_MAPPED, PG_WINATCFLS, PG_WRITEABLE
from vkhost.vm.vm_page_alloc import VM_ALLOC_NORMAL, vm_page_alloc, vm_page_free
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_cache import vm_page_cache, vm_page_dontneed, vm_page_try_to_cache
from vkhost.vm.vm_page_dirty import (
    vm_page_dirty,
    vm_page_flag_set,
    vm_page_protect,
    vm_page_test_dirty,
    vm_page_undirty,
)
from vkhost.vm.vm_page_lru import (
    vm_page_activate,
    vm_page_deactivate,
    vm_page_requeue,
    vm_page_unqueue,
)
from vkhost.vm.vm_page_queue import PQ_ACTIVE, PQ_CACHE, PQ_INACTIVE, PQ_NONE, PageMarker, PageQueue
from vkhost.vm.vm_page_wire import vm_page_hold, vm_page_unwire, vm_page_wire

pytestmark = pytest.mark.usefixtures("guarded")


def test_a_page_goes_round_the_queues() -> None:
    machine = Machine()
    m = machine.page(machine.object(), 0)

    machine.do(vm_page_activate(m))
    assert (m.queue, m.act_count) == (PQ_ACTIVE, ACT_INIT)
    machine.do(vm_page_flag_set(m, PG_WINATCFLS))
    machine.do(vm_page_deactivate(m))
    assert (m.queue, m.flags.value) == (PQ_INACTIVE, 0)
    machine.do(vm_page_unqueue(m))
    assert m.queue == PQ_NONE
    machine.do(vm_page_cache(m))
    assert m.queue == PQ_CACHE
    assert m.busy_count.value == 0
    assert counts(machine) == (7, 0, 0, 1, 0)
    moves = [event[2:] for event in machine.events if event[:2] == ("page.queue", m.pfn)]
    assert moves == [(1, 0), (0, 3), (3, 0), (0, 2), (2, 0), (0, 4)]


def test_wiring_takes_a_page_off_the_queues_and_unwiring_puts_it_back() -> None:
    machine = Machine()
    m = machine.page(machine.object(), 0)
    machine.do(vm_page_activate(m))

    machine.do(vm_page_wire(m))
    machine.do(vm_page_wire(m))
    assert (m.queue, m.wire_count.value) == (PQ_NONE, 2)
    assert machine.kernel.vmstats.v_wire_count.value == 1
    machine.do(vm_page_activate(m))
    assert m.queue == PQ_NONE
    machine.do(vm_page_unwire(m, activate=False))
    machine.do(vm_page_unwire(m, activate=False))
    assert m.queue == PQ_INACTIVE
    assert machine.kernel.vmstats.v_wire_count.value == 0
    with pytest.raises(Panic, match="invalid wire count"):
        machine.do(vm_page_unwire(m, activate=False))


def test_try_to_cache_refuses_what_is_in_use() -> None:
    machine = Machine()
    obj = machine.object()
    for pindex, spoil in enumerate((vm_page_dirty, vm_page_hold, vm_page_wire)):
        m = machine.page(obj, pindex)
        machine.do(spoil(m))
        assert machine.do(vm_page_try_to_cache(m)) is False
        assert m.busy_count.value == 0


def test_caching_a_page_that_turns_out_dirty_deactivates_it() -> None:
    machine = Machine("pv_entry")
    pmap = machine.pmap()
    m = machine.page(machine.object(), 0)
    machine.enter(pmap, 0x5000, m)
    machine.do(machine.run_on(0, pmap).store(0x5000, 1))

    machine.do(vm_page_cache(m))

    assert m.queue == PQ_INACTIVE
    assert m.dirty.value


def test_dontneed_puts_a_clean_page_where_the_next_scan_starts() -> None:
    machine = Machine()
    obj = machine.object()
    pages = [machine.page(obj, i) for i in range(3)]
    machine.do(vm_page_deactivate(pages[0]))
    machine.do(vm_page_dirty(pages[1]))
    for m in pages[1:]:
        machine.do(vm_page_dontneed(m))

    assert list(machine.kernel.queues.of(PQ_INACTIVE, 0)) == [pages[2], pages[0], pages[1]]
    machine.do(vm_page_requeue(pages[2]))
    assert list(machine.kernel.queues.of(PQ_INACTIVE, 0))[-1] is pages[2]


@pytest.mark.parametrize(("prot", "left"), [(VM_PROT_NONE, 0), (VM_PROT_READ, PG_MAPPED)])
def test_protect_and_test_dirty(prot: int, left: int) -> None:
    machine = Machine("pv_entry")
    pmap = machine.pmap()
    m = machine.page(machine.object(), 0)
    machine.enter(pmap, 0x5000, m)
    machine.do(machine.run_on(0, pmap).store(0x5000, 1))
    machine.do(vm_page_test_dirty(m))
    assert m.dirty.value
    machine.do(vm_page_undirty(m))

    machine.do(vm_page_protect(m, prot))

    assert machine.flags(m) & (PG_MAPPED | PG_WRITEABLE) == left
    assert m.dirty.value  # M was still set in the PTE


class Model:
    """A page queue is a list."""

    def __init__(self) -> None:
        self.total = Cell("total")
        self.queue = PageQueue(PQ_ACTIVE, 0, self.total)
        self.pages: list[Any] = []


@given(st.lists(st.tuples(st.sampled_from("thdam"), st.integers(0, 20)), max_size=40))
def test_a_page_queue_is_a_list(operations: list[tuple[str, int]]) -> None:
    machine = Machine()
    model = Model()

    async def body() -> None:
        queue, expected = model.queue, model.pages
        for what, n in operations:
            await queue.acquire()
            link: Any = (
                PageMarker()
                if what == "m"
                else machine.kernel.pages[0].__class__(
                    machine.kernel, machine.kernel.physmem.frames[0], 1
                )
            )
            place = n % (len(expected) + 1)
            if what == "d":
                if expected:
                    queue.remove(expected.pop(n % len(expected)))
            elif what == "h":
                queue.insert_head(link)
                expected.insert(0, link)
            elif what == "t":
                queue.insert_tail(link)
                expected.append(link)
            else:
                queue.insert_after(expected[place - 1] if place else None, link)
                expected.insert(place, link)
            assert list(queue) == expected
            assert queue.head is (expected[0] if expected else None)
            assert queue.tail is (expected[-1] if expected else None)
            await queue.release()
            assert model.total.state == sum(not link.marker for link in expected)

    machine.do(body())


@given(st.integers(0, 1 << 30))
@settings(max_examples=30)
def test_counts_add_up_whatever_happens(seed: int) -> None:
    from random import Random

    machine = Machine(pages=12, pqcolors=2)
    random = Random(seed)
    obj = machine.object(100)

    async def worker(first: int) -> None:
        for pindex in range(first, first + 6):
            async with obj.token:
                m = await vm_page_alloc(obj, pindex, VM_ALLOC_NORMAL)
            if m is None:
                continue
            fate = random.choice(
                (vm_page_activate, vm_page_deactivate, vm_page_cache, vm_page_free)
            )
            await fate(m)
            if fate in (vm_page_activate, vm_page_deactivate):
                await vm_page_wakeup(m)

    for i in range(3):
        machine.spawn(f"w{i}", worker(10 * i))
    machine.run(seed)
    queues = machine.kernel.queues
    for kind in range(1, 6):
        lengths = [len(list(queues.of(kind, color))) for color in range(2)]
        assert sum(lengths) == machine.kernel.vmstats.queue_count[kind].value
        assert lengths == [queues.of(kind, color).lcnt for color in range(2)]
    assert sum(counts(machine)) == 12
    for pindex, m in obj.memq.items():
        assert (m.object, m.pindex) == (obj, pindex)
    assert len(obj.memq) == obj.resident_page_count

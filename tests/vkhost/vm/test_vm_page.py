from __future__ import annotations

from typing import Any

import pytest

from tests.vkhost.machine import Machine
from tests.vkhost.vm.pages import allocate, counts
from vkhost.kern.panic import Panic
from vkhost.vm.vm_page import PBUSY_LOCKED, PG_MAPPED, PG_REFERENCED, PG_WINATCFLS
from vkhost.vm.vm_page_alloc import (
    VM_ALLOC_INTERRUPT,
    VM_ALLOC_NORMAL,
    VM_ALLOC_NULL_OK,
    VM_ALLOC_SYSTEM,
    vm_page_free,
)
from vkhost.vm.vm_page_busy import (
    vm_page_busy_try,
    vm_page_busy_wait,
    vm_page_io_finish,
    vm_page_io_start,
    vm_page_lookup_busy_try,
    vm_page_lookup_busy_wait,
    vm_page_wakeup,
)
from vkhost.vm.vm_page_cache import vm_page_cache
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_flag_set
from vkhost.vm.vm_page_fill import vm_page_copy, vm_page_zero_fill
from vkhost.vm.vm_page_queue import PQ_FREE, PQ_HOLD
from vkhost.vm.vm_page_wire import vm_page_hold, vm_page_unhold, vm_page_wire

pytestmark = pytest.mark.usefixtures("guarded")


# Busy.


def test_hard_busy_excludes_everybody() -> None:
    machine = Machine()
    m = machine.page(machine.object(), 0)

    assert machine.do(vm_page_busy_try(m)) is False
    waiting = machine.spawn("b", vm_page_busy_wait(m, "pgtst"))
    machine.blocked(waiting)
    machine.do(vm_page_wakeup(m))
    machine.finish(waiting)
    assert m.busy_count.value == PBUSY_LOCKED


def test_soft_busy_keeps_out_who_asks() -> None:
    machine = Machine()
    m = machine.page(machine.object(), 0)
    machine.do(vm_page_io_start(m))
    machine.do(vm_page_wakeup(m))

    assert machine.do(vm_page_busy_try(m)) is False
    assert machine.do(vm_page_busy_try(m, also_m_busy=False)) is True
    machine.do(vm_page_io_finish(m))
    assert m.busy_count.value == PBUSY_LOCKED


def test_who_waits_for_a_soft_busied_page_sleeps_and_does_not_spin() -> None:
    machine = Machine()
    m = machine.page(machine.object(), 0)
    machine.do(vm_page_io_start(m))
    machine.do(vm_page_wakeup(m))
    waiting = machine.spawn("b", vm_page_busy_wait(m, "pgtst"))
    for _ in range(9):
        if waiting.runnable:
            machine.step(waiting)
    assert not waiting.runnable

    machine.do(vm_page_io_finish(m))
    machine.finish(waiting)
    assert m.busy_count.value == PBUSY_LOCKED


def test_unbusying_what_is_not_busy_panics() -> None:
    machine = Machine()
    m = machine.page(machine.object(), 0, busy=False)

    with pytest.raises(Panic, match="not busy"):
        machine.do(vm_page_wakeup(m))
    machine.ex.failed = None
    with pytest.raises(Panic, match="not soft-busy"):
        machine.do(vm_page_io_finish(m))


def test_a_lookup_waits_without_the_token_and_looks_again() -> None:
    machine = Machine()
    obj = machine.object()
    m = machine.page(obj, 0)
    found: list[Any] = []

    async def look() -> None:
        async with obj.token:
            found.append(await vm_page_lookup_busy_try(obj, 0))
            found.append(await vm_page_lookup_busy_try(obj, 1))
            found.append(await vm_page_lookup_busy_wait(obj, 0, "pgtst"))

    looking = machine.spawn("look", look())
    machine.blocked(looking)
    assert obj.token.state == (None, ())
    machine.do(vm_page_free(m))
    machine.finish(looking)
    assert found == [(m, True), (None, False), None]


# Allocation.


def test_a_fresh_page_has_no_past() -> None:
    machine = Machine(pages=1, free_reserved=0)
    obj = machine.object()
    m = machine.page(obj, 0)
    generation = m.frame.generation
    machine.do(vm_page_flag_set(m, PG_REFERENCED | PG_WINATCFLS))
    machine.do(vm_page_dirty(m))
    machine.do(m.frame.store(5, 77))
    machine.do(vm_page_free(m))

    again = allocate(machine, obj, 3, VM_ALLOC_NORMAL)

    assert again is m
    assert (m.flags.value, m.dirty.value, m.act_count, m.valid) == (0, 0, 0, 0)
    assert m.frame.generation == generation + 1
    assert m.busy_count.value == PBUSY_LOCKED
    assert obj.memq == {3: m}
    # Nothing poisons the frame: that is the zero-fill's business.
    assert m.frame.words[5] == 77
    machine.do(vm_page_zero_fill(m))
    assert m.frame.words[5] == 0


def test_who_may_take_the_last_pages() -> None:
    machine = Machine(pages=5, free_reserved=4, free_min=4, free_severe=4, interrupt_free_min=1)
    obj = machine.object(100)
    requests = (VM_ALLOC_NORMAL, VM_ALLOC_SYSTEM, VM_ALLOC_INTERRUPT)
    given: list[tuple[bool, ...]] = []
    for pindex in range(5):
        had = []
        for req in requests:
            m = allocate(machine, obj, 50 + pindex, req)
            had.append(m is not None)
            if m is not None:
                machine.do(vm_page_free(m))
        given.append(tuple(had))
        assert allocate(machine, obj, pindex, VM_ALLOC_INTERRUPT) is not None

    assert given == [
        (True, True, True),  # 5 free
        (True, True, True),  # 4
        (False, True, True),  # 3
        (False, True, True),  # 2
        (False, False, True),  # 1
    ]
    assert allocate(machine, obj, 9, VM_ALLOC_INTERRUPT) is None
    assert machine.kernel.pagedaemon.vm_pageout_deficit.value > 0


def test_a_normal_allocation_takes_a_clean_cached_page() -> None:
    machine = Machine(pages=2, free_reserved=2, free_min=2, free_severe=2)
    obj = machine.object()
    m = machine.page(obj, 0)
    machine.do(vm_page_cache(m))
    generation = m.frame.generation
    assert counts(machine) == (1, 0, 0, 1, 0)

    again = allocate(machine, obj, 1, VM_ALLOC_NORMAL)

    # Freed, and the loop looked again: with two free pages one may be taken.
    assert again is not None
    assert 0 not in obj.memq
    assert counts(machine)[3] == 0
    assert m.frame.generation + again.frame.generation >= generation + 1


def test_a_taken_index_is_refused_or_panics() -> None:
    machine = Machine()
    obj = machine.object()
    machine.page(obj, 0)

    assert allocate(machine, obj, 0, VM_ALLOC_NORMAL | VM_ALLOC_NULL_OK) is None
    assert counts(machine)[0] == 7
    with pytest.raises(Panic, match=r"\[0\] exists"):
        allocate(machine, obj, 0, VM_ALLOC_NORMAL)


def test_w08_a_page_dirtied_after_it_was_freed_panics() -> None:
    machine = Machine(pages=1, free_reserved=0)
    obj = machine.object()
    m = machine.page(obj, 0)
    machine.do(vm_page_free(m))

    with pytest.raises(Panic, match="in free/cache queue"):
        machine.do(vm_page_dirty(m))
    machine.ex.failed = None
    m.dirty.state = 0xFF  # a kernel without INVARIANTS would have gone on
    with pytest.raises(Panic, match="free/cache page 0 was dirty"):
        allocate(machine, obj, 0, VM_ALLOC_NORMAL)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: vm_page_flag_set(m, PG_MAPPED), "still mapped"),
        (vm_page_wire, "freeing wired page"),
    ],
)
def test_what_may_not_be_freed(spoil: Any, message: str) -> None:
    machine = Machine()
    m = machine.page(machine.object(), 0)
    machine.do(spoil(m))

    with pytest.raises(Panic, match=message):
        machine.do(vm_page_free(m))


def test_a_held_page_is_freed_when_the_hold_goes() -> None:
    machine = Machine()
    obj = machine.object()
    m = machine.page(obj, 0)
    machine.do(vm_page_hold(m))
    machine.do(vm_page_free(m))

    assert m.queue == PQ_HOLD
    assert counts(machine) == (7, 0, 0, 0, 1)
    assert not any(event[0] == "page.free" for event in machine.events)
    machine.do(vm_page_unhold(m))
    assert m.queue == PQ_FREE
    assert counts(machine) == (8, 0, 0, 0, 0)
    assert ("page.free", m.pfn, m.frame.generation) in machine.events


def test_copying_a_page() -> None:
    machine = Machine()
    obj = machine.object()
    src, dst = machine.page(obj, 0), machine.page(obj, 1)
    machine.do(src.frame.store(1, 8))

    machine.do(vm_page_copy(src, dst))

    assert dst.frame.words[1] == 8
    assert ("page.copy", src.pfn, dst.pfn) in machine.events

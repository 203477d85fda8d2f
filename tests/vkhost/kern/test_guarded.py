"""Each declared field is caught when touched without its lock, and costs nothing otherwise."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getattr_static
from typing import Any

import pytest
from vkprotocol.effects import Cell, Lock, LockOrderError, RWLock
from vkprotocol.guarded import GUARDED, Unguarded, checking, guarded_by

from tests.vkhost.machine import Machine
from vkhost.rmap.pv_entry import PvList
from vkhost.vm.swap_pager import SwapPager
from vkhost.vm.vm_object import VmObject
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_queue import PQ_ACTIVE, PageQueue
from vkhost.vm.vnode import MemoryVnode, Vnode

# How a test comes by one of each.
MADE: dict[type, Callable[[Machine], Any]] = {
    VmObject: lambda machine: machine.object(),
    VmPage: lambda machine: machine.page(machine.object(), 0, busy=False),
    PageQueue: lambda machine: machine.kernel.queues.of(PQ_ACTIVE, 0),
    SwapPager: lambda machine: machine.kernel.swap,
    Vnode: lambda machine: MemoryVnode("v", 4096),
    PvList: lambda machine: PvList(machine.kernel.pages[0]),
}
FIELDS = [(cls, field) for cls, field, _, _ in GUARDED if cls in MADE]


@guarded_by("lock", "plain")
class Slotted:
    __slots__ = ("lock", "plain")

    def __init__(self) -> None:
        self.lock = RWLock("slotted", rank=2)
        self.plain = 0


@guarded_by("lock", "plain")
class Unslotted:
    def __init__(self) -> None:
        self.lock = Lock("unslotted", rank=1)
        self.plain = 0


async def touch(obj: Any, field: str, writing: bool = False) -> None:
    await Cell("x").load()
    if writing:
        setattr(obj, field, 1)
    else:
        getattr(obj, field)


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize(("cls", "field"), FIELDS, ids=lambda x: getattr(x, "__name__", x))
def test_a_guarded_field_is_caught_without_its_lock(cls: type, field: str) -> None:
    machine = Machine()
    obj = MADE[cls](machine)

    for writing in (False, True):
        with pytest.raises(Unguarded, match=rf"do (reads|writes) \w+\.{field} without"):
            machine.do(touch(obj, field, writing))
        machine.ex.failed = None


def test_the_declarations_are_all_there() -> None:
    assert {cls for cls, _ in FIELDS} == set(MADE)


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("cls", [Slotted, Unslotted])
def test_with_the_lock_it_is_fine(cls: type) -> None:
    machine = Machine()
    obj = cls()

    async def body() -> None:
        await (obj.lock.acquire_exclusive() if cls is Slotted else obj.lock.acquire())
        obj.plain += 1
        await obj.lock.release()

    machine.do(body())

    assert obj.plain == 1


@pytest.mark.usefixtures("guarded")
def test_a_shared_lock_is_not_enough_to_write() -> None:
    machine = Machine()
    obj = Slotted()

    async def body() -> None:
        await obj.lock.acquire_shared()
        await touch(obj, "plain")
        await touch(obj, "plain", writing=True)

    with pytest.raises(Unguarded, match=r"writes Slotted\.plain without lock"):
        machine.do(body())


@pytest.mark.usefixtures("guarded")
def test_a_page_is_written_hard_busied_and_read_soft_busied() -> None:
    machine = Machine()
    m = machine.page(machine.object(), 0, busy=False)
    m.busy_count.state = 1

    machine.do(touch(m, "pindex"))
    with pytest.raises(Unguarded):
        machine.do(touch(m, "pindex", writing=True))


@pytest.mark.parametrize("cls", [Slotted, Unslotted, *MADE])
def test_nothing_is_left_of_the_checks_afterwards(cls: type) -> None:
    fields = [field for owner, field, _, _ in GUARDED if owner is cls]
    before = [getattr_static(cls, field, None) for field in fields]
    with checking():
        during = [getattr_static(cls, field, None) for field in fields]
        with pytest.raises(RuntimeError, match="already checking"), checking():
            pass
    after = [getattr_static(cls, field, None) for field in fields]

    assert fields
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert all(a is not b for a, b in zip(before, during, strict=True))


def test_a_page_word_is_not_read_without_an_effect() -> None:
    m = Machine().kernel.pages[0]

    with pytest.raises(TypeError, match="read by an effect"):
        bool(m.dirty)


def test_locks_are_taken_in_the_declared_order() -> None:
    machine = Machine()
    slotted, unslotted = Slotted(), Unslotted()

    async def body() -> None:
        await slotted.lock.acquire_exclusive()
        await unslotted.lock.acquire()

    with pytest.raises(LockOrderError, match=r"unslotted \(rank 1\) while holding slotted"):
        machine.do(body())

"""The locks of a scan of a range: pmap.c:pmap_scan, pmap_scan_callback."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest
from vkprotocol.effects import Cell, Thread

from tests.vkhost.machine import ENTRY, Machine
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.pc64.pmap_pgscan import pmap_pgscan
from vkhost.pc64.pmap_protect import pmap_protect
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.vm.vm import VM_PROT_ALL, VM_PROT_READ
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
VA = 0x5000
END = VA + 4 * PAGE
FAR = VA + (1 << 21)  # another page table


def mapped(holds: bool, count: int = 2, *, busy: bool = True) -> tuple[Machine, Pmap, VmPage]:
    """`count` pages from VA on, and one more that is nowhere yet."""
    machine = Machine("extent_scan", tree="2020", scan_holds_table=holds)
    pmap, obj = machine.pmap(), machine.object()
    for n in range(count):
        machine.enter(pmap, VA + n * PAGE, machine.page(obj, n, busy=busy))
    return machine, pmap, machine.page(obj, count)


def enter(pmap: Pmap, va: int, m: VmPage) -> Coroutine[Any, Any, Any]:
    return pmap_enter(pmap, va, m, VM_PROT_ALL, False, ENTRY)


def between_two(machine: Machine, scan: Coroutine[Any, Any, Any]) -> Thread:
    """The scan has dealt with its first PTE and not yet looked at the second."""
    thread = machine.spawn("scan", scan)
    machine.until(thread, "pte.write", "p", VA)
    return thread


@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("kind", ["remove", "protect"])
def test_nobody_enters_a_page_table_that_is_scanned(kind: str, holds: bool) -> None:
    """pmap.c:pmap_scan_callback holds pt_pv over the PTEs. Taken back it does not, and an enter
    comes in between."""
    machine, pmap, m = mapped(holds)
    body = (
        pmap_remove(pmap, VA, END)
        if kind == "remove"
        else pmap_protect(pmap, VA, END, VM_PROT_READ)
    )
    scan = between_two(machine, body)
    while pmap.placemark(VA >> 12).state is not None:
        machine.step(scan)
    machine.step(scan)  # and the page table, if it is to be free
    entering = machine.spawn("enter", enter(pmap, VA + 2 * PAGE, m))
    while entering.runnable and not entering.done:
        machine.step(entering)

    assert entering.done is not holds
    machine.finish(scan, entering)
    assert pmap.pte(VA + 2 * PAGE).value


@pytest.mark.parametrize("kind", ["enter", "remove", "protect", "pgscan"])
def test_the_page_table_is_locked_over_each_change_of_a_pte(kind: str) -> None:
    """pmap.c:pmap_enter, pmap_scan (one page): the placemark first, then pt_pv."""
    machine, pmap, m = mapped(False, busy=False)
    table = pmap.pte(VA).table.lock
    gate = Cell(("gate",), False)

    async def hold() -> None:
        await table.acquire()
        await gate.wait(bool)
        await table.release()

    async def ignored(va: int, page: VmPage) -> bool:
        await vm_page_wakeup(page)
        return True

    holder = machine.spawn("holder", hold())
    machine.blocked(holder)
    bodies: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "enter": lambda: enter(pmap, VA + 2 * PAGE, m),
        "remove": lambda: pmap_remove(pmap, VA, VA + PAGE),
        "protect": lambda: pmap_protect(pmap, VA, VA + PAGE, VM_PROT_READ),
        "pgscan": lambda: pmap_pgscan(pmap, VA, VA + PAGE, ignored),
    }
    thread = machine.spawn(kind, bodies[kind]())
    machine.blocked(thread)
    va = VA + 2 * PAGE if kind == "enter" else VA
    assert pmap.placemark(va >> 12).state == thread.tid
    machine.do(gate.store(True))
    machine.finish(holder, thread)


def test_another_page_table_is_free() -> None:
    machine, pmap, m = mapped(True)
    scan = between_two(machine, pmap_remove(pmap, VA, END))
    machine.finish(machine.spawn("enter", enter(pmap, FAR + 4 * PAGE, m)))
    machine.finish(scan)

    assert pmap.pte(FAR + 4 * PAGE).value


def test_a_scan_that_waits_for_a_placemark_lets_go_of_the_table_and_looks_again() -> None:
    """pmap.c:pv_placemarker_wait: who has the placemark may want the table."""
    machine, pmap, m = mapped(True)
    placemark = pmap.placemark((VA >> 12) + 1)

    gate = Cell(("gate",), False)

    async def hold() -> None:
        await placemark.acquire()
        await gate.wait(bool)
        await placemark.release()

    holder = machine.spawn("holder", hold())
    machine.blocked(holder)
    scan = between_two(machine, pmap_remove(pmap, VA, END))
    machine.blocked(scan)
    machine.finish(machine.spawn("enter", enter(pmap, VA + 2 * PAGE, m)))
    machine.do(gate.store(True))
    machine.finish(holder, scan)

    assert pmap.resident_count == 0, "what was entered meanwhile is seen"


def test_pgscan_lets_go_of_the_table_for_its_callback() -> None:
    machine, pmap, m = mapped(True, busy=False)
    seen: list[int] = []

    async def found(va: int, page: VmPage) -> bool:
        seen.append(va)
        if va == VA:
            await enter(pmap, VA + 3 * PAGE, m)
            await vm_page_wakeup(m)
        await vm_page_wakeup(page)
        return va != VA + PAGE

    machine.do(pmap_pgscan(pmap, VA, END, found))
    assert seen == [VA, VA + PAGE], "ended by the callback"


@pytest.mark.parametrize("seed", range(12))
def test_both_ways_leave_the_same_behind(seed: int) -> None:
    """Alone, that is: with others it is what they do that differs."""
    left = []
    for holds in (True, False):
        random = Random(seed)
        machine = Machine("pv_entry", scan_holds_table=holds)
        pmap, obj = machine.pmap(), machine.object()
        for n in range(4):
            va = random.choice((VA, FAR)) + random.randrange(6) * PAGE
            machine.enter(pmap, va, machine.page(obj, n))
        first, last = sorted(random.sample(range(8), 2))
        sva, eva = VA + first * PAGE, random.choice((VA, FAR)) + last * PAGE
        if random.random() < 0.5:
            machine.do(pmap_remove(pmap, sva, eva))
        else:
            machine.do(pmap_protect(pmap, sva, eva, VM_PROT_READ))
        left.append([(va, pmap.pte(va).value) for va in range(VA, FAR + 8 * PAGE, PAGE)])

    assert left[0] == left[1]

"""The map interlock by itself, under every schedule of a few threads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vkemu import explore
from vkemu.executors.controlled import Execution
from vkprotocol.effects import curthread

from vkhost.config import HostConfig
from vkhost.kern.panic import Panic
from vkhost.kern.token import Token
from vkhost.vm.vm_map import VmMap
from vkhost.vm.vm_map_interlock import VmMapIlock, vm_map_deinterlock, vm_map_interlock

Range = tuple[int, int]
PAGE = 4096


def vm_map_of(*mutants: str, interlock: bool = True) -> VmMap:
    kernel: Any = SimpleNamespace(
        config=HostConfig(interlock=interlock),
        mutants=frozenset(mutants),
        emit=lambda *event: None,
        rmap=SimpleNamespace(interlocks=True),
    )
    pmap: Any = SimpleNamespace(id="p")
    return VmMap(kernel, pmap, 0, 1 << 47)


def program(ranges: list[Range], *mutants: str, interlock: bool = True) -> Any:
    """Each thread takes one range, is inside for a step, and leaves."""

    def build(k: Any) -> None:
        vm_map = vm_map_of(*mutants, interlock=interlock)
        held: list[Range] = []
        inside = k.cell("inside", 0)

        async def thread(beg: int, end: int) -> None:
            ilock = await vm_map_interlock(vm_map, beg, end)
            assert not any(end > b and beg < e for b, e in held), "two overlapping holders"
            held.append((beg, end))
            await inside.load()
            held.remove((beg, end))
            await vm_map_deinterlock(vm_map, ilock)

        for i, (beg, end) in enumerate(ranges):
            k.spawn(f"t{i}", thread, beg, end)
        k.at_end(lambda: vm_map.ilock_base is None)

    return build


OVERLAPPING = [(0, 2), (1, 3), (2, 4)]  # 0-1 and 1-2 overlap
NESTED = [(0, 4), (1, 2), (1, 2)]
DISJOINT = [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("ranges", [OVERLAPPING[:2], [(0, 4), (1, 2)], DISJOINT[:2]])
def test_no_two_overlapping_holders_and_every_sleeper_is_woken(ranges: list[Range]) -> None:
    found = explore(program(ranges), strategy="dpor")

    assert (found.verdict, found.exhausted) == ("pass", True)


@pytest.mark.slow
@pytest.mark.parametrize("ranges", [OVERLAPPING, NESTED])
def test_three_threads_hold_the_same_under_many_schedules(ranges: list[Range]) -> None:
    found = explore(program(ranges), strategy="random", max_executions=400)

    assert found.verdict == "pass"


@pytest.mark.parametrize(
    ("mutant", "ranges", "what"),
    [
        ("ilock-test-before-unlink", [(0, 1), (0, 1)], "deadlock"),
        ("ilock-waiting-in-own", [(0, 1), (0, 1)], "deadlock"),
        ("ilock-unlock-before-enqueue", [(0, 1), (0, 1)], "deadlock"),
        ("ilock-wake-one", [(0, 1), (0, 1), (0, 1)], "deadlock"),
        # Two conflicts in the list: the one slept on is not the one met next.
        ("ilock-no-rescan", [(0, 2), (0, 1), (1, 2)], "overlapping"),
    ],
)
def test_mutants_each_line_of_the_algorithm_is_needed(
    mutant: str, ranges: list[Range], what: str
) -> None:
    """W29."""
    found = explore(program(ranges, mutant), strategy="random", max_executions=2000)

    assert found.verdict == "fail"
    assert found.failure is not None
    assert what in found.failure.message


def test_switched_off_it_excludes_nobody() -> None:
    found = explore(program([(0, 1), (0, 1)], interlock=False), strategy="dpor")

    assert found.failure is not None
    assert "overlapping" in found.failure.message


def drive(*bodies: Any) -> list[Any]:
    """Run threads one after the other, as far as they get."""
    execution = Execution()
    execution.checking = True
    results: list[Any] = []

    async def record(body: Any) -> None:
        results.append(await body)

    for i, body in enumerate(bodies):
        execution.spawn(f"t{i}", record(body))
    execution.run(lambda runnable: runnable[0], 1000)
    return results


def test_the_list_is_last_in_first_out() -> None:
    vm_map = vm_map_of()

    async def both() -> list[Range]:
        await vm_map_interlock(vm_map, 0, 1)
        await vm_map_interlock(vm_map, 4, 5)
        found = []
        async with vm_map.ilock_spin:
            scan = vm_map.ilock_base
            while scan is not None:
                found.append((scan.ran_beg, scan.ran_end))
                scan = scan.next
        return found

    assert drive(both()) == [[(4, 5), (0, 1)]]


@pytest.mark.parametrize(
    ("a", "b", "conflict"),
    [
        ((0, 1), (1, 2), False),  # the end is exclusive
        ((1, 2), (0, 1), False),
        ((0, 4), (1, 2), True),
        ((1, 2), (0, 4), True),
        ((0, 4), (2, 2), True),  # an empty range inside
        ((0, 4), (4, 4), False),
        ((0, 4), (0, 0), False),
    ],
)
def test_what_overlaps(a: Range, b: Range, conflict: bool) -> None:
    vm_map = vm_map_of()
    events: list[str] = []

    async def first() -> None:
        ilock = await vm_map_interlock(vm_map, *a)
        events.append("first in")
        await pause_until_blocked()
        events.append("first out")
        await vm_map_deinterlock(vm_map, ilock)

    async def second() -> None:
        ilock = await vm_map_interlock(vm_map, *b)
        events.append("second in")
        await vm_map_deinterlock(vm_map, ilock)

    async def pause_until_blocked() -> None:
        from vkprotocol.effects import pause

        await pause(1)

    drive(first(), second())

    assert events == (
        ["first in", "first out", "second in"]
        if conflict
        else ["first in", "second in", "first out"]
    )


def test_releasing_what_is_not_held_panics() -> None:
    vm_map = vm_map_of()

    async def body() -> None:
        await vm_map_deinterlock(vm_map, VmMapIlock(0, 1))

    with pytest.raises(Panic, match="missing ilock"):
        drive(body())


def test_a_sleeper_loses_its_tokens_and_has_them_again() -> None:
    vm_map = vm_map_of()
    token = Token("object")
    order: list[str] = []

    async def holder() -> None:
        ilock = await vm_map_interlock(vm_map, 0, PAGE)
        from vkprotocol.effects import pause

        await pause(1)
        await token.acquire()  # free, although the waiter had it
        order.append("holder has the token")
        await token.release()
        await vm_map_deinterlock(vm_map, ilock)

    async def waiter() -> None:
        await token.acquire()
        ilock = await vm_map_interlock(vm_map, 0, PAGE)
        order.append("waiter is in")
        assert [t for t, _ in curthread().tokens] == [token]
        await vm_map_deinterlock(vm_map, ilock)
        await token.release()

    drive(holder(), waiter())

    assert order == ["holder has the token", "waiter is in"]

"""The measured width of a window: counted by hand for programs small enough."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vkemu.executors.controlled import Choose, Execution
from vkemu.report.width import Lenient, Placed, Width, measure
from vkprotocol.effects import Cell


class Race:
    """A victim of `before + inside + after` steps; a write by the other is harmful inside."""

    def __init__(self, before: int, inside: int, after: int, prelude: int = 0) -> None:
        self.shape = before, inside, after
        self.prelude = prelude
        self.harm = False
        self.danger = False

    def run(self, choose: Choose) -> bool:
        self.harm = self.danger = False
        execution = Execution()
        execution.spawn("victim", self.victim())
        execution.spawn("writer", self.writer())
        execution.run(choose, 10_000)
        return self.harm

    async def victim(self) -> None:
        cell = Cell("own")
        before, inside, after = self.shape
        for _ in range(before):
            await cell.load()
        for _ in range(inside):
            await cell.load()
            self.danger = True
        await cell.load()
        self.danger = False
        for _ in range(after):
            await cell.load()

    async def writer(self) -> None:
        cell = Cell("x")
        for _ in range(self.prelude):
            await cell.load()
        await cell.store(1)
        self.harm |= self.danger
        for _ in range(self.prelude):
            await cell.load()


def schedule_of(race: Race, at: int) -> list[int]:
    before, inside, after = race.shape
    victim = [0] * (before + inside + after + 1)
    writer = [1] * (2 * race.prelude + 1)
    return [*victim[:at], *writer, *victim[at:]]


@pytest.mark.parametrize("prelude", [0, 3])
@pytest.mark.parametrize("shape", [(0, 1, 0), (3, 2, 5), (10, 4, 1)])
def test_every_position_is_tried_and_the_harmful_ones_counted(
    shape: tuple[int, int, int], prelude: int
) -> None:
    race = Race(*shape, prelude=prelude)
    before, inside, after = shape
    at = before + 1
    schedule = schedule_of(race, at)
    step = at + prelude + 1

    width = measure(schedule, step, "writer", race.run)

    assert width.positions == tuple(range(before + inside + after + 2))
    assert width.failing == tuple(range(before + 1, before + inside + 1))
    assert width.span == (before + 1, before + inside)
    assert not width.partial
    total = before + inside + after + 2
    assert str(width) == f"{inside} of {total} positions of the writer step fail"


def test_the_schedule_may_end_early() -> None:
    """A failing run stops at the failure: the positions after it count all the same."""
    race = Race(3, 2, 5)
    schedule = schedule_of(race, 4)[:5]

    width = measure(schedule, 5, "writer", race.run)

    assert width.failing == (4, 5)
    assert len(width.positions) == 12


def test_a_step_that_cannot_go_early_is_counted_where_it_went() -> None:
    def program(choose: Choose) -> bool:
        execution = Execution()
        flag = Cell("flag")

        async def victim() -> None:
            for value in range(1, 6):
                await flag.store(value)

        async def writer() -> None:
            await flag.wait(lambda value: value >= 3)
            await flag.load()

        execution.spawn("victim", victim())
        execution.spawn("writer", writer())
        execution.run(choose, 100)
        return True

    width = measure([0, 0, 0, 1, 1, 0, 0], 5, "writer", program)

    assert width.positions == (3, 4, 5)


def test_a_long_run_is_measured_by_halving() -> None:
    race = Race(3000, 50, 3000)
    schedule = schedule_of(race, 3012)
    runs = 0

    def rerun(choose: Choose) -> bool:
        nonlocal runs
        runs += 1
        return Race(3000, 50, 3000).run(choose)

    width = measure(schedule, 3013, "writer", rerun, limit=20)

    assert width.partial
    low, high = width.span
    assert 3001 <= low <= 3002
    assert 3047 <= high <= 3050
    assert runs < 40


def test_the_moved_step_draws_its_own_along() -> None:
    taken: list[int] = []

    def watch(placed: Placed) -> Callable[[list[int]], int]:
        def choose(runnable: list[int]) -> int:
            taken.append(placed(runnable))
            return taken[-1]

        return choose

    race = Race(3, 0, 3, prelude=2)
    placed = Placed([0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1], 5, 1)
    race.run(watch(placed))

    assert taken[:4] == [0, 1, 1, 1]
    assert placed.landed == 1


def test_the_span_is_the_stretch_around_where_it_was() -> None:
    width = Width("a", 9, 5, (1, 4, 5, 6, 9), tuple(range(12)))

    assert width.span == (4, 6)


def test_what_landed_elsewhere_is_an_end_of_the_stretch() -> None:
    """The step was moved towards a place that it cannot get to a dozen times more."""
    runs = 0

    def program(choose: Choose) -> bool:
        nonlocal runs
        runs += 1
        execution = Execution()
        flag = Cell("flag")

        async def victim() -> None:
            for value in range(1, 3000):
                await flag.store(value)

        async def writer() -> None:
            await flag.wait(lambda value: value >= 1000)
            await flag.load()

        execution.spawn("victim", victim())
        execution.spawn("writer", writer())
        execution.run(choose, 10_000)
        return True

    schedule = [0] * 2000 + [1, 1] + [0] * 999
    width = measure(schedule, 2002, "writer", program, limit=20)

    assert width.span == (1000, 2999)
    assert runs < 20


@pytest.mark.parametrize("position", [0, 1, 5, 11, 12, 13, 30])
def test_what_is_taken_as_recorded_is_taken_at_once(position: int) -> None:
    """As if every step had been thought about."""

    class Slow(Placed):
        def __init__(self, schedule: list[int], index: int, position: int) -> None:
            super().__init__(schedule, index, position)
            self._same = self.own = self.others = 0
            self._schedule = Lenient(schedule)

    schedule = schedule_of(Race(10, 4, 6, prelude=3), 12)
    taken: list[list[int]] = []
    for kind in (Placed, Slow):
        placed = kind(schedule, 15, position)
        taken.append([])

        def choose(runnable: list[int], placed: Placed = placed) -> int:
            taken[-1].append(placed(runnable))
            return taken[-1][-1]

        Race(10, 4, 6, prelude=3).run(choose)
    assert taken[0] == taken[1]

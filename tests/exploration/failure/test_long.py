"""Failures of long executions: shrunk within a bound, and told in linear time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu import explore
from vkemu.exploration.reduction.conflicts import Conflicts
from vkemu.exploration.reduction.footprint import Objects, dependent
from vkprotocol.effects import Cell, Effect

from tests.exploration.divided import lost_update


def long(k: Any, steps: int = 300) -> None:
    """A lost update behind many steps that have nothing to do with it."""
    x = k.cell("x", 0)

    async def work(own: Any) -> None:
        for _ in range(steps):
            await own.add(1)
        value = await x.load()
        await x.store(value + 1)

    for name in "abc":
        k.spawn(name, work, k.cell(name))
    k.at_end(lambda: x.value == 3)


@pytest.mark.slow
def test_a_long_failure_is_shrunk_by_drawing_within_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It took 400 executions, of which hardly one helped, and said nothing of having given up."""
    monkeypatch.setattr("vkemu.exploration.failure.shrink.LONG", 500)
    monkeypatch.setattr("vkemu.exploration.failure.shrink.TRIAL_STEPS", 60_000)
    stages: list[str] = []
    found = explore(
        long, strategy="random", seed=1, progress=lambda result: stages.append(result.stage)
    )
    failure = found.failure

    assert failure is not None
    assert failure.preemptions < 20
    assert "a smaller one is not ruled out (it has more than 500 steps)" in failure.shrunk
    assert failure.shrunk.startswith("from 906 steps and ")
    assert len(stages) < 80
    assert stages[-1].startswith("shrinking: ")


def test_what_is_proved_smallest_says_nothing_of_a_bound() -> None:
    failure = explore(lost_update).failure

    assert failure is not None
    assert failure.shrunk == ""


Steps = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=30)


@given(Steps)
def test_conflicts_are_the_dependent_steps_of_others(steps: list[tuple[int, int, bool]]) -> None:
    objects = Objects()
    cells = [Cell(f"c{n}") for n in range(3)]
    conflicts = Conflicts(objects)
    for tid, cell, write in steps:
        conflicts.add(tid, Effect(cells[cell], "op", write=write))
    for n, (tid, _, _) in enumerate(steps):
        mine = conflicts.footprints[n]
        expected = tuple(
            other
            for other, (rival, _, _) in enumerate(steps)
            if rival != tid and dependent(mine, conflicts.footprints[other])
        )
        assert conflicts.of(n) == expected


def test_of_a_long_execution_the_nearest_conflicts_are_told() -> None:
    objects = Objects()
    cell = Cell("c")
    conflicts = Conflicts(objects)
    for n in range(3000):
        conflicts.add(n % 3, Effect(cell, "op", write=not n % 3))

    assert conflicts.of(1501) == (1500, 1503)  # of a load, the stores around it
    assert conflicts.of(1500) == (1498, 1499, 1501, 1502)

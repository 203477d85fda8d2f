"""Witnesses are smallest: against `bounded`, on generated programs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from vkemu import explore, replay
from vkemu.exploration.failure import budget
from vkemu.exploration.failure.fewest import Fewest

from tests.exploration.generated import Built, Source, sources


def ends(source: Source, bound: int) -> set[Any]:
    """The final states with so many preemptions."""
    found: set[Any] = set()
    built: list[Built] = []

    def program(k: Any) -> None:
        built[:] = [Built(k, source)]

    explore(
        program,
        strategy=f"bounded:{bound}",
        max_executions=2000,
        stop_on_failure=False,
        each=lambda run: found.add(built[0].final()),
    )
    return found


@pytest.mark.slow
@settings(
    max_examples=15,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(sources())
def test_a_witness_has_the_fewest_preemptions(source: Source) -> None:
    # A program whose one failure is to end as it cannot end without a preemption.
    expected = ends(source, 0)

    def program(k: Any) -> None:
        built = Built(k, source)
        k.at_end(lambda: built.final() in expected)

    failure = explore(program, strategy="random", max_executions=64).failure
    assume(failure is not None and "expected" in failure.message)
    assert failure is not None
    bound = 1
    while ends(source, bound) == expected:
        bound += 1
    assert failure.preemptions == bound


def updates(k: Any, threads: int = 8) -> None:
    x = k.cell("x", 0)

    async def increment() -> None:
        v = await x.load()
        await x.store(v + 1)

    for n in range(threads):
        k.spawn(f"t{n}", increment)
    k.at_end(lambda: x.value == threads)


def test_shrinking_keeps_to_the_rest_of_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes a second each time somebody looks."""
    monkeypatch.setattr(budget, "perf_counter", itertools.count(1e9).__next__)
    found = explore(updates, max_seconds=1000)
    assert found.verdict == "fail"
    assert found.failure is not None
    assert found.failure.shrunk.endswith(" s)")


def test_shrinking_keeps_to_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "STATES", 50)
    failure = explore(updates).failure
    assert failure is not None
    assert failure.shrunk.endswith("(bound: 200 MiB)")


def test_a_failure_is_shown_when_there_is_no_memory_to_shrink_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def level(self: Fewest, longest: int) -> None:
        raise MemoryError

    monkeypatch.setattr(Fewest, "level", level)
    failure = explore(updates).failure
    assert failure is not None
    assert failure.shrunk.endswith("(out of memory)")
    assert replay(updates, failure.token).message == failure.message

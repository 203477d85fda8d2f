"""Witnesses are smallest: against `bounded`, on generated programs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from vkemu import explore

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
    max_examples=60,
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

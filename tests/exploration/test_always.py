"""What must always hold is checked in every state that a reduction must then reach."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from vkemu import explore

from tests.exploration.generated import Built, Source, sources

REDUCTIONS = ["dpor", "source-dpor"]


def two_writes(k: Any) -> tuple[Any, Any]:
    x, y = k.cell("x", 0), k.cell("y", 0)
    for cell in (x, y):
        k.spawn(cell.key, cell.store, 1)
    return x, y


def sees_cells(k: Any) -> None:
    x, y = two_writes(k)
    k.always(lambda: not (x.value == 0 and y.value == 1))


def sees_a_list_of_cells(k: Any) -> None:
    cells = list(two_writes(k))
    k.always(lambda: [cell.value for cell in cells] != [0, 1])


def declares_what_it_reads(k: Any) -> None:
    x, y = two_writes(k)

    class Model:
        def sound(self) -> bool:
            return not (x.value == 0 and y.value == 1)

    k.always(Model().sound, reads=(x, y))


def sees_a_log(k: Any) -> None:
    log: list[str] = []

    async def look(name: str) -> None:
        await k.cell(name, 0).load()
        log.append(name)

    k.spawn("x", look, "x")
    k.spawn("y", look, "y")
    k.always(lambda: log != ["y"])


def sees_a_variable(k: Any) -> None:
    x, y = k.cell("x", 0), k.cell("y", 0)
    last = ""

    async def look(cell: Any) -> None:
        nonlocal last
        await cell.load()
        last += cell.key

    k.spawn("x", look, x)
    k.spawn("y", look, y)
    k.always(lambda: last != "y")


@pytest.mark.parametrize("strategy", ["dfs", *REDUCTIONS])
@pytest.mark.parametrize(
    "program",
    [sees_cells, sees_a_list_of_cells, declares_what_it_reads, sees_a_log, sees_a_variable],
)
def test_a_state_between_independent_steps_is_seen(program: Any, strategy: str) -> None:
    found = explore(program, strategy=strategy, stop_on_failure=False)
    assert found.verdict == "fail"
    assert (found.executions, found.failures, found.exhausted) == (2, 1, True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", REDUCTIONS)
@settings(
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(source=sources())
def test_reductions_reach_every_state_a_predicate_can_see(source: Source, strategy: str) -> None:
    views: dict[str, set[Any]] = {}
    for name in ("dfs", strategy):
        seen = views[name] = set()

        def program(k: Any, seen: set[Any] = seen) -> None:
            built = Built(k, source)
            x, y = built.cells.values()
            k.always(lambda: seen.add((x.value, y.value)), reads=(x, y))

        found = explore(program, strategy=name, stop_on_failure=False, max_executions=1500)
        assume(found.exhausted)
    assert views[strategy] == views["dfs"]

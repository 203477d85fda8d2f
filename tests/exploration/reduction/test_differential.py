"""The reductions against exhaustive search, on generated programs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from vkemu import explore
from vkemu.exploration.run import Run

from tests.exploration.generated import SHARING, Built, Path, Source, class_of, paths_of, sources

DFS_MAX = 1500


def ends(source: Source, strategy: str) -> tuple[set[Any], list[list[Path]], Any]:
    """Every final state (with its failure), every schedule, and the result."""
    states: set[Any] = set()
    schedules: list[list[Path]] = []
    built: list[Built] = []

    def program(k: Any) -> None:
        built[:] = [Built(k, source)]

    def each(run: Run) -> None:
        failures = tuple(sorted(t.path for t in run.execution.threads.values() if t.error))
        states.add((built[0].final(), failures))
        schedules.append(paths_of(run))

    limit = DFS_MAX if strategy == "dfs" else 10 * DFS_MAX
    result = explore(
        program, strategy=strategy, stop_on_failure=False, max_executions=limit, each=each
    )
    return states, schedules, result


def agree(source: Source) -> None:
    states, schedules, truth = ends(source, "dfs")
    assume(truth.exhausted)

    def build(k: Any) -> Built:
        return Built(k, source)

    classes = {class_of(build, schedule) for schedule in schedules}
    for strategy in ("dpor", "source-dpor"):
        reached, traces, found = ends(source, strategy)
        assert reached == states
        assert found.verdict == truth.verdict
        assert found.exhausted
        assert {class_of(build, schedule) for schedule in traces} == classes
        assert found.executions == len(classes)
        assert strategy == "source-dpor" or found.blocked == 0


SETTINGS = settings(
    max_examples=30,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@pytest.mark.slow
@SETTINGS
@given(sources())
def test_reductions_agree_with_dfs(source: Source) -> None:
    agree(source)


@pytest.mark.slow
@settings(SETTINGS, max_examples=20)
@given(sources(SHARING))
def test_reductions_agree_with_dfs_on_shared_locks(source: Source) -> None:
    agree(source)

"""Reductions, parts and checkpoints against dfs, on programs drawn from everything: `drawn`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from vkemu import explore

from tests.exploration.drawn import RARE, Built, Ends, Source, draw
from tests.exploration.generated import class_of

DFS_MAX = 400
REDUCTIONS = ("dpor", "source-dpor")
# Of these there are more executions than traces: every step has to count;
EVERY_STEP_COUNTS = {"look", "late"}
# or what a cancelled thread does in its next step is not known before.
UNKNOWN_BEFORE = {"cancel", "nursery"}
PROGRAMS, LONG = 300, 10_000


def explored(source: Source, strategy: str, **options: Any) -> tuple[Ends, Any]:
    ends = Ends(source)
    limit = DFS_MAX if strategy == "dfs" else 10 * DFS_MAX
    return ends, explore(
        ends.program, strategy=strategy, stop_on_failure=False, max_executions=limit,
        max_steps=200, each=ends.note, **options,
    )  # fmt: skip


def agree(
    source: Source, strategies: tuple[str, ...] = REDUCTIONS, *, counted: bool = False
) -> bool:
    """Whether dfs came to an end: the others then say the same. `counted`: the traces too."""
    counted = counted and not source.always and not source.ops & EVERY_STEP_COUNTS
    truth, complete = explored(source, "dfs")
    if not complete.exhausted:
        return False
    for strategy in strategies:
        ends, found = explored(source, strategy)
        assert ends.states == truth.states, (strategy, source)
        assert ends.faults == truth.faults, (strategy, source)
        assert (found.verdict, found.exhausted) == (complete.verdict, True), (strategy, source)
        if counted:
            build = partial(Built, source=source)
            traces = {class_of(build, schedule) for schedule in truth.schedules}
            exact = not source.ops & UNKNOWN_BEFORE
            assert found.executions == len(traces) or (not exact and found.executions > len(traces))
            assert {class_of(build, schedule) for schedule in ends.schedules} == traces
    return True


def test_reductions_agree_with_dfs() -> None:
    agreed = [seed for seed in range(PROGRAMS) if agree(draw(seed), counted=not seed % 16)]
    assert len(agreed) > PROGRAMS * 5 / 6
    assert set(RARE) <= set().union(*(draw(seed).ops for seed in agreed))


def test_others_agree_with_dfs() -> None:
    for seed in range(0, 120, 8):
        agree(draw(seed), ("portfolio", "bounded"))


def program(k: Any, seed: int) -> None:
    """For other processes, and for checkpoints."""
    Built(k, draw(seed))


def parts_agree(seed: int, file: Path, **options: Any) -> None:
    """The counts of one process, also where it is taken up after every few executions."""
    build = partial(program, seed=seed)
    whole = explore(build, strategy="dpor", stop_on_failure=False, max_steps=200)
    while True:
        found = explore(
            build, strategy="dpor", stop_on_failure=False, max_steps=200, checkpoint=file,
            max_executions=7, **options,
        )  # fmt: skip
        if found.exhausted:
            break
    assert found.verdict == whole.verdict
    assert found.failures == whole.failures
    assert found.executions == whole.executions


def test_checkpoints_agree_with_one_search(tmp_path: Path) -> None:
    for seed in (1, 4, 9, 14, 22):
        if not draw(seed).ops & EVERY_STEP_COUNTS:
            parts_agree(seed, tmp_path / str(seed))


# Each part within the time that a test has.
PARTS = [range(first, first + 100) for first in range(0, LONG, 100)]


@pytest.mark.long
@pytest.mark.parametrize("seeds", PARTS, ids=lambda seeds: f"from {seeds[0]}")
def test_all_agree_with_dfs_on_many(seeds: range, tmp_path: Path) -> None:
    agreed = [seed for seed in seeds if agree(draw(seed, 7), counted=True)]
    assert len(agreed) > len(seeds) // 2
    for seed in agreed:
        agree(draw(seed, 7), ("portfolio", "bounded"))
        if not draw(seed).ops & EVERY_STEP_COUNTS:
            parts_agree(seed, tmp_path / str(seed))


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, 100, 10))
def test_processes_agree_with_one(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        if not draw(seed).ops & EVERY_STEP_COUNTS:
            parts_agree(seed, tmp_path / str(seed), jobs=2)

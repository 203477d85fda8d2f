"""Reductions, parts and checkpoints against dfs, on programs drawn from everything: `drawn`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exploration.agreement import OTHERS, REDUCTIONS, Truth, main
from tests.exploration.drawn import RARE, draw

PROGRAMS, LONG = 200, 10_000
FEW = (
    150  # executions of plain search: what one program in seven goes beyond takes most of the time
)


def test_reductions_agree_with_dfs() -> None:
    agreed = []
    for seed in range(PROGRAMS):
        truth = Truth(draw(seed), FEW, counted=not seed % 16)
        if truth.complete:
            agreed.append(seed)
            for strategy in REDUCTIONS:
                truth.agrees(strategy)
    assert len(agreed) > PROGRAMS * 5 / 6
    assert set(RARE) <= set().union(*(draw(seed).ops for seed in agreed))


def test_others_agree_with_dfs() -> None:
    for seed in range(0, 120, 8):
        truth = Truth(draw(seed))
        for strategy in OTHERS:
            if truth.complete:
                truth.agrees(strategy)


def test_checkpoints_agree_with_one_search(tmp_path: Path) -> None:
    # The last one with objects that are set in a declared step, and looked at.
    for seed, size in ((1, 6), (4, 6), (9, 6), (14, 6), (22, 6), (283, 7)):
        Truth(draw(seed, size)).parts_agree(tmp_path / str(seed))


# Each part within the time that a test has.
@pytest.mark.long
@pytest.mark.parametrize("first", range(0, LONG, 25))
def test_all_agree_with_dfs_on_many(first: int) -> None:
    assert main([str(first), str(first + 25)]) == 0

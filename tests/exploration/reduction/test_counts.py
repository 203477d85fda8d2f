"""The number of Mazurkiewicz traces of programs whose number is known."""

from __future__ import annotations

from math import factorial

import pytest
from vkemu import explore

from tests.exploration.literature import (
    Build,
    adds,
    filesystem,
    independent,
    indexer,
    lastzero,
    lost_update,
    readers,
)


@pytest.mark.parametrize(
    ("program", "traces"),
    [
        (readers(8), 256),
        (lastzero(5), 64),
        (indexer(12), 8),
        (indexer(13), 64),
        (filesystem(14), 2),
        (filesystem(16), 8),
        (filesystem(18), 32),
        (filesystem(19), 64),
        (independent(3), 1),
        (lost_update(2), 4),
        (lost_update(3), 36),
        (lost_update(4), 576),
        *((adds(n), factorial(n)) for n in range(1, 6)),
    ],
)
def test_traces(program: Build, traces: int) -> None:
    found = explore(program)
    assert (found.executions, found.blocked, found.cut) == (traces, 0, 0)
    assert found.exhausted
    assert found.verdict == "pass"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "traces"), [(readers(13), 8192), (lastzero(10), 3328), (indexer(15), 4096)]
)
def test_traces_of_large_programs(program: Build, traces: int) -> None:
    found = explore(program)
    assert (found.executions, found.blocked) == (traces, 0)
    assert found.exhausted


@pytest.mark.slow
def test_interleavings_of_independent_writes() -> None:
    found = explore(independent(3), strategy="dfs")
    assert found.executions == 34650
    assert found.exhausted

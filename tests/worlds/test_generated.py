"""Programs nobody chose: the traces of dpor are the classes of dfs, and the audit is silent."""

from __future__ import annotations

from typing import Any

import pytest
from vkemu.exploration import exploring
from vkemu.worlds.async_program import AsyncProgram

from tests.worlds.generated import drawn, in_asyncio, in_trio

FEW = [3, 5, 17, 20, 21, 29]
MANY = range(200)
MOST = 1500  # executions of dfs; a larger program is left out


def compare(seed: int, backend: str, **options: Any) -> bool:
    """False when the program is too large for dfs."""
    main = (in_trio if backend == "trio" else in_asyncio)(drawn(seed))
    found: dict[str, tuple[Any, set[str], set[Any]]] = {}
    with AsyncProgram(main, backend, **options).entered() as program:
        for strategy in ("dpor", "dfs", "dpor"):  # once, to learn of every dict that is iterated
            ends: set[str] = set()
            forms: set[Any] = set()

            def each(run: Any, ends: set[str] = ends, forms: set[Any] = forms) -> None:
                error = run.error
                ends.add(run.message() if error is not None else repr(run.execution.outcome))
                forms.add(run.execution.form())

            result = exploring.explore(
                program, strategy=strategy, stop_on_failure=False, each=each, max_executions=MOST
            )
            assert result.doubt == "", (seed, drawn(seed))
            if not result.exhausted:
                return False
            found[strategy] = result, ends, forms
    (dpor, some, traces), (_, all_, classes) = found["dpor"], found["dfs"]
    assert some == all_, (seed, drawn(seed))
    assert traces == classes, (seed, drawn(seed))
    assert dpor.verdict == found["dfs"][0].verdict
    return True


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_dpor_takes_every_trace_of_dfs(backend: str) -> None:
    for seed in FEW:
        assert compare(seed, backend)


def test_to_yield_twice_at_one_place_is_no_spin() -> None:
    assert compare(298, "asyncio")


@pytest.mark.long
@pytest.mark.parametrize("seed", [300, 580, 591, 640, 762])
def test_what_once_was_taken_for_a_spin(seed: int) -> None:
    assert compare(seed, "asyncio")


@pytest.mark.long
@pytest.mark.parametrize("first", MANY[::20])
def test_dpor_takes_every_trace_of_dfs_in_many_programs(first: int) -> None:
    done = 0
    for seed in range(first, first + 20):
        for backend in ("trio", "asyncio"):
            done += compare(seed, backend)
    assert done > 20

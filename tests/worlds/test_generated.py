"""Programs nobody chose: the traces of dpor are the classes of dfs, and the audit is silent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from vkemu import explore
from vkemu.exploration import exploring
from vkemu.exploration.reduction.wakeup import Reversals
from vkemu.exploration.strategies import dpor
from vkemu.worlds.async_program import AsyncProgram

from tests.exploration.sharing.test_jobs import torn
from tests.worlds.generated import CALLS, OPS, drawn, in_asyncio, in_trio

FEW = {"trio": [3, 17, 29], "asyncio": [5, 20, 21]}
MANY = range(200)
MOST = 1500  # executions of dfs; a larger program is left out


def compare(seed: int, backend: str, ops: tuple[str, ...] = OPS, **options: Any) -> bool:
    """False when the program is too large for dfs."""
    main = (in_trio if backend == "trio" else in_asyncio)(drawn(seed, ops))
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


def traces(seed: int, strategy: str) -> tuple[Any, int]:
    """The result, and how many traces were taken."""
    forms: set[Any] = set()

    def each(run: Any) -> None:
        forms.add(run.execution.form())

    with AsyncProgram(in_trio(drawn(seed)), "trio").entered() as program:
        for _ in range(2):  # once, to learn of every dict that is iterated
            forms.clear()
            result = exploring.explore(program, strategy=strategy, stop_on_failure=False, each=each)
    return result, len(forms)


# What a step touches once another was reversed is a guess. 518: a thread that was explored from a
# state touches something else there than it was taken to; 321: the same, with deadlines; 711: what
# a leaf of the tree touches was learnt in another place than what now is to begin with it.
@pytest.mark.parametrize(
    ("seed", "classes", "strategy"),
    [
        (518, 9, "dpor"),
        (518, 9, "source-dpor"),
        (711, 39, "dpor"),
        pytest.param(711, 39, "source-dpor", marks=pytest.mark.long),
        pytest.param(321, 72, "dpor", marks=pytest.mark.long),
        pytest.param(321, 72, "source-dpor", marks=pytest.mark.long),
    ],
)
def test_a_guess_hides_no_trace(seed: int, classes: int, strategy: str) -> None:
    result, found = traces(seed, strategy)

    assert result.exhausted
    assert result.executions == found == classes


# 49: a timer could have fired when it was not so late. 375, 78: a deadline that was withdrawn could
# have passed before, once an earlier one had that was still there. 617: whose scope is cancelled
# holds up no other.
@pytest.mark.parametrize(
    ("seed", "backend"),
    [
        (375, "asyncio"),
        (78, "trio"),
        pytest.param(49, "asyncio", marks=pytest.mark.long),
        pytest.param(617, "trio", marks=pytest.mark.long),
    ],
)
def test_deadlines_at_any_time_come_in_every_order(seed: int, backend: str) -> None:
    assert compare(seed, backend, time="any")


def test_a_search_begins_again_when_the_program_is_rewritten() -> None:
    with AsyncProgram(in_trio(drawn(11)), "trio").entered() as program:
        result = exploring.explore(program, stop_on_failure=False, max_executions=14)

    assert (result.doubt, result.executions, result.exhausted) == ("", 13, True)


def test_the_audit_finds_that_a_trace_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpor, "Guesses", Reversals)  # what is guessed is taken for known

    result, found = traces(518, "dpor")

    assert found == 8
    assert result.verdict == "unknown"
    assert result.doubt.startswith("the search left a trace out: program, run.")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_dpor_takes_every_trace_of_dfs(backend: str) -> None:
    for seed in FEW[backend]:
        assert compare(seed, backend)


@pytest.mark.parametrize(
    ("seeds", "order"),
    [
        ([43, 91], "arrival"),
        ([14, 57, 91], "any"),
        pytest.param(range(100), "arrival", marks=pytest.mark.long),
        pytest.param(range(100), "any", marks=pytest.mark.long),
    ],
)
def test_what_the_loop_calls_is_followed_also_when_main_is_over(
    seeds: list[int], order: str
) -> None:
    assert sum(compare(seed, "asyncio", CALLS, order=order) for seed in seeds) > len(seeds) / 2


async def calls_soon() -> None:
    def call(left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(call, left - 1)

    call(3)
    await asyncio.sleep(0)


@pytest.mark.parametrize("order", ["arrival", "any"])
def test_what_is_called_soon_may_be_under_way_when_main_is_over(order: str) -> None:
    result = explore(calls_soon, backend="asyncio", order=order)

    assert (result.verdict, result.executions, result.exhausted) == ("pass", 1, True)


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


@pytest.mark.parametrize("seeds", [[9], pytest.param(range(30), marks=pytest.mark.long)])
def test_parts_of_a_search_take_the_same_traces(seeds: list[int]) -> None:
    for seed in seeds:
        with AsyncProgram(in_asyncio(drawn(seed)), "asyncio").entered() as program:
            options: dict[str, Any] = {"stop_on_failure": False, "max_executions": 300}
            whole = exploring.explore(program, **options)
            parts = torn(program, "dpor", seed) if whole.exhausted else whole
        assert (parts.executions, parts.failures) == (whole.executions, whole.failures), seed

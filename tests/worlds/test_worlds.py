"""Async programs as they stand, under the search: trio, asyncio and AnyIO."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sniffio
import trio
from vkemu import explore, replay
from vkemu.exploration.result import ExplorationError
from vkemu.worlds.async_program import AsyncProgram
from vkemu.worlds.instrumenting import name_roots
from vkemu.worlds.noting import LOG

from tests.exploration.sharing.test_jobs import torn
from tests.worlds import programs


def ends(program: Any, backend: str, strategy: str = "dpor", **options: Any) -> tuple[Any, Any]:
    """The result of all there is, and how often it ended in what."""
    found: Counter[str] = Counter()

    def each(run: Any) -> None:
        found[run.message() if run.error is not None else repr(run.execution.outcome)] += 1

    result = explore(
        program, backend=backend, strategy=strategy, stop_on_failure=False, each=each, **options
    )
    assert result.doubt == ""
    return result, found


# -- counts: one execution a trace -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "dpor", "dfs"),
    [
        (programs.lost_update, 4, 6),
        (programs.two_locks, 5, 8),
        (programs.leaking_pool, 80, 180),
        (programs.timeouts, 7, 7),
    ],
)
def test_dpor_ends_as_dfs_does_in_fewer_executions(program: Any, dpor: int, dfs: int) -> None:
    reduced, some = ends(program, "trio")
    plain, all_ = ends(program, "trio", "dfs")

    assert (reduced.executions, plain.executions) == (dpor, dfs)
    assert reduced.blocked == 0
    assert reduced.exhausted
    assert set(some) == set(all_)


def test_what_shares_one_dict_by_its_keys_is_independent_until_it_is_read() -> None:
    result, found = ends(programs.independent, "trio")

    assert (result.verdict, result.executions, len(found)) == ("pass", 6, 1)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["arrival", "any"])
def test_asyncio_orders(order: str) -> None:
    reduced, some = ends(programs.queued, "asyncio", order=order)
    plain, all_ = ends(programs.queued, "asyncio", "dfs", order=order)

    assert (reduced.executions, plain.executions) == {"arrival": (16, 20), "any": (160, 296)}[order]
    assert reduced.blocked == 0
    assert set(some) == set(all_)


def test_asyncio_promises_nothing_about_an_update_across_an_await() -> None:
    result, found = ends(programs.gathered, "asyncio")

    assert result.exhausted
    assert set(found) == {"1", "2"}


# -- failures --------------------------------------------------------------------------------------


def test_a_failure_is_shrunk_narrated_and_replays() -> None:
    result = explore(programs.lost_update, backend="trio")

    failure = result.failure
    assert failure is not None
    assert (result.verdict, failure.message) == ("fail", "lost_update: AssertionError: total is 1")
    assert failure.preemptions == 1
    told = str(failure)
    assert re.search(r"reads total programs.py:\d+", told)
    assert re.search(r"writes total programs.py:\d+", told)
    assert "increment.0" in told
    again = replay(programs.lost_update, failure.token, backend="trio")
    assert (again.message, again.token) == (failure.message, failure.token)


def test_a_deadlock_says_who_waits_for_whom() -> None:
    result = explore(programs.two_locks, backend="trio")

    assert result.failure is not None
    assert "take.0 waits for Lock.acquire held by take.1" in result.failure.message
    assert "take.1 waits for Lock.acquire held by take.0" in result.failure.message


@pytest.mark.parametrize("strategy", ["random", "pct", "pos", "urw", "bounded", "portfolio"])
def test_every_strategy_finds_it(strategy: str) -> None:
    result = explore(programs.lost_update, backend="trio", strategy=strategy)

    assert result.failure is not None
    assert result.failure.message == "lost_update: AssertionError: total is 1"


def test_source_dpor_ends_as_dpor_does() -> None:
    result, found = ends(programs.lost_update, "trio", "source-dpor")

    assert result.exhausted
    assert set(found) == {"2", "lost_update: AssertionError: total is 1"}


def test_a_cancellation_everywhere_finds_what_is_half_done() -> None:
    assert explore(programs.unfinished, backend="trio").verdict == "pass"

    result = explore(programs.unfinished, backend="trio", cancel="everywhere")

    assert result.failure is not None
    assert "half done" in result.failure.message


# -- time, threads, spins --------------------------------------------------------------------------


def test_what_is_due_at_the_same_moment_comes_in_both_orders() -> None:
    _, found = ends(programs.timeouts, "trio")

    assert set(found) == {"'done'", "'late'"}


def test_deadlines_that_pass_at_any_time_come_in_all_orders() -> None:
    reduced, some = ends(programs.timeouts, "trio", time="any")
    plain, all_ = ends(programs.timeouts, "trio", "dfs", time="any")

    assert (reduced.verdict, plain.verdict) == ("pass", "pass")
    assert reduced.exhausted
    assert set(some) == set(all_)


def test_calls_in_worker_threads_are_steps_at_any_time() -> None:
    result, found = ends(programs.in_threads, "trio")

    assert result.exhausted
    assert set(found) == {"1", "2"}


@pytest.mark.parametrize(
    ("program", "backend"),
    [
        (programs.in_asyncios_threads, "asyncio"),
        (programs.in_anyios_threads, "anyio+trio"),
        (programs.in_anyios_threads, "anyio+asyncio"),
    ],
)
def test_to_thread_of_every_library(program: Any, backend: str) -> None:
    _, found = ends(program, backend, strategy="random", max_executions=20)

    assert set(found) == {"1", "2"}


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="event loop policies go")
def test_a_program_for_uvloop_runs_on_our_loop() -> None:
    uvloop = pytest.importorskip("uvloop")
    kinds = set()

    async def on_uvloop() -> None:
        kinds.add(type(asyncio.get_running_loop()).__module__)
        await programs.asyncio_failing()

    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        assert explore(on_uvloop, backend="asyncio").verdict == "fail"
    finally:
        asyncio.set_event_loop_policy(before)
    assert kinds == {"vkemu.worlds.asyncio_loop"}


def test_a_worker_thread_may_call_back() -> None:
    result, found = ends(programs.back_from_a_thread, "trio")

    assert result.exhausted
    assert len(found) == 2


def test_calls_in_an_executor() -> None:
    result, found = ends(programs.in_executor, "asyncio")

    assert result.exhausted
    assert set(found) == {"2"}


def test_a_spin_waits_for_others() -> None:
    result, found = ends(programs.spinning, "asyncio", "dfs")

    assert result.exhausted
    assert set(found) == {"'done'"}


# -- never a wrong pass ----------------------------------------------------------------------------


def test_hidden_state_is_found_by_the_audit_and_named() -> None:
    result = explore(programs.in_the_environment, backend="trio")

    assert result.verdict == "unknown"
    assert "increment" in result.doubt
    assert "programs.py:" in result.doubt


def test_what_is_kept_between_executions_is_found() -> None:
    result = explore(programs.kept_between_executions, backend="trio")

    assert result.verdict == "unknown"
    assert "another execution" in result.doubt


def test_a_finalizer_that_changes_what_is_shared_is_found() -> None:
    result = explore(programs.in_a_finalizer, backend="trio")

    assert result.verdict == "unknown"
    assert "a finalizer writes" in result.doubt


def test_an_object_of_c_counts_as_touched() -> None:
    result, found = ends(programs.in_an_array, "trio")

    assert result.exhausted
    assert set(found) == {"1", "2"}


@pytest.mark.parametrize(
    ("program", "backend", "what"),
    [
        (programs.real_socket, "trio", "waits for a real socket or file"),
        (programs.with_tls, "asyncio", "makes a connection with TLS"),
        (programs.datagrams, "trio", "opens a socket that is not for TCP"),
        (programs.in_a_process, "anyio+trio", "starts a process"),
        (programs.in_a_process, "anyio+asyncio", "starts a process"),
        (programs.starts_a_process, "trio", "starts a process"),
        (programs.asyncio_process, "asyncio", "starts a process"),
        (programs.takes_signals, "trio", "handles signals"),
        (programs.asyncio_signals, "asyncio", "handles signals"),
        (programs.writes_a_file, "trio", "writes a file"),
    ],
)
def test_the_real_world_is_refused_in_one_line(program: Any, backend: str, what: str) -> None:
    with pytest.raises(ExplorationError, match=rf"{what}.*, at programs\.py:\d+$"):
        explore(program, backend=backend)
    assert sniffio.thread_local.name is None  # or nobody could call anyio.run any more


def test_random_numbers_are_seeded_and_time_is_virtual_on_request() -> None:
    before = random.getstate()
    _, drawn = ends(programs.draws, "trio", random=1)

    assert drawn == {repr(random.Random(1).random()): 1}
    assert random.getstate() == before
    assert set(ends(programs.tells_the_time, "trio", clock="virtual")[1]) == {"2.0"}
    was = vars(programs)["datetime"]
    (told,) = ends(programs.tells_the_date, "asyncio", clock="virtual")[1]
    assert told == "(True, '1970-01-01 00:00:02', '1970-01-01', '1970-01-01T02:00:02+02:00', 2.0)"
    assert vars(programs)["datetime"] is was


@pytest.mark.slow
def test_jobs_and_checkpoints(tmp_path: Path) -> None:
    options: dict[str, Any] = {"backend": "trio", "stop_on_failure": False}
    shared = explore(programs.lost_update, jobs=2, **options)
    begun = explore(programs.two_locks, checkpoint=tmp_path / "c", max_executions=2, **options)
    done = explore(programs.two_locks, checkpoint=tmp_path / "c", **options)

    assert (shared.executions, shared.exhausted) == (4, True)
    assert (begun.executions, done.executions, done.exhausted) == (2, 5, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "executions"), [("dpor", 80), pytest.param("dfs", 180, marks=pytest.mark.long)]
)
def test_no_trace_is_lost_between_parts(strategy: str, executions: int) -> None:
    """A sleep set may hold only what is known: what a step not yet taken touches is a guess."""
    with AsyncProgram(programs.leaking_pool, "trio").entered() as program:
        found = torn(program, strategy, seed=1)

    assert found.executions == executions


def test_what_closures_hold_has_the_same_name_whatever_else_is_loaded() -> None:
    def decorated(function: Any) -> Any:
        return lambda: function

    def names() -> set[Any]:
        loaded: Any = SimpleNamespace(original=functions, modules={})
        name_roots(loaded, programs.lost_update)
        return {LOG.base[id(function)] for function in functions[-2:]}

    functions = [decorated(1), decorated(2)]
    with AsyncProgram(programs.lost_update, "trio").entered():
        before = names()
        functions.insert(0, explore)
        functions.insert(0, lambda: functions)
        assert names() == before


# -- use -------------------------------------------------------------------------------------------


def test_everything_is_as_it_was_afterwards() -> None:
    code = programs.lost_update.__code__
    before = trio.lowlevel.current_clock, asyncio.Task, trio._core._run.CancelScope.__enter__

    explore(programs.lost_update, backend="trio")
    assert explore(programs.gathered, backend="asyncio").verdict == "pass"
    assert explore(programs.asyncio_failing, backend="asyncio").verdict == "fail"

    assert programs.lost_update.__code__ is code
    assert asyncio._get_running_loop() is None
    assert gc.isenabled()
    after = trio.lowlevel.current_clock, asyncio.Task, trio._core._run.CancelScope.__enter__
    assert after == before
    assert trio.run(programs.independent) == (("a", 3), ("b", 3), ("c", 3))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"backend": "curio"}, "backend: 'curio', expected one of trio"),
        ({"backend": "trio", "time": "fast"}, "time: 'fast', expected one of idle, any"),
        ({"backend": "trio", "speed": 1}, "speed"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], expected: str) -> None:
    with pytest.raises((TypeError, ValueError), match=expected):
        explore(programs.lost_update, **options)

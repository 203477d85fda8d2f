"""A search that is stopped - by Ctrl-C, by an error - knows what it knows and forgets nothing."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vkemu import explore, replay
from vkemu.exploration import NondeterminismError, replaying
from vkemu.exploration.failure.witness import Witness
from vkemu.exploration.program import Program
from vkemu.exploration.reduction.footprint import Learned
from vkemu.exploration.reduction.frontier import Frontier
from vkemu.exploration.result import Result
from vkemu.exploration.run import Run
from vkemu.exploration.search import Search
from vkemu.exploration.sharing.division import Division, Part
from vkemu.exploration.sharing.jobs import Job, Report
from vkemu.exploration.sharing.parallel import Coordinator
from vkemu.exploration.strategies.random_walk import RandomWalk
from vkemu.workers.processes import Here

from tests.exploration.divided import lost_update


def summed(k: Any) -> None:
    lost_update(k, 3)
    k.ends.clear()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_checkpoint_loses_no_part(tmp_path: Path, at: int, error: type[BaseException]) -> None:
    """What was being accounted for when the search ended was in nobody's hands."""
    calls = itertools.count(1)

    def stop(result: Result) -> None:
        if next(calls) == at:
            raise error

    options: dict[str, Any] = {"checkpoint": tmp_path / "search"}
    budget: dict[str, Any] = {"max_executions": 8}  # in slices of 4, 2, 1 and 1
    if error is KeyboardInterrupt:
        assert explore(summed, progress=stop, **budget, **options).verdict == "unknown"
    else:
        with pytest.raises(error):
            explore(summed, progress=stop, **budget, **options)
    whole = explore(summed)
    rest = explore(summed, **options)
    assert rest.exhausted
    assert rest.executions == whole.executions


def test_a_checkpoint_after_an_error_has_the_part_it_came_from(tmp_path: Path) -> None:
    builds = itertools.count()

    def program(k: Any) -> None:
        x, y = k.cell("x", 0), k.cell("y", 0)
        odd = next(builds) == 7

        async def increment() -> None:
            v = await (y if odd else x).load()
            await x.store(v + 1)

        k.spawn("a", increment)
        k.spawn("b", increment)

    program.identity = "odd the seventh time"  # type: ignore[attr-defined]
    options: dict[str, Any] = {"strategy": "dfs", "checkpoint": tmp_path / "search"}
    with pytest.raises(NondeterminismError):
        explore(program, **options)
    assert explore(program, **options).executions == 6


class Batches:
    """Workers that have several reports at once, the first ones stale."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.stale = True

    def submit(self, job: Job) -> None:
        self.numbers.append(job.number)

    def results(self) -> list[Report]:
        assert self.numbers, "asked for with nothing under way: it would be waited for for ever"
        numbers, self.numbers = self.numbers, []
        stale = Learned("a test") if self.stale else None
        self.stale = False
        return [Report(n, executions=1, left=Frontier(), stale=stale) for n in numbers]

    def close(self) -> None:
        pass


def test_reports_that_come_with_a_stale_one_are_not_waited_for() -> None:
    division = Division()
    division.parts.append(Part(Frontier()))
    result = Result("dpor", 0)
    options: dict[str, Any] = {"stop_on_failure": True, "max_executions": None}
    coordinator = Coordinator(Batches(), 2, result, max_seconds=None, progress=None, **options)
    coordinator.exhaustive(division)
    assert (coordinator.finished, result.executions) == (True, 1)
    assert coordinator.options["learned"].all_seen


class Interrupted(Batches):
    """Ctrl-C before the first block is done, when the second has a failure."""

    def __init__(self, *witnesses: Witness) -> None:
        super().__init__()
        self.witnesses = witnesses

    def results(self) -> list[Report]:
        if 2 not in self.numbers:
            raise KeyboardInterrupt
        self.numbers.remove(2)
        return [Report(2, executions=1, failures=len(self.witnesses), witnesses=self.witnesses)]


@pytest.mark.parametrize("strategy", ["random", "pct", "pos", "urw"])
def test_an_interrupted_sample_in_parts_is_no_pass(strategy: str) -> None:
    options: dict[str, Any] = {"strategy": strategy, "max_executions": 1000, "jobs": 2}
    found = explore(summed, workers=Interrupted(), **options)
    assert (found.verdict, found.exhausted) == ("unknown", False)
    assert explore(summed, strategy=strategy, jobs=1, max_seconds=0.01).verdict == "pass"


def test_a_time_that_is_up_is_a_pass_in_parts() -> None:
    options: dict[str, Any] = {"strategy": "random", "max_seconds": 1e-9, "jobs": 2}
    assert explore(summed, workers=Batches(), **options).verdict == "pass"


def two(k: Any) -> None:
    lost_update(k, 2)


def failing(program: Any) -> Witness:
    """As another process would have found it."""
    search = Search(Run(Program(program, {}), 100), RandomWalk(1), Result("random", 1))
    search.go()
    (witness,) = search.witnesses.values()
    return witness


def test_an_interrupted_sample_in_parts_keeps_the_failure_it_had() -> None:
    known = explore(two)
    assert known.failure is not None
    found = explore(
        two, strategy="random", max_executions=1000, jobs=2, workers=Interrupted(failing(two))
    )
    assert found.verdict == "fail"
    assert found.failure is not None
    assert found.failure.token == known.failure.token


@pytest.mark.parametrize("after", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("strategy", ["random", "dpor"])
def test_a_failure_is_told_although_its_shrinking_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, after: int, strategy: str
) -> None:
    """Ctrl-C in the n-th execution of what comes after the search."""
    builds: Iterator[int] | None = None

    def program(k: Any) -> None:
        lost_update(k, 4)
        if builds is not None and next(builds) == after:
            raise KeyboardInterrupt

    def shrinking(result: Result) -> None:
        nonlocal builds
        if result.failures and builds is None:
            builds = itertools.count()

    found = explore(program, strategy=strategy, seed=3, progress=shrinking)
    assert found.verdict == "fail"
    assert found.failure is not None
    assert found.failure.shrunk.endswith("(interrupted)")
    assert replay(program, found.failure.token).message == found.failure.message


@pytest.mark.parametrize("build", range(1, 6))
@pytest.mark.parametrize("strategy", ["random", "dfs", "dpor"])
def test_ctrl_c_that_a_step_keeps_is_no_nondeterminism(build: int, strategy: str) -> None:
    """In the first execution, where it is taken again, or later: who has a lock releases it first,
    and may never get to say what has ended it."""
    builds = itertools.count(1)

    def program(k: Any) -> None:
        lock, x = k.lock("l"), k.cell("x", 0)
        struck = next(builds) == build

        async def work() -> None:
            async with lock:
                await x.load()
                if struck:
                    signal.raise_signal(signal.SIGINT)
                await x.load()

        async def other() -> None:
            await x.store(1)
            await x.store(2)

        k.spawn("a", work)
        k.spawn("b", other)

    found = explore(program, strategy=strategy, seed=1, max_executions=100)
    assert (found.verdict, found.interrupted, found.exhausted) == ("unknown", True, False)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer of the process")
def test_a_budget_that_ends_while_workers_are_closed_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine that takes long, and so does starting them."""
    rings = []

    def close(self: Here) -> None:
        for _ in range(2):  # the first only looks where the search is
            signal.raise_signal(signal.SIGALRM)

    monkeypatch.setattr(Here, "close", close)
    before = signal.signal(signal.SIGALRM, lambda *_: rings.append(1))
    try:
        found = explore(summed, max_seconds=100, checkpoint=tmp_path / "search")
    finally:
        signal.signal(signal.SIGALRM, before)

    assert found.exhausted
    assert len(rings) == 2


def test_ctrl_c_that_a_program_swallows_ends_the_search() -> None:
    """What it does then is no failure of it."""

    def program(k: Any) -> None:
        async def work() -> None:
            await k.cell("x").load()
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException:
                raise ValueError from None

        k.spawn("a", work)

    found = explore(program)
    assert (found.verdict, found.interrupted) == ("unknown", True)


def test_what_was_left_out_before_an_interruption_stays_out() -> None:
    """The best so far is the one that is told."""
    said = []

    def program(k: Any) -> None:
        lost_update(k, 8)

    def stop(result: Result) -> None:
        said.append(result.stage)
        if "shrinking: 4 " in result.stage:
            raise KeyboardInterrupt

    found = explore(program, strategy="random", seed=3, progress=stop).failure
    assert found is not None
    drawn = re.match("from [0-9]+ steps and ([0-9]+) preemptions to ", found.shrunk)
    assert drawn is not None
    assert found.preemptions < int(drawn[1])
    assert f"shrinking: 4 executions, {found.preemptions} preemptions" in said[-1]


def test_a_failure_is_told_although_its_telling_was_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = explore(two).failure
    tell = replaying.tell
    calls = itertools.count()

    def interrupted(run: Run, witness: Witness) -> Any:
        if not next(calls):
            raise KeyboardInterrupt
        return tell(run, witness)

    monkeypatch.setattr(replaying, "tell", interrupted)
    found = explore(two).failure
    assert found is not None
    assert expected is not None
    assert (found.token, found.shrunk) == (expected.token, "")

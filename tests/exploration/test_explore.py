"""The public face: budgets, verdicts, seeds, strategies of one's own, interruption."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from vkemu import explore
from vkemu.executors.controlled import Execution
from vkemu.exploration import ABANDON, ExplorationError, Program
from vkemu.exploration.result import Result
from vkemu.exploration.strategies.dpor import Dpor

from tests.exploration.literature import adds, independent, lastzero, lost_update

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("options", "verdict", "exhausted"),
    [
        ({"strategy": "dpor"}, "pass", True),
        ({"strategy": "dpor", "max_executions": 28}, "unknown", False),
        ({"strategy": "dpor", "max_executions": 29}, "pass", True),
        ({"strategy": "dpor", "max_seconds": 0.0}, "unknown", False),
        ({"strategy": "random"}, "pass", False),
        ({"strategy": "random", "max_executions": 10}, "pass", False),
        ({"strategy": "pos", "max_seconds": 0.01}, "pass", False),
        ({"strategy": "bounded:0"}, "pass", False),
    ],
)
def test_verdict_of_a_program_without_failure(
    options: dict[str, Any], verdict: str, exhausted: bool
) -> None:
    found = explore(lastzero(4), **options)
    assert (found.verdict, found.exhausted) == (verdict, exhausted)
    assert found.failure is None


def test_a_program_that_does_nothing_has_one_execution() -> None:
    for strategy in ("dpor", "source-dpor", "dfs", "bounded"):
        found = explore(lambda k: None, strategy=strategy)
        assert (found.executions, found.verdict) == (1, "pass")


def test_exhaustive_strategies_agree_on_the_number_of_interleavings() -> None:
    dfs = explore(independent(2), strategy="dfs")
    bounded = explore(independent(2), strategy="bounded")
    assert (dfs.executions, bounded.executions) == (70, 70)
    assert bounded.exhausted


@pytest.mark.parametrize("strategy", ["random", "pct", "pct:5", "pos", "urw", "portfolio"])
def test_the_same_seed_gives_the_same_executions(strategy: str) -> None:
    def schedules(seed: int) -> list[list[int]]:
        found: list[list[int]] = []
        explore(
            lost_update(3),
            strategy=strategy,
            seed=seed,
            max_executions=100,
            each=lambda run: found.append(list(run.schedule)),
        )
        return found

    assert schedules(3) == schedules(3)
    assert schedules(3) != schedules(4)


def test_urw_draws_every_interleaving_about_equally_often() -> None:
    counts: dict[tuple[int, ...], int] = {}

    def each(run: Any) -> None:
        key = tuple(run.schedule)
        counts[key] = counts.get(key, 0) + 1

    def program(k: Any) -> None:
        short, long = k.cell("short"), k.cell("long")

        async def write(cell: Any, times: int) -> None:
            for _ in range(times):
                await cell.store(1)

        k.spawn("short", write, short, 1)
        k.spawn("long", write, long, 5)

    explore(program, strategy="urw", max_executions=6000, each=each)
    assert len(counts) == 6
    assert min(counts.values()) > 850  # of 1000; a random walk would draw one of them 190 times


@pytest.mark.parametrize("name", ["", "dpo", "pct:0", "pct:x", "bounded:-1", "dfs:3"])
def test_an_unknown_strategy_is_refused(name: str) -> None:
    with pytest.raises(ExplorationError, match="no strategy"):
        explore(adds(2), strategy=name)


class LastFirst:
    """A strategy with nothing but the one method."""

    def choose(self, runnable: list[int], execution: Execution) -> int:
        return runnable[-1]


def test_a_strategy_of_ones_own() -> None:
    schedules: list[list[int]] = []
    found = explore(
        adds(3),
        strategy=LastFirst(),
        max_executions=2,
        each=lambda run: schedules.append(list(run.schedule)),
    )
    assert found.strategy == "LastFirst"
    assert schedules == [[2, 1, 0], [2, 1, 0]]


class Twice(LastFirst):
    """One that ends by itself, and gives its first execution up."""

    name = "twice"
    exhaustive = True

    def __init__(self) -> None:
        self.started = 0
        self.finished: list[bool] = []

    def start(self) -> bool:
        self.started += 1
        return self.started <= 2

    def choose(self, runnable: list[int], execution: Execution) -> int:
        return ABANDON if self.started == 1 else super().choose(runnable, execution)

    def finish(self, complete: bool) -> None:
        self.finished.append(complete)


def test_all_a_strategy_may_have() -> None:
    strategy = Twice()
    found = explore(adds(3), strategy=strategy)
    assert (found.verdict, found.executions, found.blocked) == ("pass", 1, 1)
    assert found.exhausted
    assert strategy.finished == [True]


class Fixed:
    """One that always says the same."""

    def __init__(self, said: Any) -> None:
        self.said = said

    def choose(self, runnable: list[int], execution: Execution) -> int:
        return self.said  # type: ignore[no-any-return]


@pytest.mark.parametrize("said", [99, -7, None, "0", 0])
def test_a_strategy_that_chooses_what_cannot_run_is_refused(said: Any) -> None:
    """0 can, at first."""
    with pytest.raises(
        ExplorationError, match=rf"strategy Fixed: choose\(\) gave {said!r}, expected one of \["
    ):
        explore(adds(2), strategy=Fixed(said))


def test_a_strategy_that_gives_everything_up_comes_to_an_end() -> None:
    found = explore(adds(2), strategy=Fixed(ABANDON), max_executions=3)
    assert (found.executions, found.blocked, found.exhausted) == (0, 3, False)


def test_progress_is_told_and_the_share_grows_to_all() -> None:
    shares: list[float] = []

    def progress(result: Result) -> None:
        assert result.share is not None
        shares.append(result.share)

    explore(independent(3), strategy="dfs", progress=progress, max_executions=20_000)
    explore(lastzero(4), progress=progress)
    assert 0 < shares[0] < 1
    assert shares[-1] == 1.0


@pytest.mark.parametrize("strategy", ["dpor", "source-dpor", "dfs", "bounded:1"])
def test_the_share_is_known_without_being_shown(strategy: str) -> None:
    part = explore(lastzero(4), strategy=strategy, max_executions=5)
    assert part.share is not None
    assert 0 < part.share < 1
    assert explore(independent(1), strategy=strategy).share == 1.0
    assert explore(independent(1), strategy="random").share is None


def test_the_share_of_equal_subtrees_is_exact() -> None:
    """Three threads of one step each: six executions, a sixth each."""

    def program(k: Any) -> None:
        for name in "abc":
            k.spawn(name, k.cell(name).load)

    shares = [explore(program, strategy="dfs", max_executions=n).share for n in range(1, 7)]
    assert shares == pytest.approx([n / 6 for n in range(1, 7)])


@pytest.mark.parametrize("strategy", ["dpor", "dfs", "random", "pos"])
def test_an_interruption_keeps_what_is_known(strategy: str) -> None:
    executions = 0

    def program(k: Any) -> None:
        nonlocal executions
        x = k.cell("x", 0)

        async def add(last: bool) -> None:
            nonlocal executions
            await x.add(1)
            if last:
                executions += 1
                if executions == 20:
                    raise KeyboardInterrupt

        for t in range(4):
            k.spawn(f"t{t}", add, t == 3)

    counted: list[Any] = []
    found = explore(program, strategy=strategy, each=counted.append)
    # Of the 19 before, three were the 1st, the 4th and the 16th taken again.
    assert len(counted) == 16
    assert (found.verdict, found.executions, found.exhausted) == ("unknown", 16, False)


def test_what_every_step_asks_has_no_more_fields_than_the_interpreter_finds_at_once() -> None:
    found_at_once = 29  # of CPython's inline values; with one more every field is looked up
    program = Program(lambda k: None, {})
    for thing in (program.begin(), Dpor(program.numbers)):
        assert len(vars(thing)) <= found_at_once


def test_importing_explore_is_light() -> None:
    script = (
        "import sys; before = set(sys.modules); from vkemu import explore;"
        "explore(lambda k: None); print(*sorted(set(sys.modules) - before))"
    )
    paths = [str(ROOT / "protocol"), str(ROOT / "tools")]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {paths!r}; {script}"],
        check=True,
        capture_output=True,
        text=True,
    )
    heavy = {"trio", "anyio", "structlog", "msgspec", "multiprocessing", "asyncio", "dataclasses"}
    assert heavy.isdisjoint(done.stdout.split())

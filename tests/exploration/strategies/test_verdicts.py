"""The flags of a result agree with each other: the truth table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from vkemu import explore
from vkemu.exploration.strategies import NAMES

EXHAUSTIVE = ("dpor", "source-dpor", "dfs", "bounded", "portfolio")


def program(k: Any, *, spins: bool = False, fails: bool = False) -> None:
    """Two threads; one may go on for ever, one may fail, when it comes second."""
    x, y = k.cell("x", 0), k.cell("y", 0)

    async def first() -> None:
        await x.store(1)
        while spins and not await y.load():
            await x.load()

    async def second() -> None:
        assert not (await x.load() and fails)

    k.spawn("first", first)
    k.spawn("second", second)


FINE = partial(program)
SPINS = partial(program, spins=True)
FAILS = partial(program, fails=True)
BOTH = partial(program, spins=True, fails=True)
ALL: dict[str, Any] = {"stop_on_failure": False}
LIVELOCK: dict[str, Any] = {"on_step_bound": "fail"}
NO_TIME: dict[str, Any] = {"max_executions": 1}

# program, options, (verdict, exhausted) of a strategy that ends by itself, and of one that does not
TABLE: list[tuple[Any, dict[str, Any], tuple[str, bool], tuple[str, bool]]] = [
    (FINE, {}, ("pass", True), ("pass", False)),
    (FINE, ALL, ("pass", True), ("pass", False)),
    (FINE, LIVELOCK, ("pass", True), ("pass", False)),
    (FINE, NO_TIME, ("unknown", False), ("pass", False)),
    (FINE, {"max_executions": 0}, ("unknown", False), ("pass", False)),
    (FINE, {"max_steps": 1}, ("unknown", False), ("unknown", False)),
    (FINE, {"max_steps": 1, **LIVELOCK}, ("fail", False), ("fail", False)),
    (FINE, {"max_steps": 1, **ALL, **LIVELOCK}, ("fail", False), ("fail", False)),
    (FINE, {"max_steps": 0}, ("unknown", False), ("unknown", False)),
    (SPINS, {}, ("unknown", False), ("unknown", False)),
    (SPINS, ALL, ("unknown", False), ("unknown", False)),
    (SPINS, LIVELOCK, ("fail", False), ("fail", False)),
    (SPINS, {**ALL, **LIVELOCK}, ("fail", False), ("fail", False)),
    (FAILS, {}, ("fail", False), ("fail", False)),
    (FAILS, ALL, ("fail", True), ("fail", False)),
    # Long enough for dpor, which has the spinning thread make way at times.
    (BOTH, {"max_steps": 150, **ALL}, ("fail", False), ("fail", False)),
]


@pytest.mark.parametrize(("build", "options", "ending", "endless"), TABLE)
def test_verdict_and_exhausted(
    build: Any, options: dict[str, Any], ending: tuple[str, bool], endless: tuple[str, bool]
) -> None:
    options = {"max_steps": 30, "max_executions": 80, **options}
    for strategy in NAMES:
        found = explore(build, strategy=strategy, **options)
        expected = ending if strategy in EXHAUSTIVE else endless
        assert (found.verdict, found.exhausted) == expected, strategy
        assert (found.failure is not None) == (found.verdict == "fail") == bool(found.failures)
        assert not (found.exhausted and (found.cut or found.verdict == "unknown"))
        assert found.share is None or 0 <= found.share <= 1


@pytest.mark.parametrize("strategy", ["dpor", "dfs"])
def test_the_same_in_parts(strategy: str, tmp_path: Path) -> None:
    for n, (build, options, expected, _) in enumerate(TABLE):
        options = {"max_steps": 30, "max_executions": 80, **options}
        found = explore(build, strategy=strategy, checkpoint=tmp_path / str(n), **options)
        assert (found.verdict, found.exhausted) == expected, n
        assert (found.failure is not None) == (found.verdict == "fail")

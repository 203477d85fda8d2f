"""A failure that is shown was had again; one that cannot be is said to be so."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from vkemu import explore, replay
from vkemu.exploration import NondeterminismError


def at_depth(depth: int, call: Any) -> Any:
    """The call, with so many frames around it."""
    return at_depth(depth - 1, call) if depth else call()


@pytest.fixture
def shallow() -> Iterator[None]:
    """A stack that is soon full."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("strategy", ["dpor", "dfs", "random"])
@pytest.mark.parametrize(("found_at", "replayed_at"), [(0, 0), (0, 90), (90, 0)])
def test_a_recursion_that_takes_steps_replays_whoever_calls(
    strategy: str, found_at: int, replayed_at: int
) -> None:
    """How many steps it takes depends on the stack above it."""

    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def fall() -> None:
            await x.load()
            await fall()

        k.spawn("walker", fall)
        k.spawn("other", k.cell("y").load)

    failure = at_depth(found_at, lambda: explore(program, strategy=strategy)).failure
    assert failure is not None
    assert failure.message == "walker: RecursionError: maximum recursion depth exceeded"
    again = at_depth(replayed_at, lambda: replay(program, failure.token))
    assert again.message == failure.message


@pytest.mark.parametrize("strategy", ["dpor", "dfs", "random", "pos"])
def test_a_failure_that_does_not_come_again_is_no_deadlock(strategy: str) -> None:
    """It fails once, and the execution taken again has more steps than the one that failed."""
    failed: list[bool] = []

    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def fail_once() -> None:
            await x.load()
            if not failed:
                failed.append(True)
                raise ValueError("once")
            await x.load()

        k.spawn("a", fail_once)

    with pytest.raises(
        NondeterminismError,
        match=r"the end, after 1 steps, was a: ValueError: once and is no end under the same",
    ):
        explore(program, strategy=strategy)


def test_a_message_that_is_never_the_same_is_said() -> None:
    numbers = itertools.count()

    def program(k: Any) -> None:
        async def fail() -> None:
            await k.cell("x").load()
            raise ValueError(f"number {next(numbers)}")

        k.spawn("a", fail)

    with pytest.raises(NondeterminismError, match="number 0 and is a: ValueError: number 1"):
        explore(program)

"""Which failures are taken for the same: the one that is told is one of the kind that was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vkemu import explore
from vkemu.exploration.run import Run
from vkemu.oracle.violation import Violation


def asserted(k: Any, x: Any, y: Any) -> None:
    async def lost() -> None:
        assert await x.load() == 2, "a lost update"

    async def early() -> None:
        assert await y.load() == 0, "another"

    judge(k, x, lost, early)


def violated(k: Any, x: Any, y: Any) -> None:
    async def lost() -> None:
        if await x.load() != 2:
            raise violation("a lost update")

    async def early() -> None:
        if await y.load():
            raise violation("another")

    judge(k, x, lost, early)


def violation(text: str) -> Violation:
    return Violation(1, text, check=text)


def judge(k: Any, x: Any, lost: Callable[[], Any], early: Callable[[], Any]) -> None:
    done = k.cell("done", 0)

    async def last() -> None:
        await done.wait(lambda count: count == 2)
        await lost()

    async def increment() -> None:
        v = await x.load()
        await x.store(v + 1)
        await done.add(1)

    k.spawn("a", increment)
    k.spawn("b", increment)
    k.spawn("last", last)
    k.spawn("early", early)


@pytest.mark.parametrize("build", [asserted, violated])
def test_the_failure_that_is_told_is_the_one_that_was_found(build: Any) -> None:
    """A smaller schedule that breaks something else is not a smaller witness of it."""

    def program(k: Any) -> None:
        x, y = k.cell("x", 0), k.cell("y", 0)
        k.spawn("other", y.store, 1)
        build(k, x, y)

    told = set()
    for seed in range(12):
        found, message = found_and_told(program, seed)
        assert found == message
        told.add("lost" in message)
    assert told == {True, False}


def found_and_told(program: Any, seed: int) -> tuple[str, str]:
    messages: list[str] = []

    def note(run: Run) -> None:
        if run.error is not None:
            messages.append(run.message())

    found = explore(program, strategy="random", seed=seed, each=note)
    assert found.failure is not None
    return messages[0], found.failure.message


def test_all_kinds_are_told_apart() -> None:
    def program(k: Any) -> None:
        x, y = k.cell("x", 0), k.cell("y", 0)
        k.spawn("other", y.store, 1)
        asserted(k, x, y)

    found = explore(program, strategy="dfs", stop_on_failure=False, max_executions=3000)
    assert found.failure is not None
    assert found.failure.message == "early: AssertionError: another"

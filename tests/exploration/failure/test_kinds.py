"""Which failures are taken for the same: the one that is told is one of the kind that was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vkemu import explore
from vkemu.exploration.run import Run
from vkemu.litmus import decide
from vkemu.litmus.file import load_litmus
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


def kinds_of(window: str, strategy: str) -> tuple[set[str], bool]:
    """On extent_scan, of all executions; and whether nothing is left."""
    kinds: set[str] = set()

    def note(run: Run) -> None:
        kinds.update(fault.kind for fault in run.faults)

    test = decide.Test(load_litmus(window), "extent_scan")
    found = explore(test, strategy=strategy, stop_on_failure=False, each=note)
    return kinds, found.exhausted


@pytest.mark.slow
def test_the_oracle_finds_the_kinds_of_plain_search_in_fewer_executions() -> None:
    """Which thread's step it finds one in depends on the order of steps that have nothing to do
    with each other; what kind it is does not."""
    expected = {"Violation 4 dirty"}
    assert kinds_of("W12", "dfs") == (expected, True)
    assert kinds_of("W12", "dpor") == kinds_of("W12", "source-dpor") == (expected, True)


@pytest.mark.slow
def test_all_kinds_that_one_preemption_leads_to_are_found() -> None:
    """Of a test with two of them, in different threads, that plain search does not exhaust."""
    expected = {"Violation 4 dirty", "Panic"}
    assert kinds_of("W45", "bounded:1")[0] == expected
    assert kinds_of("W45", "dpor") == kinds_of("W45", "source-dpor") == (expected, True)

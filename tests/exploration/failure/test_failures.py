"""Failures: what they say, how small they are, and that they can be had again."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import pytest
from vkemu import explore, replay
from vkemu.exploration import NondeterminismError, TokenError
from vkemu.exploration.strategies import NAMES


def lost_update(delta: int = 1, steps: int = 0) -> Any:
    def program(k: Any) -> None:
        x = k.cell("x", 0)
        noise = k.cell("noise", 0)

        async def increment() -> None:
            for _ in range(steps):
                await noise.add(1)
            v = await x.load()
            await x.store(v + delta)

        k.spawn("a", increment)
        k.spawn("b", increment)
        k.at_end(lambda: x.value == 2)

    return program


def philosophers(k: Any) -> None:
    one, other = k.lock("one"), k.lock("other")

    async def eat(first: Any, second: Any) -> None:
        async with first, second:
            pass

    k.spawn("a", eat, one, other)
    k.spawn("b", eat, other, one)


@pytest.mark.parametrize("strategy", NAMES)
def test_every_strategy_finds_the_lost_update_and_shrinks_it_to_one_preemption(
    strategy: str,
) -> None:
    found = explore(lost_update(steps=2), strategy=strategy)
    failure = found.failure
    assert found.verdict == "fail"
    assert failure is not None
    assert failure.preemptions == 1
    assert failure.token == explore(lost_update(steps=2)).failure.token  # type: ignore[union-attr]


def test_a_token_gives_the_same_failure() -> None:
    failure = explore(lost_update()).failure
    assert failure is not None
    again = replay(lost_update(), failure.token)
    assert again.message == failure.message
    assert again.token == failure.token
    assert again.steps == failure.steps


def test_a_step_says_what_it_does_and_where() -> None:
    failure = explore(lost_update()).failure
    assert failure is not None
    first, second, third, last = failure.steps
    assert [step.thread for step in failure.steps] == ["a", "b", "b", "a"]
    assert (third.op, third.object, third.before, third.after) == ("store", "x", 0, 1)
    assert third.file == __file__
    assert third.line == second.line + 1
    assert first.conflicts == (2,)
    assert last.conflicts == (1, 2)


def test_a_narration_has_a_column_for_each_thread() -> None:
    text = str(explore(lost_update()).failure)
    lines = text.splitlines()
    assert lines[0].startswith("does not hold: k.at_end(lambda: x.value == 2)")
    head = lines[2]
    assert head.split() == ["a", "b"]
    store = next(line for line in lines if "store x: 0 -> 1" in line)
    assert store.startswith("*")
    assert store.index("store") == head.index("b")
    assert lines[-1].startswith("token: vkx1.")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lost_update(delta=2), "steps 1 to 2, by b, are not what they were"),
        (lost_update(steps=1), "steps 0 to 0, by a, are not what they were"),
        (philosophers, "steps 0 to 0, by a, are not what they were"),
    ],
)
def test_a_changed_program_is_recognised(changed: Any, why: str) -> None:
    failure = explore(lost_update()).failure
    assert failure is not None
    with pytest.raises(TokenError, match=why):
        replay(changed, failure.token)


def test_a_mended_program_is_recognised() -> None:
    def program(k: Any, good: int = 3) -> None:
        x = k.cell("x", 0)

        async def add() -> None:
            await x.add(1)

        k.spawn("a", add)
        k.at_end(lambda: x.value == good)

    failure = explore(program).failure
    assert failure is not None
    with pytest.raises(TokenError, match="no longer fails"):
        replay(lambda k: program(k, 1), failure.token)


@pytest.mark.parametrize(
    "token", ["", "vkx1.", "vkx0.AAAA", "vkx1.!!!", "vkx1.cM-T-lsAAdgfAQGbFzKeZyh", "vk1.abc"]
)
def test_a_damaged_token_is_refused(token: str) -> None:
    with pytest.raises(TokenError):
        replay(lost_update(), token)


def test_every_damage_to_a_token_is_seen() -> None:
    failure = explore(lost_update()).failure
    assert failure is not None
    token = failure.token
    for position, letter in itertools.product(range(5, len(token) - 1), "Az9_"):
        damaged = token[:position] + letter + token[position + 1 :]
        if damaged != token:
            with pytest.raises(TokenError):
                replay(lost_update(), damaged)


def test_a_deadlock_says_who_waits_for_what() -> None:
    found = explore(philosophers, stop_on_failure=False)
    assert found.failure is not None
    assert found.failure.message == (
        "deadlock: a waits to acquire other (held by b); b waits to acquire one (held by a)"
    )
    assert (found.executions, found.failures, found.exhausted) == (3, 1, True)
    line = line_of(philosophers, "async with")
    assert f"\n  a waits to acquire other (held by b)  {line}\n" in str(found.failure)
    assert f"\n  b waits to acquire one (held by a)  {line}\n" in str(found.failure)


def test_a_deadlock_names_all_readers_and_who_is_done() -> None:
    def program(k: Any) -> None:
        book, seat = k.rwlock("book"), k.limiter("seat", 1)

        async def read() -> None:
            await book.acquire_shared()

        async def write() -> None:
            await seat.acquire()
            await book.acquire_exclusive()

        k.spawn("p", read)
        k.spawn("q", read)
        k.spawn("writer", write)
        k.spawn("late", seat.acquire)

    found = explore(program, stop_on_failure=False)
    assert (
        "deadlock: writer waits to exclusive book (held by p, which is done, q, which is done); "
        "late waits to acquire seat (held by writer)"
    ) in found.kinds


def test_a_compare_and_set_that_failed_is_told_as_one() -> None:
    def program(k: Any) -> None:
        x, bad = k.cell("x"), k.cell("bad")

        async def increment() -> None:
            value = await x.load()
            if not await x.cmpset(value, value + 1):
                await bad.store(1)

        k.spawn("a", increment)
        k.spawn("b", increment)
        k.at_end(lambda: bad.value == 0)

    failure = explore(program).failure
    assert failure is not None
    told = [step.text for step in failure.steps]
    assert told.count("cmpset x: 0 -> 1") == 1
    assert told.count("cmpset x: failed, expected 0, found 1") == 1
    assert replay(program, failure.token).steps == failure.steps


def line_of(function: Any, text: str) -> str:
    """`test_failures.py:27`: the line of a function that has this text."""
    lines, first = inspect.getsourcelines(function)
    number = next(n for n, line in enumerate(lines, first) if text in line)
    return f"test_failures.py:{number}"


def test_an_error_of_a_thread_is_a_failure() -> None:
    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def divide() -> None:
            v = await x.load()
            assert 1 // v

        k.spawn("divider", divide)

    failure = explore(program).failure
    assert failure is not None
    assert failure.message == "divider: ZeroDivisionError: integer division or modulo by zero"
    assert isinstance(failure.error, ZeroDivisionError)


def test_unbounded_recursion_is_a_failure_of_the_thread() -> None:
    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def fall() -> None:
            await fall()

        async def walk() -> None:
            await x.load()
            await fall()

        k.spawn("walker", walk)

    failure = explore(program).failure
    assert failure is not None
    assert "RecursionError" in failure.message


@pytest.mark.parametrize("strategy", ["dfs", "dpor", "source-dpor"])
def test_nondeterminism_is_named(strategy: str) -> None:
    runs = itertools.count()

    def program(k: Any) -> None:
        x, y = k.cell("x", 0), k.cell("y", 0)
        odd = next(runs) % 2

        async def wander() -> None:
            await x.load()
            await (y if odd else x).store(1)
            await x.store(2)

        k.spawn("a", wander)
        k.spawn("b", wander)

    with pytest.raises(NondeterminismError, match=r"step \d+, by [ab], was \w+ [xy] and is"):
        explore(program, strategy=strategy)


@pytest.mark.parametrize("strategy", ["dfs", "dpor", "random", "bounded"])
def test_a_thread_that_spins_makes_the_verdict_unknown(strategy: str) -> None:
    def program(k: Any) -> None:
        flag = k.cell("flag", 0)

        async def spin() -> None:
            while not await flag.load():
                pass

        k.spawn("spinner", spin)

    found = explore(program, strategy=strategy, max_steps=50, max_executions=10)
    assert found.verdict == "unknown"
    assert found.cut
    assert found.executions == 0
    livelock = explore(
        program, strategy=strategy, max_steps=50, max_executions=10, on_step_bound="fail"
    )
    assert livelock.verdict == "fail"
    assert livelock.failure is not None
    assert livelock.failure.message == "no end within 50 steps"
    assert replay(program, livelock.failure.token).message == livelock.failure.message


@pytest.mark.parametrize("strategy", ["dfs", "dpor", "random", "pos", "bounded"])
def test_what_a_failed_thread_leaves_held_stays_held(strategy: str) -> None:
    """And a thread that fails before its first step fails the execution too."""

    def program(k: Any) -> None:
        lock = k.lock("lock")
        ended: list[str] = []

        async def stillborn() -> None:
            raise ValueError("stillborn")

        async def holder() -> None:
            await lock.acquire()
            raise ValueError("holder")

        async def parent() -> None:
            await k.cell("x").load()
            k.spawn("child", stillborn)

        async def waiter() -> None:
            await lock.acquire()
            ended.append("waiter")
            await lock.release()
            assert not ended

        k.spawn("holder", holder)
        k.spawn("parent", parent)
        k.spawn("waiter", waiter)

    errors: set[str] = set()

    def each(run: Any) -> None:
        errors.add(run.message())
        threads = run.execution.threads.values()
        # Either the waiter was first and failed too, or it waits for ever.
        waiter = next(thread for thread in threads if thread.name == "waiter")
        assert waiter.error is not None or waiter.pending is not None

    found = explore(
        program, strategy=strategy, stop_on_failure=False, max_executions=200, each=each
    )
    assert found.failures == found.executions
    assert errors >= {"holder: ValueError: holder", "child: ValueError: stillborn"}


def fails_first(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")

    async def fail() -> None:
        await x.load()
        raise ValueError("first")

    k.spawn("a", fail)
    k.spawn("b", y.add, 1)
    k.spawn("c", y.add, 1)


def violates_first(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")
    k.spawn("a", x.store, 1)
    k.spawn("b", y.add, 1)
    k.spawn("c", y.add, 1)
    k.always(lambda: x.value == 0)


@pytest.mark.parametrize("program", [fails_first, violates_first])
@pytest.mark.parametrize("strategy", NAMES)
def test_what_went_wrong_in_a_prefix_went_wrong_in_all_that_begin_with_it(
    strategy: str, program: Any
) -> None:
    messages: list[str] = []

    def each(run: Any) -> None:
        messages.append("" if run.error is None else run.message())

    found = explore(program, strategy=strategy, stop_on_failure=False, max_executions=20, each=each)
    assert found.failures == found.executions == len(messages) > 1
    assert len(set(messages)) == 1


def test_a_quoted_line_ends_before_its_comment() -> None:
    def at_end(k: Any) -> None:
        x = k.cell("x")
        k.spawn("a", x.load)
        k.at_end(lambda: x.value == "# no comment")  # a comment: "quoted"

    def always(k: Any) -> None:
        x = k.cell("x")
        k.spawn("a", x.load)
        k.always(
            lambda: x.value  # zero
        )

    messages = [
        explore(program).failure.message.rpartition(" (")[0]  # type: ignore[union-attr]
        for program in (at_end, always)
    ]
    assert messages == [
        'does not hold: k.at_end(lambda: x.value == "# no comment")',
        "does not hold: lambda: x.value",
    ]


class Ambiguous:
    """As an array with several elements."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


@pytest.mark.parametrize("when", ["at_end", "always"])
def test_a_predicate_whose_value_has_no_truth_is_a_failure(when: str) -> None:
    def program(k: Any) -> None:
        k.spawn("a", k.cell("x").load)
        getattr(k, when)(Ambiguous)

    found = explore(program)
    assert found.failure is not None
    assert found.failure.message.startswith(
        "ValueError: the truth value of an array is ambiguous (test_failures.py:"
    )

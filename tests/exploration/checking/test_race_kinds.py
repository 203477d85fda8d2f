"""The checking mode on every kind of access: found when nothing orders it, and only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.exploration.checking import touches
from tests.exploration.checking.touches import KINDS, Box, Touch, race_of

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@kinds
@pytest.mark.parametrize("strategy", ["dpor", "dfs", "random"])
def test_what_nothing_orders_is_a_race(kind: Callable[[], Touch], strategy: str) -> None:
    def program(k: Any) -> None:
        touch = kind()
        x = k.cell("x")

        async def body() -> None:
            await x.load()
            touch()

        k.spawn("a", body)
        k.spawn("b", body)

    race = race_of(program, strategy=strategy)
    assert race is not None
    assert {race.first.thread, race.second.thread} == {"a", "b"}
    assert race.first.write or race.second.write
    assert race.first.file == race.second.file == touches.__file__
    first = Box.__init__ if "method" in kind.__name__ or "property" in kind.__name__ else kind
    assert 0 < race.first.line - first.__code__.co_firstlineno < 15


@kinds
def test_touched_under_one_lock_it_is_none(kind: Callable[[], Touch]) -> None:
    def program(k: Any) -> None:
        touch = kind()
        lock = k.lock("lock")

        async def body() -> None:
            async with lock:
                touch()

        k.spawn("a", body)
        k.spawn("b", body)

    assert race_of(program) is None


@kinds
def test_touched_by_one_without_the_lock_it_is(kind: Callable[[], Touch]) -> None:
    def program(k: Any) -> None:
        touch = kind()
        lock = k.lock("lock")

        async def careful() -> None:
            async with lock:
                touch()

        async def careless() -> None:
            await lock.acquire()
            await lock.release()
            touch()

        k.spawn("a", careful)
        k.spawn("b", careless)

    race = race_of(program)
    assert race is not None


@kinds
def test_two_locks_are_as_good_as_none(kind: Callable[[], Touch]) -> None:
    def program(k: Any) -> None:
        touch = kind()

        async def body(lock: Any) -> None:
            async with lock:
                touch()

        k.spawn("a", body, k.lock("one"))
        k.spawn("b", body, k.lock("other"))

    assert race_of(program) is not None


@kinds
@pytest.mark.parametrize("way", ["queue", "event", "cell", "semaphore", "condition", "join"])
def test_handed_over_it_is_none(kind: Callable[[], Touch], way: str) -> None:
    def program(k: Any) -> None:
        touch = kind()
        queue, event, cell = k.queue("queue"), k.event("event"), k.cell("cell")
        semaphore, condition = k.semaphore("semaphore", 0), k.condition("condition")
        ready = k.cell("ready", False)
        k.joinable = True

        async def first() -> None:
            await cell.load()
            touch()
            await queue.put(1)
            await event.set()
            await cell.store(1)
            await semaphore.release()
            async with condition:
                await ready.store(True)
                await condition.notify()

        async def second(thread: Any) -> None:
            if way == "condition":
                async with condition:
                    while not await ready.load():
                        await condition.wait()
            else:
                await {
                    "queue": queue.get,
                    "event": event.wait,
                    "cell": lambda: cell.wait(bool),
                    "semaphore": semaphore.acquire,
                    "join": lambda: k.join(thread),
                }[way]()
            touch()

        k.spawn("b", second, k.spawn("a", first))

    assert race_of(program, strategy="random", max_executions=20) is None

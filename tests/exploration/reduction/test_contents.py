"""What a shared object holds, and threads change where it is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from vkemu import explore


def appends(k: Any) -> None:
    x = k.cell("x", [])

    async def add(item: int) -> None:
        (await x.load()).append(item)

    k.spawn("a", add, 1)
    k.spawn("b", add, 2)
    k.at_end(lambda: x.value == [1, 2])


def appends_later(k: Any) -> None:
    x = k.cell("x", [])

    async def add(item: int) -> None:
        held = await x.load()
        await k.cell(f"y{item}").store(1)
        held.append(item)

    k.spawn("a", add, 1)
    k.spawn("b", add, 2)
    k.at_end(lambda: x.value == [1, 2])


def counts(k: Any) -> None:
    x = k.cell("x", count())
    k.cell("y")

    async def draw(wanted: int) -> None:
        assert next(await x.load()) == wanted

    k.spawn("a", draw, 0)
    k.spawn("b", draw, 1)


def is_given_away_and_kept(k: Any) -> None:
    q, y, z = k.queue("q"), k.cell("y"), k.cell("z")
    given: list[int] = []

    async def giver() -> None:
        await q.put(given)
        await y.store(1)
        given.append(1)

    async def taker() -> None:
        taken = await q.get()
        await z.store(1)
        taken.append(2)

    k.spawn("giver", giver)
    k.spawn("taker", taker)
    k.at_end(lambda: given == [1, 2])


@pytest.mark.parametrize("strategy", ["dpor", "source-dpor"])
@pytest.mark.parametrize("program", [appends, appends_later, counts, is_given_away_and_kept])
def test_what_is_changed_in_place_counts(program: Callable[[Any], None], strategy: str) -> None:
    plain = explore(program, strategy="dfs", stop_on_failure=False)
    found = explore(program, strategy=strategy, stop_on_failure=False)

    assert (found.verdict, found.kinds) == (plain.verdict, plain.kinds)
    assert (plain.verdict, plain.exhausted) == ("fail", True)


def test_what_a_lock_keeps_or_one_thread_got_costs_nothing() -> None:
    def locked(k: Any) -> None:
        x, lock = k.cell("x", {}), k.lock("l")

        async def add(item: int) -> None:
            await k.cell(f"y{item}").store(1)
            async with lock:
                (await x.load())[item] = True

        for item in range(3):
            k.spawn(f"t{item}", add, item)

    def handed(k: Any) -> None:
        q, done = k.queue("q"), [k.cell("y"), k.cell("z")]

        async def giver() -> None:
            for item in range(3):
                await q.put([item])

        async def taker(own: Any) -> None:
            taken = await q.get()
            await own.store(1)
            taken.append(1)

        k.spawn("giver", giver)
        for own in done:
            k.spawn(f"taker {own.key}", taker, own)

    for program, executions in ((locked, 6), (handed, 10)):
        found = explore(program)
        assert (found.verdict, found.executions, found.remarks) == ("pass", executions, [])

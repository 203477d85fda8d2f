"""What a shared object holds, and threads change where it is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from vkemu import explore
from vkprotocol.effects import Cell


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


def loaded_and_taken_away(k: Any) -> None:
    """Who has loaded what a cell held has it still, when another has put something in its place."""
    x, y, z = k.cell("x", [0]), k.cell("y"), k.cell("z")

    async def load() -> None:
        held = await x.load()
        await z.load()
        assert held != [1]

    async def take() -> None:
        held = await x.swap(None)
        await y.load()
        held[0] = 1

    k.spawn("a", load)
    k.spawn("b", take)


def held_by_another_later(k: Any) -> None:
    held: list[int] = []
    x, q = k.cell("x", held), k.queue("q")

    async def add() -> None:
        (await x.load()).append(1)

    async def hand_on() -> None:
        await q.put(held)
        assert await q.get()

    k.spawn("a", add)
    k.spawn("b", hand_on)


async def made_by_the_first_thread(k: Any) -> None:
    x = k.cell("x", [])

    async def add() -> None:
        (await x.load()).append(1)

    async def look() -> None:
        assert await x.load()

    for thread in [k.spawn("a", add), k.spawn("b", look)]:
        await k.join(thread)


def made_and_kept(k: Any) -> None:
    """Who has made it changes it by a step on something else, before anybody has touched it."""
    q, z = k.queue("q"), k.cell("z")

    async def maker() -> None:
        mine: list[int] = []
        await q.put(k.cell("made", mine))
        await z.load()
        mine.append(1)

    async def taker() -> None:
        assert await (await q.get()).load()

    k.spawn("maker", maker)
    k.spawn("taker", taker)


def made_without_k(k: Any) -> None:
    x = Cell("x", [])

    async def add() -> None:
        (await x.load()).append(1)

    async def look() -> None:
        assert await x.load()

    k.spawn("a", add)
    k.spawn("b", look)


class Account:
    balance: Any = 1  # of the class, which no method names


class Slotted:
    __slots__ = ("balance",)


class Overdrawn(Account):
    balance = -1


def sets(k: Any, held: Any, change: Callable[[Any], object], found: Any) -> None:
    x = k.cell("x", held)

    async def act() -> None:
        change(await x.load())

    async def look() -> None:
        assert getattr(await x.load(), "balance", None) != found

    k.spawn("a", act)
    k.spawn("b", look)


def a_field(k: Any) -> None:
    sets(k, Account(), lambda held: setattr(held, "balance", 2), 1)


def a_field_of_no_dictionary(k: Any) -> None:
    sets(k, Slotted(), lambda held: setattr(held, "balance", 2), None)


def a_field_that_goes(k: Any) -> None:
    held = Account()
    held.balance = 2
    sets(k, held, lambda held: delattr(held, "balance"), 2)


def a_field_of_another_dictionary(k: Any) -> None:
    sets(k, Account(), lambda held: setattr(held, "__dict__", {"balance": 2}), 1)


def a_field_of_a_class(k: Any) -> None:
    sets(k, type("Fresh", (Account,), {})(), lambda held: setattr(type(held), "balance", 2), 1)


def a_class(k: Any) -> None:
    sets(k, Account(), lambda held: setattr(held, "__class__", Overdrawn), 1)


PROGRAMS = [
    appends, appends_later, counts, is_given_away_and_kept, loaded_and_taken_away,
    held_by_another_later, made_by_the_first_thread, made_and_kept, made_without_k,
    a_field, a_field_of_no_dictionary, a_field_that_goes, a_field_of_another_dictionary,
    a_field_of_a_class, a_class,
]  # fmt: skip


@pytest.mark.parametrize("strategy", ["dpor", "source-dpor"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_changed_in_place_counts(program: Callable[[Any], Any], strategy: str) -> None:
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

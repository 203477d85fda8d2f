"""Programs whose guards read more than their object, and others that only look like it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

flag = 0


class Kept:
    flag = 0


def set_before_or_after(k: Any, put: Callable[[], object], reads: Callable[[], Any]) -> None:
    """Whoever waits has no step in common with who sets it: either may be first."""
    c, other, d = k.cell("c"), k.cell("other"), k.cell("d")

    async def work() -> None:
        await c.store(1)
        put()

    async def wait() -> None:
        await other.load()
        await d.wait(lambda value: value or reads())

    k.spawn("w", wait)
    k.spawn("s", work)


def variable(k: Any) -> None:
    ready = False

    def put() -> None:
        nonlocal ready
        ready = True

    set_before_or_after(k, put, lambda: ready)


def attribute(k: Any) -> None:
    Kept.flag = 0
    set_before_or_after(k, partial(setattr, Kept, "flag", 1), lambda: Kept.flag)


def of_the_module(k: Any) -> None:
    global flag
    flag = 0

    def put() -> None:
        global flag
        flag = 1

    set_before_or_after(k, put, lambda: flag)


def container(k: Any) -> None:
    log: list[int] = []
    set_before_or_after(k, lambda: log.append(1), lambda: log)


async def of_the_main_thread(k: Any) -> None:
    c, other, d = k.cell("c"), k.cell("other"), k.cell("d")
    ready = False

    async def wait() -> None:
        await other.load()
        await d.wait(lambda value: value or ready)

    k.spawn("w", wait)
    await c.store(1)
    ready = True


class Least:
    def __init__(self, least: int) -> None:
        self.least = least

    def reached(self, value: int) -> bool:
        return value >= self.least


def numbers(k: Any) -> None:
    """Arguments, a variable of the waiting thread's own, and fields that are set once."""
    x = k.cell("x")
    unused = k.cell("unused")

    async def count() -> None:
        for least in range(1, 3):
            await x.wait(lambda value: value >= least)  # noqa: B023

    def at_least(least: int) -> Callable[[int], bool]:
        return lambda value: value >= least

    k.spawn("a", count)
    k.spawn("b", x.wait, at_least(1))
    k.spawn("c", x.wait, Least(2).reached)
    k.spawn("d", x.wait, partial(max, 0))
    k.spawn("o", unused.load)
    k.spawn("s", x.add, 2)


def of_another_kind(k: Any) -> None:
    """One guard's code, first over a number, then over a list."""
    x, c, other, d = k.cell("x"), k.cell("c"), k.cell("other"), k.cell("d")
    log: list[int] = []

    async def wait(cell: Any, thing: Any) -> None:
        await other.load()
        await cell.wait(lambda value: value or thing)

    async def work() -> None:
        await c.store(1)
        log.append(1)

    k.spawn("s", work)
    k.spawn("a", wait, x, 1)
    k.spawn("w", wait, d, log)


def handed_over(k: Any, first: bool = True) -> None:
    """A guard over a variable of who waits with it, and then of who does not."""
    c, other, d = k.cell("c"), k.cell("other"), k.cell("d")

    async def wait(guard: Any) -> None:
        await other.load()
        await d.wait(guard)

    async def work() -> None:
        ready = 1

        def guard(value: int) -> int:
            return value or ready

        if first:
            await d.wait(guard)
        ready = 0
        k.spawn("w", wait, guard)
        await c.store(1)
        ready = 1
        await c.store(2)

    k.spawn("s", work)


def of_another_call(k: Any) -> None:
    """Who waits is in the same function, and has a variable of that name too."""
    c, other, d = k.cell("c"), k.cell("other"), k.cell("d")
    guards: list[Any] = []

    async def work(first: int) -> None:
        ready = first
        guards.append(lambda value: value or ready)
        if first:
            await d.wait(guards[0])
            ready = 0
            await c.store(1)
            ready = 1
            await c.store(2)
        else:
            await other.load()
            await d.wait(guards[0])

    k.spawn("s", work, 1)
    k.spawn("w", work, 0)


class Named:
    """Its methods are found by names that are put together."""

    def __init__(self, k: Any) -> None:
        self.ready = 0
        self.c, self.other, self.d = k.cell("c"), k.cell("other"), k.cell("d")

    async def do_work(self) -> None:
        await self.c.store(1)
        self.ready = 1

    async def do_wait(self) -> None:
        await self.other.load()
        await self.d.wait(lambda value: value or self.ready)

    async def run(self, name: str) -> None:
        await getattr(self, "do_" + name)()


def by_name(k: Any) -> None:
    named = Named(k)
    k.spawn("s", named.run, "work")
    k.spawn("w", named.run, "wait")


def filled(k: Any) -> None:
    """What the cell holds is changed by who has got hold of it."""
    x, c, other = k.cell("x", []), k.cell("c"), k.cell("other")

    async def work() -> None:
        held = await x.load()
        await c.store(1)
        held.append(1)

    async def wait() -> None:
        await other.load()
        await x.wait(lambda held: len(held) == 1)

    k.spawn("s", work)
    k.spawn("w", wait)


class Made:
    def __init__(self, ready: int, other: Any = None) -> None:
        self.ready = ready
        if other is not None:
            other.ready = ready


def made_anew(k: Any) -> None:
    """Its fields are given to it a second time."""
    made = Made(0)
    set_before_or_after(k, lambda: made.__init__(1), lambda: made.ready)  # type: ignore[misc]


def given_by_another(k: Any) -> None:
    """Who makes one thing changes another."""
    made = Made(0)
    set_before_or_after(k, lambda: Made(1, made), lambda: made.ready)


def opened(k: Any, put: Any, wait: Any, say: Any, *, sleeps: bool = False) -> None:
    """Who waits could go on after `put`, and is asked when somebody has said so."""
    y, z = k.cell("y"), k.cell("z")

    async def work() -> None:
        await (k.sleep(1) if sleeps else y.load())
        put()
        await y.load()
        await say()

    async def waiter() -> None:
        await wait()
        await y.swap(1)

    async def other() -> None:
        await (k.sleep(1) if sleeps else z.load())
        await z.load()

    k.spawn("a", work)
    k.spawn("b", waiter)
    k.spawn("c", other)


def opened_list(k: Any, *, sleeps: bool = False) -> None:
    held: list[int] = []
    x = k.cell("x", held)
    wait = partial(x.wait, lambda held: len(held) == 1)
    opened(k, partial(held.append, 1), wait, partial(x.store, held), sleeps=sleeps)


def opened_variable(k: Any) -> None:
    x, ready = k.cell("x"), [0]
    put = partial(ready.__setitem__, 0, 1)
    opened(k, put, partial(x.wait, lambda _: ready[0]), partial(x.store, 0))


def opened_event(k: Any) -> None:
    event = k.event("e")

    def put() -> None:
        event.state = True

    opened(k, put, event.wait, event.set)

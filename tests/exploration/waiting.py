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

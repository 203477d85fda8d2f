"""Programs that set shared objects without an effect, or in a step that has not declared it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def set_in_a_step(k: Any, put: Callable[[Any, Any], object], expected: int = 1) -> None:
    """x is set in a step that loads y, while another thread loads x."""
    x, y = k.cell("x"), k.cell("y")

    async def work() -> None:
        await y.load()
        put(x, y)

    async def look() -> None:
        assert await x.load() == expected

    k.spawn("a", work)
    k.spawn("b", look)


def assigned(k: Any) -> None:
    def put(x: Any, y: Any) -> None:
        x.state = 1

    set_in_a_step(k, put)


def added_to(k: Any) -> None:
    def put(x: Any, y: Any) -> None:
        x.state += 1

    set_in_a_step(k, put)


def by_setattr(k: Any) -> None:
    set_in_a_step(k, lambda x, y: setattr(x, "state", 1))


def set_to_what_it_is(k: Any) -> None:
    """Seen to change nothing, in the first order."""
    x, y = k.cell("x"), k.cell("y")

    async def reset() -> None:
        await y.load()
        x.state = 0

    k.spawn("a", reset)
    k.spawn("b", x.store, 1)
    k.at_end(lambda: x.value == 1)


def undeclared(k: Any) -> None:
    x, y, z = k.cell("x"), k.cell("y"), k.cell("z")

    async def work() -> None:
        await k.step(x, reads=[z])
        y.state = z.state + 1

    async def look() -> None:
        assert await y.load() == 1

    k.spawn("a", work)
    k.spawn("b", look)


def element_of_a_list(k: Any) -> None:
    cells, y = [k.cell(("a", n)) for n in range(2)], k.cell("y")

    async def work() -> None:
        cells[await y.load() + 1].state = 1

    async def look() -> None:
        assert await cells[1].load() == 1

    k.spawn("a", work)
    k.spawn("b", look)


def of_a_queue(k: Any) -> None:
    queue, y = k.queue("q"), k.cell("y")

    async def work() -> None:
        await k.step(y)
        queue.state = (*queue.state, 1)

    async def take() -> None:
        assert await queue.try_get()

    k.spawn("a", work)
    k.spawn("b", take)


def of_a_lock(k: Any) -> None:
    """What others wait for."""
    lock, y, z = k.lock("l"), k.cell("y"), k.cell("z")

    async def take() -> None:
        async with lock:
            await z.load()

    async def work() -> None:
        await y.load()
        lock.state = None

    k.spawn("a", take)
    k.spawn("b", work)


def of_an_event_that_is_waited_for(k: Any) -> None:
    """Who waits by then is not asked again; who comes later goes on."""
    event, y, z = k.event("e"), k.cell("y"), k.cell("z")

    async def wait() -> None:
        await z.load()
        await event.wait()
        raise ValueError

    async def work() -> None:
        await y.load()
        event.state = True

    k.spawn("b", wait)
    k.spawn("a", work)


def before_the_first_await(k: Any) -> None:
    """Of a thread that is started by a step of another."""
    x, y = k.cell("x"), k.cell("y")

    async def child() -> None:
        x.state = 1
        await y.load()

    async def parent() -> None:
        await y.load()
        k.spawn("child", child)

    async def look() -> None:
        assert await x.load() == 1

    k.spawn("a", parent)
    k.spawn("b", look)


def cleaning_up(k: Any) -> None:
    """In the step that a thread is cancelled in."""
    x, y = k.cell("x"), k.cell("y")

    async def work() -> None:
        try:
            await y.load()
            await y.load()
        finally:
            x.state = 1

    async def look() -> None:
        assert await x.load() == 0

    thread = k.spawn("a", work)
    k.spawn("b", k.cancel, thread)
    k.spawn("c", look)


def looked_at_and_set(k: Any) -> None:
    """By two threads, neither of which says so."""
    x = k.cell("x")

    async def work(name: str) -> None:
        await k.cell(name).load()
        before = x.state
        await k.cell(name).load()
        x.state = before + 1

    k.spawn("a", work, "y")
    k.spawn("b", work, "z")
    k.at_end(lambda: x.value == 2)


def what_must_always_hold(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")

    async def work() -> None:
        await k.cell("z").load()
        x.state = 1
        await k.cell("z").load()
        x.state = 0

    k.spawn("a", work)
    k.spawn("b", y.store, 1)
    k.always(lambda: not (x.value and y.value))


def in_order(k: Any) -> None:
    """Under a lock: what it is set to is known from the order of the effects."""
    lock, x = k.lock("l"), k.cell("x")

    async def work() -> None:
        async with lock:
            x.state += 1

    k.spawn("a", work)
    k.spawn("b", work)
    k.at_end(lambda: x.value == 2)


def by_a_guard(k: Any) -> None:
    x = k.cell("x")

    def guard(value: Any) -> bool:
        x.state = 1
        return True

    k.spawn("a", x.wait, guard)


def by_a_predicate(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")

    def always() -> None:
        x.state = y.value

    k.spawn("a", y.store, 1)
    k.always(always)


def swapped_away(k: Any) -> None:
    """A list that one thread has out of a cell, and another had a look at before."""
    x, y, z = k.cell("x", [0]), k.cell("y"), k.cell("z")

    async def look() -> None:
        held = await x.load()
        await z.load()
        assert not (held and held[0])

    async def take() -> None:
        held = await x.swap(None)
        await y.load()
        held[0] = 1

    k.spawn("a", look)
    k.spawn("b", take)


def select_that_looks_elsewhere(k: Any) -> None:
    """In the guard of a branch."""
    x, y, queue = k.cell("x"), k.cell("y"), k.queue("q")
    k.spawn("a", lambda: k.select(x.wait(lambda _: y.value), queue.get()))
    k.spawn("b", y.store, 1)

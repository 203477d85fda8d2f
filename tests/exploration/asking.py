"""Programs whose threads look at what is no state of a shared object, or by what tells nobody; and
use what is not for threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vkprotocol.effects import Cell, Shared

SHARED: Any = Shared


def looks_while_it_is_taken(k: Any, looks: Callable[[Any], object]) -> None:
    lock, y = k.lock("l"), k.cell("y")

    async def look() -> None:
        await y.load()
        assert looks(lock)

    async def take() -> None:
        async with lock:
            pass

    k.spawn("a", look)
    k.spawn("b", take)


def looks_by_a_pattern(k: Any) -> None:
    def looks(lock: Any) -> bool:
        match lock:
            case object(state=None):
                return True
        return False

    looks_while_it_is_taken(k, looks)


def looks_by_a_format(k: Any) -> None:
    looks_while_it_is_taken(k, lambda lock: "{.state}".format(lock) == "None")  # noqa: UP032


def looks_by_a_slot(k: Any) -> None:
    looks_while_it_is_taken(k, lambda lock: SHARED.state.__get__(lock) is None)


def made_anew(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")

    async def work() -> None:
        await y.load()
        Cell.__init__(x, "x", 1)

    async def look() -> None:
        assert await x.load() == 0

    k.spawn("a", work)
    k.spawn("b", look)


def asks_of_another(k: Any, work: Callable[[], Any], asks: Callable[[Any], object]) -> None:
    y = k.cell("y")
    thread = k.spawn("a", work)

    async def ask() -> None:
        await y.load()
        assert asks(thread)

    k.spawn("b", ask)


def asks_by_a_pattern(k: Any) -> None:
    def asks(thread: Any) -> bool:
        match thread:
            case object(done=True):
                return False
        return True

    asks_of_another(k, k.cell("z").load, asks)


def asks_whether_it_failed(k: Any) -> None:
    async def work() -> None:
        await k.cell("z").load()
        raise KeyError

    asks_of_another(k, work, lambda thread: thread.error is None)


def asks_whether_time_is_out(k: Any) -> None:
    event, scope = k.event("e"), k.timeout(1)

    async def work() -> None:
        try:
            async with scope:
                await event.wait()
        except TimeoutError:
            pass

    async def ask() -> None:
        await k.sleep(1)
        assert scope.expired

    k.spawn("a", work)
    k.spawn("b", ask)


def asks_a_nursery(k: Any, asks: Callable[[Any], object]) -> None:
    nursery, z = k.nursery("n"), k.cell("z")

    async def child() -> None:
        await z.load()
        raise KeyError

    async def work() -> None:
        try:
            async with nursery:
                await nursery.start("c", child)
        except KeyError:
            pass

    asks_of_another(k, work, lambda thread: asks(nursery))


def asks_for_children(k: Any) -> None:
    asks_a_nursery(k, lambda nursery: nursery.children)


def asks_for_errors(k: Any) -> None:
    asks_a_nursery(k, lambda nursery: not nursery.errors)


def two_enter(k: Any, scope: Any) -> None:
    """One block of what is for one."""

    async def work(name: str) -> None:
        await k.cell(name).load()
        async with scope:
            await k.cell(name).load()

    k.spawn("a", work, "y")
    k.spawn("b", work, "z")


def two_enter_a_timeout(k: Any) -> None:
    two_enter(k, k.timeout(1))


def two_enter_a_nursery(k: Any) -> None:
    two_enter(k, k.nursery("n"))


def started_from_outside(k: Any) -> None:
    """Before somebody is in the block, or after."""
    nursery, y = k.nursery("n"), k.cell("y")

    async def work() -> None:
        await k.cell("z").load()
        async with nursery:
            pass

    async def start() -> None:
        await y.load()
        await nursery.start("c", y.load)

    k.spawn("a", work)
    k.spawn("b", start)


def refused(k: Any, use: Callable[[Any, Any], object]) -> None:
    """What is the executor's, or for set-up."""
    queue, y = k.queue("q", 1), k.cell("y")

    async def work() -> None:
        await y.load()
        use(queue, thread)

    thread = k.spawn("a", queue.put, 1)
    k.spawn("b", work)


def asks_for_what_is_pending(k: Any) -> None:
    refused(k, lambda queue, thread: thread.pending)


def makes_it_anew(k: Any) -> None:
    refused(k, lambda queue, thread: queue.__init__("q", 2))


def asks_who_waits(k: Any) -> None:
    refused(k, lambda queue, thread: queue.waiters)


def limits_in_a_thread(k: Any) -> None:
    refused(k, lambda queue, thread: queue.limit(2))


def keys_like_our_own(k: Any) -> None:
    """Of what stands for what predicates see, and for what is looked at; of a thread's sleep."""
    x, y, busy = k.cell(("view of always",), 1), k.cell(("looked at", "y")), False
    other = k.cell(("timer", 0, 1))

    async def work() -> None:
        nonlocal busy
        await x.load()
        busy = True
        await x.load()
        busy = False
        await k.sleep(1)

    async def look() -> None:
        await other.store(1)
        await y.store(1)
        assert await other.load()

    k.spawn("a", work)
    k.spawn("b", look)
    k.always(lambda: not (busy and y.value == 1))

"""Programs at the corners: what a user may write on a bad day."""

from __future__ import annotations

from typing import Any

from vkprotocol.effects import pause


class Unspeakable:
    """Its repr fails, and it equals nothing, loudly."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no ==")

    __hash__ = None  # type: ignore[assignment]


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no str")


class Foreign:
    """What an event loop would understand."""

    def __init__(self, said: Any) -> None:
        self.said = said

    def __await__(self) -> Any:
        yield self.said


def nobody(k: Any) -> None:
    pass


def nothing_to_do(k: Any) -> None:
    async def nothing() -> None:
        pass

    for name in "abc":
        k.spawn(name, nothing)


def stillborn(k: Any) -> None:
    async def fail() -> None:
        raise ValueError("now")

    k.spawn("a", fail)
    k.spawn("b", k.cell("x").load)


def foreign(k: Any, said: Any = 5) -> None:
    x = k.cell("x")

    async def wander() -> None:
        await x.load()
        await Foreign(said)

    k.spawn("a", wander)
    k.spawn("b", x.store, 1)
    k.spawn("c", x.store, 2)


def foreign_none(k: Any) -> None:
    foreign(k, None)


def released_by_another(k: Any) -> None:
    lock = k.lock("l")
    k.spawn("a", lock.acquire)
    k.spawn("b", lock.release)


def less_than_none(k: Any) -> None:
    semaphore = k.semaphore("s", 0)
    k.spawn("up", semaphore.release)
    k.spawn("down", semaphore.acquire)
    k.spawn("deeper", semaphore.acquire)


def notify_without_lock(k: Any) -> None:
    k.spawn("a", k.condition("c").notify)


def lost_wakeup(k: Any) -> None:
    lock = k.lock("l")
    ready = k.condition("c", lock)
    x = k.cell("x")

    async def wait() -> None:
        async with lock:
            if not await x.load():
                await ready.wait()

    async def notify() -> None:
        await x.store(1)
        async with lock:
            await ready.notify()

    k.spawn("w", wait)
    k.spawn("v", wait)
    k.spawn("n", notify)


def one_event_for_two(k: Any) -> None:
    event = k.event("e")

    async def take() -> None:
        await event.wait()
        await event.clear()

    k.spawn("a", take)
    k.spawn("b", take)
    k.spawn("s", event.set)


def short_queue(k: Any) -> None:
    queue = k.queue("q", 1)

    async def put(item: int) -> None:
        await queue.put(item)
        await queue.put(item + 1)

    async def get() -> None:
        await queue.get()
        await queue.get()

    k.spawn("p", put, 1)
    k.spawn("c", get)
    k.spawn("d", get)
    k.spawn("q", put, 5)


def spawning_spawners(k: Any) -> None:
    x = k.cell("x")

    async def child() -> None:
        k.spawn("grandchild", x.add, 1)
        await x.load()
        k.spawn("grandchild", x.add, 1)

    async def parent() -> None:
        k.spawn("child", child)
        await x.load()

    k.spawn("parent", parent)
    k.spawn("other", x.store, 9)


def upgraded(k: Any) -> None:
    lock = k.rwlock("r")
    x = k.cell("x")

    async def read() -> None:
        await lock.acquire_shared()
        await x.load()
        await lock.release()

    async def upgrade() -> None:
        await lock.acquire_shared()
        if await lock.try_upgrade():
            await x.store(1)
            await lock.release()

    async def write() -> None:
        await lock.acquire_exclusive()
        await x.store(2)
        await lock.downgrade()
        await lock.release()

    k.spawn("read", read)
    k.spawn("upgrade", upgrade)
    k.spawn("write", write)


def two_of_three_wait(k: Any) -> None:
    one, other = k.lock("a"), k.lock("b")

    async def take(first: Any, second: Any) -> None:
        async with first, second:
            pass

    k.spawn("1", take, one, other)
    k.spawn("2", take, other, one)
    k.spawn("3", k.cell("x").add, 1)


def not_recursive(k: Any) -> None:
    lock = k.lock("a")

    async def twice() -> None:
        async with lock, lock:
            pass

    k.spawn("a", twice)


def holding(k: Any, value: Any) -> None:
    """A cell holds it, and everything fails."""
    x = k.cell("x", value)

    async def put() -> None:
        await x.store((await x.load(), []))

    k.spawn("a", put)
    k.spawn("b", put)
    k.at_end(lambda: False)


def unhashable(k: Any) -> None:
    holding(k, [{}])


def too_long(k: Any) -> None:
    holding(k, 10**6000)


def too_deep(k: Any) -> None:
    value: Any = ()
    for _ in range(1500):
        value = (value,)
    holding(k, value)


def unspeakable(k: Any) -> None:
    holding(k, Unspeakable())


def waits_for_the_unspeakable(k: Any) -> None:
    k.spawn("a", k.cell("x", Unspeakable()).wait, lambda value: False)


def mute(k: Any) -> None:
    async def fail() -> None:
        await k.cell("x").load()
        raise Mute

    k.spawn("a", fail)


def many_lines(k: Any) -> None:
    async def fail() -> None:
        await k.cell("x").load()
        raise ValueError("\n\nsecond\nthird")

    k.spawn("a", fail)


def daemons(k: Any) -> None:
    x = k.cell("x")

    async def serve() -> None:
        while True:
            await x.wait(bool)
            await x.store(0)

    k.spawn("d", serve, daemon=True)
    k.spawn("a", x.store, 1)
    k.spawn("b", x.store, 1)


def failing_daemon(k: Any) -> None:
    async def serve() -> None:
        await k.cell("x").load()
        raise KeyError("d")

    k.spawn("d", serve, daemon=True)


def timers(k: Any) -> None:
    x = k.cell("x")

    async def nap(long: int) -> None:
        await pause(long)
        await x.store(long)

    for name, long in (("a", 1), ("b", 1), ("c", 2)):
        k.spawn(name, nap, long)


def failing_guard(k: Any) -> None:
    x = k.cell("x")
    k.spawn("a", x.wait, lambda value: 1 / value)
    k.spawn("b", x.store, 1)


def catches_everything(k: Any) -> None:
    x = k.cell("x")

    async def wander() -> None:
        try:
            await x.load()
            await x.wait(lambda value: value == 100)
        except BaseException:
            await x.store(5)
        finally:
            await x.add(1)

    k.spawn("a", wander)


def exits(k: Any) -> None:
    async def leave() -> None:
        await k.cell("x").load()
        raise SystemExit(3)

    k.spawn("a", leave)
    k.spawn("b", k.cell("y").load)


def both_fail(k: Any) -> None:
    """In one step: the child was first."""
    x = k.cell("x")

    async def child() -> None:
        raise ValueError("child")

    async def parent() -> None:
        await x.load()
        k.spawn("child", child)
        raise KeyError("parent")

    k.spawn("parent", parent)
    k.spawn("other", x.store, 1)


def same_names(k: Any) -> None:
    one, other, lock = k.cell("x"), k.cell("x"), k.lock("x")

    async def wander() -> None:
        await one.store(1)
        await other.load()
        async with lock:
            pass

    k.spawn("t", wander)
    k.spawn("t", wander)

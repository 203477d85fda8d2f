"""Programs of time, cancellation, nurseries and what a thread has for itself: see `programs`."""

from __future__ import annotations

from typing import Any

from vkemu.exploration.primitives.scopes import Cancelled


def time_passes(k: Any) -> None:
    """When nobody can run, and to the earliest."""
    x = k.cell("x", 0)

    async def nap(seconds: float) -> None:
        await k.sleep(seconds)
        assert k.now() == seconds
        await x.store(seconds)

    k.spawn("a", nap, 2)
    k.spawn("b", nap, 0.5)
    k.at_end(lambda: x.value == 2)


def timeouts(k: Any) -> None:
    """Inner and outer; after the scope nothing is timed."""
    event, queue = k.event("e"), k.queue("q")

    async def wait() -> None:
        try:
            async with k.timeout(1) as outer, k.timeout(5) as inner:
                await event.wait()
        except TimeoutError as error:
            said = str(error)
        assert said == "1 s"
        assert (outer.expired, inner.expired, k.now()) == (True, False, 1)
        async with k.timeout(9) as outer:
            try:
                async with k.timeout(1):
                    await queue.get()
            except TimeoutError:
                await queue.put(1)
            assert await queue.get() == 1
        assert (outer.expired, k.now()) == (False, 2)
        await k.sleep(20)
        assert k.now() == 22

    k.spawn("w", wait)


def too_late_or_not(k: Any) -> None:
    """At the same time: both happen, in different executions."""
    queue = k.queue("q")

    async def wait() -> None:
        async with k.timeout(1):
            await queue.get()

    async def put() -> None:
        await k.sleep(1)
        await queue.put(1)

    k.spawn("w", wait)
    k.spawn("p", put)


def cancelled(k: Any) -> None:
    """At its next effect, whichever that is; it may clean up, and await."""
    x, event = k.cell("x", 0), k.event("e")

    async def work() -> None:
        try:
            await x.add(1)
            await event.wait()
        except Cancelled:
            await x.add(10)
            raise

    k.spawn("c", k.cancel, k.spawn("w", work))
    k.at_end(lambda: x.value in {10, 11})


def cancelled_with_a_lock(k: Any) -> None:
    """What it holds is given back."""
    lock, ready = k.lock("l"), k.condition("c")

    async def work() -> None:
        async with lock, ready:
            await ready.wait()

    k.spawn("c", k.cancel, k.spawn("w", work))
    k.spawn("v", lock.acquire)
    k.at_end(lambda: ready.lock.state is None and ready.channel.state == ())


def cancelled_while_it_takes_its_lock_again(k: Any) -> None:
    """It holds the lock when it is told, and gives it back."""
    ready = k.condition("c")

    async def work() -> None:
        async with ready:
            await ready.wait()

    async def notify() -> None:
        async with ready:
            await ready.notify()

    k.spawn("n", notify)
    k.spawn("c", k.cancel, k.spawn("w", work))
    k.at_end(lambda: ready.lock.state is None)


def out_of_time_while_it_takes_its_lock_again(k: Any) -> None:
    """The wait is over by then: told at the next."""
    ready = k.condition("c")

    async def work() -> None:
        async with k.timeout(2), ready:
            await ready.wait()
            assert k.now() == 3
            await ready.wait()

    async def notify() -> None:
        async with ready:
            await ready.notify()
            await k.sleep(3)

    k.spawn("w", work)
    k.spawn("n", notify)


def cancels_itself(k: Any) -> None:
    x = k.cell("x", 0)

    async def work() -> None:
        await x.add(1)
        await k.cancel(me)
        await x.add(1)

    me = k.spawn("w", work)
    k.at_end(lambda: x.value == 1)


def nursery(k: Any) -> None:
    x = k.cell("x", 0)

    async def work() -> None:
        async with k.nursery() as children:
            await children.start("a", x.add, 1)
            await children.start("b", x.add, 1)
        assert x.value == 2

    k.spawn("main", work)


def nursery_that_fails(k: Any) -> None:
    """The others are cancelled, and the block raises what the child raised."""
    x, event = k.cell("x", 0), k.event("e")

    async def fail() -> None:
        await x.add(1)
        raise ValueError("child")

    async def work() -> None:
        try:
            async with k.nursery() as children:
                await children.start("waits", event.wait)
                await children.start("fails", fail)
        except ValueError:
            return
        raise AssertionError

    k.spawn("main", work)


def nursery_out_of_time(k: Any) -> None:
    event = k.event("e")

    async def work() -> None:
        try:
            async with k.timeout(1), k.nursery() as children:
                await children.start("waits", event.wait)
                await children.start("sleeps", k.sleep, 7)
        except TimeoutError:
            assert k.now() == 1
            return
        raise AssertionError

    k.spawn("main", work)


def nursery_without_its_block(k: Any) -> None:
    k.spawn("w", k.nursery().start, "c", k.cell("x").load)


def local_of_nobody(k: Any) -> None:
    mine = k.local()
    k.always(lambda: mine.x)


def local(k: Any) -> None:
    mine, x = k.local(), k.cell("x")

    async def work(n: int) -> None:
        assert not hasattr(mine, "n")
        mine.n = n
        await x.add(1)
        assert mine.n == n
        del mine.n
        assert not hasattr(mine, "n")

    k.spawn("a", work, 1)
    k.spawn("b", work, 2)


async def main(k: Any) -> None:
    x = k.cell("x", 0)

    async def increment() -> int:
        value: int = await x.load()
        await x.store(value + 1)
        return value

    one, other = k.spawn("one", increment), k.spawn("other", increment)
    assert {await k.join(one), await k.join(other)} <= {0, 1}
    assert x.value == 2

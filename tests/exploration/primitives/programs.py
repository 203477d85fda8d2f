"""Programs of what `k` makes besides cells and locks, and what each must come to."""

from __future__ import annotations

from typing import Any

from vkemu.exploration.primitives.channel import BrokenChannel, ClosedChannel, EndOfChannel
from vkemu.exploration.primitives.scopes import Cancelled


def barrier(k: Any) -> None:
    """Nobody goes on before all are there; each was another; and it serves again."""
    meeting, x = k.barrier("b", 2), k.cell("x")
    places: list[int] = []

    async def meet() -> None:
        for turn in (2, 4):
            await x.add(1)
            places.append(await meeting.wait())
            assert await x.load() >= turn

    k.spawn("a", meet)
    k.spawn("b", meet)
    k.at_end(lambda: sorted(places) == [0, 0, 1, 1])


def barrier_without_enough(k: Any) -> None:
    meeting = k.barrier("b", 3)
    k.spawn("a", meeting.wait)
    k.spawn("b", meeting.wait)


def limiter(k: Any) -> None:
    limit, inside = k.limiter("l", 2), k.cell("inside")

    async def enter() -> None:
        async with limit:
            assert await inside.add(1) < 2
            await inside.add(-1)

    for name in "abc":
        k.spawn(name, enter)


def limiter_of_a_stranger(k: Any) -> None:
    limit = k.limiter("l", 2)
    k.spawn("a", limit.acquire)
    k.spawn("b", limit.release)


def limiter_twice(k: Any) -> None:
    limit = k.limiter("l", 2)

    async def twice() -> None:
        async with limit, limit:
            pass

    k.spawn("a", twice)


def channel(k: Any, room: int) -> None:
    """What is sent arrives, in order; the end is seen; nothing is sent past the room."""
    sender, receiver = k.channel("c", room)
    taken = k.cell("taken", 0)

    async def send() -> None:
        async with sender:
            for n in range(3):
                await sender.send(n)
                assert n <= await taken.load() + room

    async def receive() -> None:
        got = []
        async for item in receiver:
            got.append(item)
            await taken.add(1)
        assert got == [0, 1, 2]

    k.spawn("s", send)
    k.spawn("r", receive)


def hand_to_hand(k: Any) -> None:
    sender, receiver = k.channel("c")
    asked = k.cell("asked", False)

    async def send() -> None:
        await sender.send("x")
        assert await asked.load()

    async def receive() -> None:
        await asked.store(True)
        assert await receiver.receive() == "x"

    k.spawn("s", send)
    k.spawn("r", receive)


def clones(k: Any) -> None:
    """The channel ends with the last of its ends."""
    sender, receiver = k.channel("c", 1)

    async def send(end: Any, item: int) -> None:
        async with end:
            await end.send(item)

    async def work() -> None:
        k.spawn("other", send, await sender.clone(), 2)
        k.spawn("first", send, sender, 1)
        assert sorted([item async for item in receiver]) == [1, 2]

    k.spawn("main", work)


def closed(k: Any) -> None:
    sender, receiver = k.channel("c", 1)

    async def work() -> None:
        other = await receiver.clone()
        await receiver.close()
        await receiver.close()
        assert await sender.try_send(1)
        assert not await sender.try_send(2)
        assert await other.try_receive() == 1
        assert await other.try_receive("none") == "none"
        await other.close()
        for call, error in (
            (sender.send(3), BrokenChannel),
            (other.receive(), ClosedChannel),
            (other.clone(), ClosedChannel),
        ):
            try:
                await call
            except error:
                continue
            raise AssertionError(error)
        await sender.close()
        try:
            await sender.send(4)
        except ClosedChannel:
            return
        raise AssertionError

    k.spawn("a", work)


def ended(k: Any) -> None:
    sender, receiver = k.channel("c", 1)
    k.spawn("s", sender.close)

    async def receive() -> None:
        try:
            await receiver.receive()
        except EndOfChannel:
            return
        raise AssertionError

    k.spawn("r", receive)


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


def one_step(k: Any) -> None:
    """Between two awaits of an event loop: several cells, and nobody comes between."""
    x, y = k.cell("x", 2), k.cell("y", 0)

    async def move() -> None:
        await k.step(x, y)
        x.state -= 1
        y.state += 1

    k.spawn("a", move)
    k.spawn("b", move)
    k.always(lambda: x.value + y.value == 2)


def choices(k: Any) -> None:
    x = k.cell("x", 0)

    async def work() -> None:
        await x.store(10 * await k.choose(3) + await k.choose(2))
        assert await x.load() != 21

    k.spawn("a", work)


def notified_without_the_lock(k: Any) -> None:
    ready = k.condition("c", unlocked=True)

    async def wait() -> None:
        async with ready:
            await ready.wait()

    k.spawn("w", wait)
    k.spawn("n", ready.notify)

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


def selects(k: Any) -> None:
    """Each branch is taken once, with what it returns; what was not taken is there as before."""
    one, other = k.queue("one"), k.queue("other")
    taken = []

    async def work() -> None:
        taken.append(await k.select(one.get(), other.get()))
        taken.append(await k.select(one.get(), other.get()))

    k.spawn("s", work)
    k.spawn("p", one.put, "a")
    k.spawn("q", other.put, "b")
    k.at_end(lambda: sorted(taken) == [(0, "a"), (1, "b")])


def selects_for_itself(k: Any) -> None:
    """A branch is a step of the thread that selects: it holds the lock, and gives it back."""
    lock, event = k.lock("l"), k.event("e")

    async def work() -> None:
        which, _ = await k.select(lock.acquire(), event.wait())
        if which == 0:
            await lock.release()

    k.spawn("a", work)
    k.spawn("b", work)
    k.spawn("e", event.set)
    k.at_end(lambda: lock.state is None)


def selects_all_kinds(k: Any, seen: set[Any]) -> None:
    k.joinable = True
    event, semaphore, x = k.event("e"), k.semaphore("s", 0), k.cell("x")
    sender, receiver = k.channel("c", 1)
    ready = k.spawn("x", x.store, 1)

    async def work() -> None:
        seen.add(
            await k.select(
                event.wait(), semaphore.acquire(), receiver.receive(), x.wait(bool), k.join(ready)
            )
        )

    k.spawn("s", work)
    k.spawn("e", event.set)
    k.spawn("r", semaphore.release)
    k.spawn("i", sender.send, "item")


def selects_out_of_time(k: Any) -> None:
    """`sleep` is a branch, and a timeout ends all of them: nothing is taken, and no time passes for
    what was not taken."""
    queue = k.queue("q")

    async def work() -> None:
        assert await k.select(queue.get(), k.sleep(2)) == (1, None)
        try:
            async with k.timeout(1):
                await k.select(queue.get(), k.sleep(100))
        except TimeoutError:
            assert k.now() == 3
        await queue.put("later")
        assert await k.select(k.sleep(100), queue.get()) == (1, "later")
        await k.sleep(1)
        assert k.now() == 4

    k.spawn("s", work)


def selects_meet(k: Any) -> None:
    """Two of them over a channel with no room."""
    sender, receiver = k.channel("c")
    queue = k.queue("q")
    got = []

    async def send() -> None:
        got.append(await k.select(sender.send("x"), queue.get()))

    async def receive() -> None:
        got.append(await k.select(receiver.receive(), queue.get()))

    k.spawn("s", send)
    k.spawn("r", receive)
    k.at_end(lambda: sorted(got, key=repr) == [(0, "x"), (0, None)])


def selects_no_more_than_one(k: Any) -> None:
    """Who offers over several channels with no room gives the item once."""
    one, take_one = k.channel("one")
    other, take_other = k.channel("other")
    got = []

    async def send() -> None:
        await k.select(one.send("x"), other.send("x"))

    async def receive(end: Any) -> None:
        got.append(await end.receive())

    k.spawn("s", send)
    k.spawn("r", receive, take_one)
    k.spawn("t", receive, take_other)
    k.at_end(lambda: len(got) == 1)


def selects_what_goes_on(k: Any) -> None:
    k.spawn("s", lambda: k.select(k.barrier("b", 2).wait(), k.queue("q").get()))


def selects_cancelled(k: Any) -> None:
    """Either it had taken the item, or the item is left."""
    queue, event = k.queue("q"), k.event("e")
    got = []

    async def work() -> None:
        got.append(await k.select(queue.get(), event.wait()))

    thread = k.spawn("s", work)
    k.spawn("p", queue.put, "x")
    k.spawn("c", k.cancel, thread)
    k.at_end(lambda: not (got and queue.value))


def several_are_woken(k: Any) -> None:
    """By one step, whichever of its objects they wait for."""
    x, y = k.cell("x"), k.cell("y")

    async def write() -> None:
        await k.step(y, x)
        x.state = y.state = 1
        await k.step(y, x)
        x.state = y.state = 2

    k.spawn("w", write)
    k.spawn("a", x.wait, lambda value: value)
    k.spawn("b", y.wait, lambda value: value)


def offered(k: Any) -> None:
    """What a sender waits with can be had without waiting, as trio has it."""
    sender, receiver = k.channel("c")
    sent = k.cell("sent", False)

    async def send() -> None:
        await sender.send("x")
        await sent.store(True)

    async def receive() -> None:
        item = await receiver.try_receive()
        if item is None:
            assert not await sent.load()
            item = await receiver.receive()
        assert item == "x"

    k.spawn("s", send)
    k.spawn("r", receive)

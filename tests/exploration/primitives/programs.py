"""Programs of what `k` makes besides cells and locks, and what each must come to."""

from __future__ import annotations

from typing import Any

from vkemu.exploration.primitives.channel import BrokenChannel, ClosedChannel, EndOfChannel


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

"""Programs of selects, and of steps on several objects."""

from __future__ import annotations

from typing import Any


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

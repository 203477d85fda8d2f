"""Small async programs, as somebody would write them."""

from __future__ import annotations

import array
import asyncio
import os
import random
import signal
import time
from datetime import date, datetime, timedelta, timezone
from typing import Any

import anyio
import anyio.to_process
import anyio.to_thread
import trio
from trio import to_thread
from trio.lowlevel import checkpoint


async def lost_update() -> int:
    total = 0

    async def increment() -> None:
        nonlocal total
        value = total
        await checkpoint()
        total = value + 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(increment)
        nursery.start_soon(increment)
    assert total == 2, f"total is {total}"
    return total


async def independent() -> tuple[Any, ...]:
    results: dict[str, int] = {}

    async def work(name: str) -> None:
        mine = []
        for n in range(3):
            mine.append(n)
            await checkpoint()
        results[name] = sum(mine)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(work, name)
    return tuple(sorted(results.items()))


async def two_locks() -> None:
    a, b = trio.Lock(), trio.Lock()

    async def take(first: trio.Lock, second: trio.Lock) -> None:
        async with first, second:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, a, b)
        nursery.start_soon(take, b, a)


class Pool:
    """It leaks when its user is cancelled between taking a connection and having it."""

    def __init__(self) -> None:
        self.free = [1]
        self.limit = trio.Semaphore(1)

    async def take(self) -> int:
        await self.limit.acquire()
        connection = self.free.pop()
        await checkpoint()
        return connection

    def put(self, connection: int) -> None:
        self.free.append(connection)
        self.limit.release()


async def leaking_pool() -> None:
    pool = Pool()

    async def user() -> None:
        connection = await pool.take()
        try:
            await checkpoint()
        finally:
            pool.put(connection)

    async with trio.open_nursery() as outer:
        with trio.CancelScope() as scope:

            async def canceller() -> None:
                scope.cancel()

            outer.start_soon(canceller)
            async with trio.open_nursery() as inner:
                inner.start_soon(user)
                inner.start_soon(user)
    assert pool.free == [1], "a connection leaked"


async def timeouts() -> str:
    """A deadline and what it waits for, at the same moment."""
    done = trio.Event()
    result = "?"

    async def worker() -> None:
        await trio.sleep(1)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        with trio.move_on_after(1) as scope:
            await done.wait()
            result = "done"
        if scope.cancelled_caught:
            result = "late"
        nursery.cancel_scope.cancel()
    return result


async def in_threads() -> int:
    box = [0]

    def get() -> int:
        return box[0]

    def put(value: int) -> None:
        box[0] = value

    async def increment() -> None:
        value = await to_thread.run_sync(get)
        await to_thread.run_sync(put, value + 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(increment)
        nursery.start_soon(increment)
    return box[0]


async def back_from_a_thread() -> list[str]:
    said: list[str] = []

    async def say(word: str) -> None:
        await checkpoint()
        said.append(word)

    def work() -> None:
        trio.from_thread.run(say, "from the thread")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(to_thread.run_sync, work)
        nursery.start_soon(say, "from the task")
    return said


async def unfinished() -> None:
    """It does not like to be cancelled between two lines."""
    half = False
    try:
        half = True
        await checkpoint()
        half = False
    finally:
        assert not half, "half done"


async def real_socket() -> None:
    await trio.lowlevel.wait_readable(0)


async def real_connection() -> None:
    await trio.open_tcp_stream("localhost", 80)


async def with_tls() -> None:
    await asyncio.open_connection("localhost", 443, ssl=True)


async def datagrams() -> None:
    trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)


async def in_a_process() -> None:
    await anyio.to_process.run_sync(len, "abc")


async def starts_a_process() -> None:
    await trio.run_process(["true"])


async def asyncio_process() -> None:
    await asyncio.create_subprocess_exec("true")


async def takes_signals() -> None:
    with trio.open_signal_receiver(signal.SIGTERM):
        pass


async def asyncio_signals() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)


async def writes_a_file() -> None:
    async with await trio.open_file("/tmp/vkemu", "w"):
        pass


async def draws() -> float:
    return random.random()


async def tells_the_time() -> float:
    before = time.monotonic()
    await trio.sleep(2)
    return time.monotonic() - before


async def tells_the_date() -> tuple[Any, ...]:
    before = datetime.now()
    await asyncio.sleep(2)
    after = datetime.now()
    there = datetime.now(timezone(timedelta(hours=2)))
    today = str(date.today())
    same = isinstance(after, datetime) and type(after - before) is timedelta
    return same, str(after), today, there.isoformat(), (after - before).total_seconds()


# -- what the footprints do not see ----------------------------------------------------------------


async def in_the_environment() -> str:
    """What it shares, the standard library keeps, where nobody looks."""
    os.environ["VKEMU_TEST"] = "0"

    async def increment() -> None:
        value = int(os.environ["VKEMU_TEST"])
        await checkpoint()
        os.environ["VKEMU_TEST"] = str(value + 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(increment)
        nursery.start_soon(increment)
    return os.environ["VKEMU_TEST"]


async def in_an_array() -> int:
    """An object of C that nobody described: it counts as written by whatever is done to it."""
    numbers = array.array("i", [0])

    async def increment() -> None:
        value = numbers[0]
        await checkpoint()
        numbers[0] = value + 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(increment)
        nursery.start_soon(increment)
    return numbers[0]


class Lease:
    def __init__(self, given_back: list[int]) -> None:
        self.given_back = given_back

    def __del__(self) -> None:
        self.given_back.append(1)


async def in_a_finalizer() -> int:
    """Whoever counts what was given back depends on when the last reference goes."""
    given_back: list[int] = []

    async def user() -> None:
        lease = Lease(given_back)
        await checkpoint()
        del lease

    async with trio.open_nursery() as nursery:
        nursery.start_soon(user)
        nursery.start_soon(user)
    return len(given_back) * 0


KEPT = [0]


async def kept_between_executions() -> int:
    KEPT[0] += 1
    return KEPT[0]


# -- asyncio ---------------------------------------------------------------------------------------


async def gathered() -> int:
    total = 0

    async def increment() -> None:
        nonlocal total
        value = total
        await asyncio.sleep(0)
        total = value + 1

    await asyncio.gather(increment(), increment())
    return total


async def asyncio_failing() -> None:
    assert await gathered() == 2


async def asyncio_connection() -> None:
    await asyncio.open_connection("localhost", 80)


async def queued() -> tuple[Any, ...]:
    queue: asyncio.Queue[Any] = asyncio.Queue(1)
    got = []

    async def put(name: str) -> None:
        for n in range(2):
            await queue.put((name, n))

    async def get() -> None:
        for _ in range(4):
            got.append(await queue.get())  # noqa: PERF401 - one by one

    async with asyncio.TaskGroup() as group:
        group.create_task(put("a"))
        group.create_task(put("b"))
        group.create_task(get())
    return tuple(got)


async def in_executor() -> int:
    box = [0]

    def add() -> None:
        box[0] += 1

    loop = asyncio.get_running_loop()
    await asyncio.gather(*[loop.run_in_executor(None, add) for _ in range(2)])
    return box[0]


async def in_asyncios_threads() -> int:
    box = [0]

    def get() -> int:
        return box[0]

    def put(value: int) -> None:
        box[0] = value

    async def increment() -> None:
        value = await asyncio.to_thread(get)
        await asyncio.to_thread(put, value + 1)

    await asyncio.gather(increment(), increment())
    return box[0]


async def in_anyios_threads() -> int:
    box = [0]

    def get() -> int:
        return box[0]

    async def increment() -> None:
        box[0] = await anyio.to_thread.run_sync(get) + 1

    async with anyio.create_task_group() as group:
        group.start_soon(increment)
        group.start_soon(increment)
    return box[0]


async def spinning() -> str:
    done = False

    async def finish() -> None:
        nonlocal done
        done = True

    task = asyncio.create_task(finish())
    while not done:  # noqa: ASYNC110 - that is what is tested
        await asyncio.sleep(0)
    await task
    return "done"

"""Races that were publicly reported, in packages as they were released.

    python -m tests.worlds.known_races NAME [STRATEGY] [MAX_EXECUTIONS]

prints the result as JSON. Which versions: those that are on PYTHONPATH.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from typing import Any

import trio
import trio.lowlevel
from vkemu import explore

Seconds = float | None

# -- httpcore on trio -----------------------------------------------------------------------------


def connection_pool(hosts: tuple[str, ...], *, both: bool = False) -> Any:
    """encode/httpcore#1093: requests over one connection; the first is cancelled, or both are."""
    import httpcore

    class Stream(httpcore.AsyncNetworkStream):
        def __init__(self) -> None:
            self.left: list[bytes] = []

        async def read(self, max_bytes: int, timeout: Seconds = None) -> bytes:  # noqa: ASYNC109
            await trio.lowlevel.checkpoint()
            return self.left.pop(0) if self.left else b""

        async def write(self, buffer: bytes, timeout: Seconds = None) -> None:  # noqa: ASYNC109
            await trio.lowlevel.checkpoint()
            if b"\r\n\r\n" in buffer:
                self.left.append(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        async def aclose(self) -> None:
            pass

        def get_extra_info(self, info: str) -> Any:
            return False if info == "is_readable" else None

    class Backend(httpcore.AsyncNetworkBackend):
        async def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
            await trio.lowlevel.checkpoint()
            return Stream()

    async def program() -> None:
        pool = httpcore.AsyncConnectionPool(max_connections=1, network_backend=Backend())
        scope = trio.CancelScope()

        async def request(host: str) -> None:
            response = await pool.request("GET", f"http://{host}/")
            assert response.content == b"ok"

        async def victims(hosts: tuple[str, ...]) -> None:
            with scope:
                async with trio.open_nursery() as inner:
                    for host in hosts:
                        inner.start_soon(request, host)

        async def victim(host: str) -> None:
            with scope:
                await request(host)

        async def canceller() -> None:
            scope.cancel()

        async with trio.open_nursery() as nursery:
            if both:
                nursery.start_soon(victims, hosts)
            else:
                nursery.start_soon(victim, hosts[0])
                for host in hosts[1:]:
                    nursery.start_soon(request, host)
            nursery.start_soon(canceller)
        assert not pool._requests, "a request is left"
        stuck = [c.info() for c in pool.connections if not c.is_idle() and not c.is_closed()]
        assert not stuck, f"a connection leaked: {stuck}"

    return program


async def httpcore_two_hosts() -> None:
    await connection_pool(("a", "b"))()


async def httpcore_both_cancelled() -> None:
    await connection_pool(("a", "a"), both=True)()


async def httpcore_one_cancelled() -> None:
    """encode/httpcore#880: one request, cancelled while it is under way, and nobody beside it."""
    await connection_pool(("a",))()


# -- trio ------------------------------------------------------------------------------------------


async def closed_by_another() -> None:
    """python-trio/trio#3331: who feeds a channel that was closed says that it is broken."""

    @trio.as_safe_channel
    async def numbers() -> AsyncGenerator[int, None]:
        for n in range(2):
            yield n

    async with numbers() as channel:

        async def close() -> None:
            await channel.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            try:
                async for _ in channel:
                    pass
            except trio.ClosedResourceError:
                pass


# -- caches and locks for asyncio ------------------------------------------------------------------


async def cache_cleared() -> None:
    """aio-libs/async-lru#503: cleared while it is asked, a cache answers nobody any more."""
    import async_lru  # type: ignore[import-not-found, unused-ignore]

    @async_lru.alru_cache  # type: ignore[untyped-decorator, unused-ignore]
    async def get(key: int) -> int:
        await asyncio.sleep(0)
        return key

    async def clear() -> None:
        get.cache_clear()

    await asyncio.gather(get(1), clear())


async def cache_overfull() -> None:
    """aio-libs/async-lru#480: an entry goes, for want of room, before its answer is there."""
    import async_lru

    @async_lru.alru_cache(maxsize=1, ttl=60)  # type: ignore[untyped-decorator, unused-ignore]
    async def get(key: int) -> int:
        await asyncio.sleep(0)
        return key

    assert list(await asyncio.gather(get(1), get(2))) == [1, 2]


async def two_writers() -> None:
    """aio-libs/aiorwlock#235: a writer comes in between a release and whoever that woke."""
    import aiorwlock  # type: ignore[import-not-found, unused-ignore]

    lock = aiorwlock.RWLock()
    inside = 0

    async def write() -> None:
        nonlocal inside
        async with lock.writer_lock:
            inside += 1
            assert inside == 1, "two write at once"
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(write(), write(), write())


# -- the standard library --------------------------------------------------------------------------


async def condition_notify() -> None:
    """python/cpython#112202: the one notified is cancelled, and the wakeup is lost."""
    condition = asyncio.Condition()
    items = 0

    async def consumer() -> None:
        nonlocal items
        async with condition:
            while not items:
                await condition.wait()
            items -= 1

    async def producer() -> None:
        nonlocal items
        async with condition:
            items += 1
            condition.notify()

    victim = asyncio.create_task(consumer())

    async def canceller() -> None:
        victim.cancel()

    other = asyncio.create_task(consumer())
    rest = [asyncio.create_task(producer()), asyncio.create_task(canceller())]
    await asyncio.wait([victim])
    if not victim.cancelled():
        rest.append(asyncio.create_task(producer()))
    await other
    await asyncio.wait(rest)


# -- AnyIO on asyncio ------------------------------------------------------------------------------


async def users_of(lock: Any) -> None:
    """Three users, of which one may be cancelled."""
    import anyio
    import anyio.lowlevel

    async def user() -> None:
        async with lock:
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()

        async def victim() -> None:
            with scope:
                await user()

        async def canceller() -> None:
            scope.cancel()

        for body in (user, victim, user, canceller):
            group.start_soon(body)


async def anyio_lock() -> None:
    """agronholm/anyio#1145: release() meets a cancelled waiter, and the next waits for ever."""
    import anyio

    await users_of(anyio.Lock())


async def anyio_limiter() -> None:
    """agronholm/anyio#947: a token is lost when who waits for it is cancelled."""
    import anyio

    limiter = anyio.CapacityLimiter(1)
    await users_of(limiter)
    assert limiter.borrowed_tokens == 0, "a token is lost"


# -- redis-py --------------------------------------------------------------------------------------


class Redis:
    """A server in memory: it answers GET with the value of the key, some time later."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        self.requests: asyncio.Queue[list[bytes]] = asyncio.Queue()

    @property
    def transport(self) -> Redis:
        return self

    def get_extra_info(self, *args: Any) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.reader.feed_eof()

    async def wait_closed(self) -> None:
        pass

    async def drain(self) -> None:
        pass

    def writelines(self, lines: list[bytes]) -> None:
        self.write(b"".join(lines))

    def write(self, data: bytes) -> None:
        self.requests.put_nowait(data.split(b"\r\n")[2::2])

    async def serve(self) -> None:
        while True:
            words = await self.requests.get()
            if words[0].upper() == b"GET":
                value = b"value of " + words[1]
                self.reader.feed_data(b"$%d\r\n%s\r\n" % (len(value), value))
            else:
                self.reader.feed_data(b"+OK\r\n")


async def redis_cancel() -> None:
    """redis/redis-py#2624 (CVE-2023-28858): one is told what the other asked."""
    import redis.asyncio  # type: ignore[import-not-found, unused-ignore]

    serving: list[asyncio.Task[None]] = []

    async def open_connection(*args: Any, **kwargs: Any) -> Any:
        server = Redis()
        serving.append(asyncio.create_task(server.serve()))
        return server.reader, server

    real = asyncio.open_connection
    asyncio.open_connection = open_connection
    try:
        pool = redis.asyncio.BlockingConnectionPool(max_connections=1, timeout=None)
        async with redis.asyncio.Redis(connection_pool=pool) as client:

            async def get(key: str) -> None:
                found = await client.get(key)
                assert found == b"value of " + key.encode(), "the answer to another question"

            victim = asyncio.create_task(get("a"))

            async def canceller() -> None:
                victim.cancel()

            await asyncio.wait([victim, asyncio.create_task(canceller())])
            await get("b")
        if not victim.cancelled():
            victim.result()
    finally:
        asyncio.open_connection = real
        for task in serving:
            task.cancel()


BACKENDS = {
    httpcore_two_hosts: "trio",
    httpcore_both_cancelled: "trio",
    httpcore_one_cancelled: "trio",
    closed_by_another: "trio",
    cache_cleared: "asyncio",
    cache_overfull: "asyncio",
    two_writers: "asyncio",
    condition_notify: "asyncio",
    anyio_lock: "anyio+asyncio",
    anyio_limiter: "anyio+asyncio",
    redis_cancel: "asyncio",
}


def hunt(program: Any, strategy: str = "dpor", **options: Any) -> Any:
    return explore(program, backend=BACKENDS[program], strategy=strategy, **options)


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    stop, count = rest[1:2] != ["all"], int(rest[2]) if len(rest) > 2 else None
    result = hunt(
        globals()[name], rest[0] if rest else "dpor", stop_on_failure=stop, max_executions=count
    )
    said = {"message": result.failure.message if result.failure else "", "doubt": result.doubt}
    names = ("verdict", "executions", "blocked", "exhausted", "failures", "seconds")
    print(json.dumps({**{name: getattr(result, name) for name in names}, **said}))

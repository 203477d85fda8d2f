"""httpx against a server of the same program."""

from __future__ import annotations

import asyncio

import anyio
import httpx
import trio


async def fetch(url: str, *paths: str) -> tuple[str, ...]:
    """All at once, over one connection."""
    found: dict[str, str] = {}
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:

        async def get(path: str) -> None:
            found[path] = (await client.get(f"{url}/{path}")).text

        async with anyio.create_task_group() as group:
            for path in paths:
                group.start_soon(get, path)
    for path in paths:
        assert found[path] == path, f"{path} was answered by {found[path]}"
    return tuple(sorted(found))


class Answers:
    """Of one connection: what was asked, whole or in pieces, and what is said to it."""

    def __init__(self) -> None:
        self.asked = b""

    def take(self, data: bytes) -> bytes:
        self.asked += data
        said = b""
        while b"\r\n\r\n" in self.asked:
            request, _, self.asked = self.asked.partition(b"\r\n\r\n")
            path = request.split()[1][1:]
            said += b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path)
        return said


async def httpx_on_trio(paths: tuple[str, ...] = ("a",)) -> tuple[str, ...]:
    listeners = await trio.open_tcp_listeners(80, host="127.0.0.1")

    async def serve(stream: trio.SocketStream) -> None:
        answers = Answers()
        async for data in stream:
            await stream.send_all(answers.take(bytes(data)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        got = await fetch("http://127.0.0.1", *paths)
        nursery.cancel_scope.cancel()
    return got


async def httpx_on_asyncio(paths: tuple[str, ...] = ("a",)) -> tuple[str, ...]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = Answers()
        while data := await reader.read(1000):
            writer.write(answers.take(data))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 80)
    got = await fetch("http://127.0.0.1", *paths)
    server.close()
    await server.wait_closed()
    return got


async def two_requests_on_trio() -> tuple[str, ...]:
    return await httpx_on_trio(("a", "b"))


async def two_requests_on_asyncio() -> tuple[str, ...]:
    return await httpx_on_asyncio(("a", "b"))

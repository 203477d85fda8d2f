"""Clients and servers in one program, on the network in memory."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import anyio
import trio

# -- a protocol of lines ---------------------------------------------------------------------------


async def shout_on_trio() -> bytes:
    """The server takes one read for one message."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data.upper())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        async with await trio.open_tcp_stream(*listeners[0].socket.getsockname()) as stream:
            await stream.send_all(b"abc")
            got = bytes(await stream.receive_some())
        nursery.cancel_scope.cancel()
    return got


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.readline()).upper())
    await writer.drain()
    writer.close()


async def shout_on_asyncio() -> bytes:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"abc\n")
        got = await reader.read()
        writer.close()
        await writer.wait_closed()
    return got


async def shout_on_anyio() -> bytes:
    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send((await stream.receive()).upper())

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"abc")
                got = await stream.receive()
            group.cancel_scope.cancel()
    return got


async def protocols_on_sockets() -> bytes:
    """A transport and a protocol at one end, the loop's own calls at the other."""
    loop = asyncio.get_running_loop()
    said = bytearray()

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(b"x" * 100_000)  # more than there is room for
            transport.close()

    server = await loop.create_server(Server, "127.0.0.1", 0)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    with sock:
        await loop.sock_connect(sock, server.sockets[0].getsockname())
        while data := await loop.sock_recv(sock, 65536):
            said += data
    server.close()
    await server.wait_closed()
    return bytes(said[:1] * (len(said) // 1000))


async def shout_on_sockets() -> bytes:
    """As little as there can be of it: dfs gets through in any order of callbacks."""
    loop = asyncio.get_running_loop()

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data.upper())
            self.transport.close()

    server = await loop.create_server(Server, "127.0.0.1", 0)
    said = bytearray()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, server.sockets[0].getsockname())
        await loop.sock_sendall(sock, b"abc\n")
        while data := await loop.sock_recv(sock, 3):
            said += data
    server.close()
    return bytes(said)


async def nobody_listens() -> str:
    """It knows what to do about it."""
    try:
        await trio.open_tcp_stream("localhost", 9)
    except OSError as error:
        return type(error).__name__
    return ""

"""What an asyncio loop does about sockets and hosts, on the network in memory."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from vkemu.worlds.asyncio_network import Server, Transport
from vkemu.worlds.instrumenting import instrument_late
from vkemu.worlds.network_asking import names_of, resolved
from vkemu.worlds.network_socket import Socket, made


class Networking:
    """The part of the loop that is about sockets."""

    world: Any

    async def getaddrinfo(self, host: Any, port: Any, **kwargs: Any) -> Any:
        names = {"type" if name == "kind" else name: value for name, value in kwargs.items()}
        await self.later()
        return resolved(host, port, **names)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        await self.later()
        return names_of(sockaddr)

    async def later(self) -> None:
        """What takes some time, and nothing else."""
        loop: Any = self
        future = loop.create_future()

        def come() -> str:
            if not future.done():
                future.set_result(None)
            return "an answer arrives"

        self.world.network.post(self.world.network.sender("question"), come)
        await future

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        family: int = 0,
        sock: Any = None,
        local_addr: Any = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        if ssl:
            self.world.refuse("makes a connection with TLS")
        instrument_late(protocol_factory)
        if sock is None:
            ((found, _, _, _, address),) = resolved(host, port, family)
            sock = made(self.world.network, found)
            await self.sock_connect(sock, address)
        return await self.connected(protocol_factory, self.ours(sock))

    async def connect_accepted_socket(
        self, protocol_factory: Callable[[], Any], sock: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        return await self.connected(protocol_factory, self.ours(sock))

    async def connected(self, factory: Callable[[], Any], sock: Socket) -> tuple[Any, Any]:
        loop: Any = self
        protocol = factory()
        transport = Transport(loop, sock, protocol)
        ready = loop.create_future()
        loop.call_soon(transport.begin)
        loop.call_soon(resolve, ready)
        try:
            await ready
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    async def create_server(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        family: int = 0,
        sock: Any = None,
        backlog: int = 100,
        ssl: Any = None,
        start_serving: bool = True,
        **kwargs: Any,
    ) -> Server:
        if ssl:
            self.world.refuse("opens a port with TLS")
        loop: Any = self
        instrument_late(protocol_factory)
        socks = []
        for each in [host] if host is None or isinstance(host, str) else host:
            if sock is None:
                ((found, _, _, _, address),) = resolved(each, port, family, flags=socket.AI_PASSIVE)
                socks.append(made(self.world.network, found))
                socks[-1].bind(address)
        server = Server(loop, socks or [self.ours(sock)], protocol_factory, backlog)
        if start_serving:
            await server.start_serving()
        return server

    # -- sockets without a transport ---------------------------------------------------------------

    def ours(self, sock: Any) -> Socket:
        if not isinstance(sock, Socket):
            self.world.refuse("uses a real socket")
        assert isinstance(sock, Socket)
        return sock

    async def done(self, act: Callable[[], Any], when: Callable[[Any], object]) -> Any:
        """`act`, as soon as it does not block."""
        loop: Any = self
        while True:
            try:
                return act()
            except BlockingIOError:
                ready = loop.create_future()
                when(lambda ready=ready: loop.call_soon(resolve, ready))
                await ready

    async def sock_connect(self, sock: Any, address: Any) -> None:
        sock = self.ours(sock)
        try:
            sock.connect(address)
        except BlockingIOError:
            pass
        try:
            await self.done(sock.outcome, sock.when_writable)
        except BaseException:
            sock.close()
            raise

    async def sock_accept(self, sock: Any) -> Any:
        sock = self.ours(sock)
        return await self.done(sock.accept, sock.when_readable)

    async def sock_recv(self, sock: Any, nbytes: int) -> Any:
        sock = self.ours(sock)
        return await self.done(lambda: sock.recv(nbytes), sock.when_readable)

    async def sock_recv_into(self, sock: Any, buf: Any) -> Any:
        sock = self.ours(sock)
        return await self.done(lambda: sock.recv_into(buf), sock.when_readable)

    async def sock_sendall(self, sock: Any, data: Any) -> None:
        sock = self.ours(sock)
        view = memoryview(data).cast("B")
        while view:
            view = view[await self.done(partial(sock.send, view), sock.when_writable) :]


def resolve(future: Any) -> None:
    if not future.done():
        future.set_result(None)

"""trio's sockets on the network in memory, by way of trio's own socket factory and resolver."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import outcome
import trio

from vkemu.worlds import network_socket
from vkemu.worlds.network_asking import names_of, resolved
from vkemu.worlds.noting import touch

if TYPE_CHECKING:
    from vkemu.worlds.world import World


class Sockets(trio.abc.SocketFactory):
    def __init__(self, world: World) -> None:
        self.world = world

    def socket(self, family: Any = -1, type: Any = -1, proto: Any = -1) -> Any:  # noqa: A002
        return Socket(network_socket.made(self.world.network, family, type, proto))


class Resolver(trio.abc.HostnameResolver):
    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return resolved(host, port, *args, **kwargs)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        await trio.lowlevel.checkpoint()
        return names_of(sockaddr)


class Socket(trio.socket.SocketType):
    """Waits for what its `_sock`, which never blocks, cannot do yet."""

    def __init__(self, sock: network_socket.Socket) -> None:
        self._sock = sock
        self._waiting: dict[trio.lowlevel.Task, None] = {}
        self._shut = False

    async def _done(self, act: Any, when: Any) -> Any:
        """`act`, as soon as it does not block. A checkpoint, as all of trio's are."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            result = act()
        except BlockingIOError:
            pass
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return result
        while True:
            await self._wait(when)
            try:
                return act()
            except BlockingIOError:
                pass

    async def _wait(self, when: Any) -> None:
        task = trio.lowlevel.current_task()

        def ready() -> None:
            touch(task, "_abort_func", write=False)  # it may have been cancelled
            if task in self._waiting:
                del self._waiting[task]
                trio.lowlevel.reschedule(task)

        def abort(_: Any) -> Any:
            del self._waiting[task]
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiting[task] = None
        when(ready)
        await trio.lowlevel.wait_task_rescheduled(abort)

    # -- ports and connections ---------------------------------------------------------------------

    async def bind(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        self._sock.bind(address)

    def listen(self, backlog: int = 128) -> None:
        self._sock.listen(backlog)

    async def accept(self) -> tuple[Any, Any]:
        sock, address = await self._done(self._sock.accept, self._sock.when_readable)
        return Socket(sock), address

    async def connect(self, address: Any) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._sock.connect(address)
        except BlockingIOError:
            pass
        try:
            while self._sock.connecting:
                await self._wait(self._sock.when_writable)
            self._sock.outcome()
        except trio.Cancelled:
            self._sock.close()  # as trio does it: nobody knows what became of it
            raise

    async def recv(self, buflen: int, flags: int = 0) -> bytes:
        found = await self._done(lambda: self._sock.recv(buflen), self._sock.when_readable)
        return bytes(found)

    async def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        act = lambda: self._sock.recv_into(buffer, nbytes)  # noqa: E731
        return int(await self._done(act, self._sock.when_readable))

    async def send(self, data: Any, flags: int = 0) -> int:
        return int(await self._done(lambda: self._sock.send(data), self._sock.when_writable))

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._sock.connecting:
            await self._wait(self._sock.when_writable)

    def shutdown(self, flag: int) -> None:
        self._sock.shutdown(flag)
        self._shut = self._shut or flag != socket.SHUT_RD

    def close(self) -> None:
        self._sock.close()
        waiting, self._waiting = self._waiting, {}
        for task in waiting:
            trio.lowlevel.reschedule(task, outcome.Error(trio.ClosedResourceError("closed")))

    # -- what is asked of any socket ---------------------------------------------------------------

    @property
    def family(self) -> Any:
        return self._sock.family

    @property
    def type(self) -> Any:
        return self._sock.type

    @property
    def proto(self) -> int:
        return self._sock.proto

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802 - trio's name
        return self._shut

    def is_readable(self) -> bool:
        return self._sock.readable()

    def fileno(self) -> int:
        return self._sock.fileno()

    def getsockname(self) -> Any:
        return self._sock.getsockname()

    def getpeername(self) -> Any:
        return self._sock.getpeername()

    def setsockopt(self, level: int, optname: int, value: Any, optlen: Any = None) -> None:
        self._sock.setsockopt(level, optname, value)

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        return self._sock.getsockopt(level, optname)

    def __repr__(self) -> str:
        return f"<trio socket at {self._sock.local[0]}:{self._sock.local[1]}>"

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

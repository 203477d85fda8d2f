"""`socket.socket` on the network in memory: what programs and libraries make themselves.

It never blocks: it says BlockingIOError, as one does that was set not to block; loops wait for it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Any, Self

from vkemu.worlds.hooks import Hooks
from vkemu.worlds.network import Address, Line, Listener, Network, address_of, wake
from vkemu.worlds.network_asking import resolved
from vkemu.worlds.noting import LOG, touch
from vkemu.worlds.outside import refusing
from vkemu.worlds.world import World


class Socket:
    def __init__(self, network: Network, family: int = -1, kind: int = -1, proto: int = -1) -> None:
        self.network = network
        self.family = socket.AddressFamily(socket.AF_INET if family == -1 else family)
        self.type = socket.SocketKind(socket.SOCK_STREAM if kind == -1 else kind)
        self.proto = 0 if proto == -1 else proto
        self.options: dict[tuple[int, int], Any] = {}
        self.local: Address = (address_of(None), 0)
        self.line: Line | None = None
        self.listener: Listener | None = None
        self.error: OSError | None = None
        self.connecting = self.closed = False
        self.timeout: float | None = None
        self.waiters: list[Callable[[], object]] = []  # for its connection
        self.file = network.number(self)
        LOG.name(self)

    # -- ports -------------------------------------------------------------------------------------

    def bind(self, address: Any) -> None:
        self.local = self.network.port(address_of(address[0]), address[1])

    def listen(self, backlog: int = 128) -> None:
        self.listener = self.network.listen(self.network.port(*self.local))
        self.local = self.listener.address
        self.options[socket.SOL_SOCKET, socket.SO_ACCEPTCONN] = 1

    def accept(self) -> tuple[Socket, Address]:
        line = self.open(self.listener).pop()
        if line is None:
            raise blocking(errno.EAGAIN)
        return self.having(line), line.remote

    def having(self, line: Line) -> Socket:
        accepted = Socket(self.network, self.family, self.type)
        accepted.line, accepted.local = line, line.local
        return accepted

    # -- connections -------------------------------------------------------------------------------

    def connect(self, address: Any) -> None:
        self.connecting = True
        self.network.connect((address_of(address[0]), address[1]), self.connected)
        raise blocking(errno.EINPROGRESS)

    def connect_ex(self, address: Any) -> int:
        try:
            self.connect(address)
        except OSError as error:
            return error.errno or 0
        return 0

    def connected(self, found: Line | OSError) -> None:
        touch(self, "connecting", write=True)
        self.connecting = False
        if isinstance(found, OSError):
            self.error = found
        elif self.closed:
            found.outbound.reset()
        else:
            self.line, self.local = found, found.local
        wake(self.waiters)

    def outcome(self) -> None:
        """Of `connect`, once it has one."""
        touch(self, "connecting", write=False)
        if self.connecting:
            raise blocking(errno.EINPROGRESS)
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def recv(self, count: int, flags: int = 0) -> bytes:
        data: bytes | None = self.open(self.line).inbound.take(count)
        if data is None:
            raise blocking(errno.EAGAIN)
        return data

    def recv_into(self, buffer: Any, count: int = 0, flags: int = 0) -> int:
        data = self.recv(count or len(buffer))
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def send(self, data: Any, flags: int = 0) -> int:
        whole = bytes(data)
        count = int(self.open(self.line).outbound.send(whole))
        if whole and not count:
            raise blocking(errno.EAGAIN)
        return count

    def shutdown(self, how: int) -> None:
        if how != socket.SHUT_RD:
            self.open(self.line).outbound.finish()

    def close(self) -> None:
        if self.closed:
            return
        touch(self, "connecting", write=True)
        self.closed = True
        if self.listener is not None:
            self.listener.close()
        if self.line is not None:
            self.line.inbound.hang_up()

    def abort(self) -> None:
        """Close it with a reset."""
        if not self.closed and self.line is not None:
            self.line.outbound.reset()
        self.close()

    def open(self, part: Any) -> Any:
        if self.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if part is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return part

    # -- waiting -----------------------------------------------------------------------------------

    def readable(self) -> bool:
        if self.listener is not None:
            touch(self.listener, "backlog", write=False)
            return bool(self.listener.backlog)
        return self.line is not None and self.line.inbound.ready()

    def when_readable(self, waiter: Callable[[], object]) -> None:
        """Call it at the next change."""
        if self.listener is not None:
            self.listener.waiters.append(waiter)
        else:
            self.open(self.line).inbound.readers.append(waiter)

    def when_writable(self, waiter: Callable[[], object]) -> None:
        if self.connecting:
            self.waiters.append(waiter)
        else:
            self.open(self.line).outbound.writers.append(waiter)

    # -- what is asked of any socket ---------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self.closed else self.file

    def getsockname(self) -> Any:
        return self.full(self.local)

    def getpeername(self) -> Any:
        return self.full(self.open(self.line).remote)

    def full(self, address: Address) -> tuple[Any, ...]:
        return address if self.family == socket.AF_INET else (*address, 0, 0)

    def setsockopt(self, level: int, name: int, value: Any, length: int = 0) -> None:
        self.options[level, name] = value

    def getsockopt(self, level: int, name: int, length: int = 0) -> Any:
        if (level, name) == (socket.SOL_SOCKET, socket.SO_ERROR):
            touch(self, "connecting", write=False)
            return self.error.errno if self.error is not None else 0
        return self.options.get((level, name), 0)

    def setblocking(self, flag: bool) -> None:
        self.timeout = None if flag else 0.0

    def settimeout(self, timeout: float | None) -> None:
        self.timeout = timeout

    def gettimeout(self) -> float | None:
        return self.timeout

    def get_inheritable(self) -> bool:
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def made(network: Network, family: int = -1, kind: int = -1, proto: int = -1) -> Socket:
    """What a program asks for, when it is for TCP."""
    sock = Socket(network, family, kind, proto)
    if sock.type != socket.SOCK_STREAM or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        network.world.refuse("opens a socket that is not for TCP")
    return sock


def blocking(number: int) -> BlockingIOError:
    return BlockingIOError(number, os.strerror(number))


# -- in place of the real ones ---------------------------------------------------------------------


def install(hooks: Hooks, current: Callable[[], World | None]) -> None:
    """While a step is taken, `socket.socket` is one of ours, and `select.poll` knows of them."""
    for name in ("socketpair", "fromfd", "create_connection", "create_server"):
        refusing(hooks, socket, name, current, "opens a real socket")

    def network() -> Network | None:
        world = current()
        return None if world is None or world.acting is None else world.network

    real: Any = socket.socket

    class Made(real):  # type: ignore[misc]
        """The class by that name: what is made outside of a step is real."""

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            here = network()
            if here is None or "fileno" in kwargs or len(args) > 3:
                return real(*args, **kwargs)
            return made(here, *args, **{"kind" if n == "type" else n: v for n, v in kwargs.items()})

    class Poll:
        """`select.poll`, asked about sockets of ours and without waiting."""

        def __init__(self) -> None:
            self.files: dict[int, int] = {}

        def register(self, file: Any, mask: int = select.POLLIN) -> None:
            self.files[file if isinstance(file, int) else file.fileno()] = mask

        def poll(self, timeout: Any = None) -> list[tuple[int, int]]:
            here = network()
            assert here is not None
            if timeout != 0 or any(file not in here.sockets for file in self.files):
                here.world.refuse("waits for a real file or socket")
            return [
                (file, select.POLLIN)
                for file, mask in self.files.items()
                if mask & select.POLLIN and here.sockets[file].readable()
            ]

    def poll() -> Any:
        return Poll() if network() is not None else polls()

    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        return resolves(*args, **kwargs) if network() is None else resolved(*args, **kwargs)

    hooks.replace(socket, "socket", Made)
    resolves = hooks.replace(socket, "getaddrinfo", getaddrinfo)
    polls = hooks.replace(select, "poll", poll)

"""Where a host serves: unix:PATH or tcp:HOST:PORT, listeners there and ways to it.

A unix socket is its user's alone, with a lock file beside it: the kernel gives the lock back when a
host dies, whatever has become of the socket, so one that was left behind is known for what it is.
On TCP there is no saying who comes, so a shared token is asked of everybody, and the address has to
be this machine's own unless told otherwise.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
import msgspec

from vkemu.serving.transport import Broken, RawStream, SecureStream, UnixStream, secured

BACKLOG: Final = 128
BUSY_SECONDS: Final = 0.05  # between two tries to accept when there is no descriptor left
OUT_OF_DESCRIPTORS: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Address(msgspec.Struct, frozen=True):
    """`path` for unix, else host and port."""

    path: Path | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp:{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """ValueError, in a line, when it is none."""
    kind, colon, rest = text.partition(":")
    if kind == "unix" and colon and rest:
        return Address(path=Path(rest))
    if kind == "tcp" and colon:
        host, colon, port = rest.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if host and colon and port.isascii() and port.isdigit() and int(port) < 1 << 16:
            return Address(host=host, port=int(port))
    raise ValueError(f"{text!r}, expected unix:PATH or tcp:HOST:PORT")


def read_token(path: Path) -> bytes:
    """The shared token in a file, without white space at its ends. ValueError, in a line."""
    low, high = 16, 256
    try:
        with path.open("rb") as file:
            token = file.read(high + 1024).strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path}: {why}, expected a file with a token") from None
    if not low <= len(token) <= high or not token.isascii():
        raise ValueError(
            f"{path}: {len(token)} bytes, expected a token of {low} to {high} in ASCII"
        )
    return token


class Listener:
    """`accept` gives the next peer, and never fails for want of a descriptor."""

    def __init__(
        self, address: Address, raw: socket.socket, context: ssl.SSLContext | None = None
    ) -> None:
        raw.setblocking(False)
        self.address = address
        self._raw = raw
        self._context = context
        self._closed = False

    @property
    def trusted(self) -> bool:
        """Does the operating system say who comes?"""
        return self.address.path is not None

    async def accept(self) -> socket.socket | None:
        """None: it was closed."""
        while not self._closed:
            try:
                await anyio.wait_readable(self._raw)
            except (anyio.ClosedResourceError, ValueError, OSError):
                break
            try:
                peer, _ = self._raw.accept()
                return peer  # at once: one that is cancelled here would leave it open
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    await anyio.sleep(BUSY_SECONDS)
                # Else a peer that has gone again meanwhile: ECONNABORTED and its kin.
        return None

    async def stream(self, peer: socket.socket) -> UnixStream | RawStream | SecureStream:
        """What is spoken over. Broken when a handshake fails."""
        if self.address.path is not None:
            return UnixStream(peer, descriptors_come=True)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is None:
            return RawStream(peer)
        return await secured(peer, self._context)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._raw)
            self._raw.close()


@asynccontextmanager
async def listen(
    where: Path | Address, context: ssl.SSLContext | None = None
) -> AsyncIterator[Listener]:
    """A listener there. OSError, with the address in it, when there can be none."""
    address = Address(path=where) if isinstance(where, Path) else where
    path = address.path
    with ExitStack() as stack:
        if path is None:
            raw = _bind_tcp(address)
            address = msgspec.structs.replace(address, port=raw.getsockname()[1])
        else:
            stack.enter_context(_locked(path))
            raw = _bind_unix(path)
            stack.callback(path.unlink, missing_ok=True)
        listener = Listener(address, raw, context)
        stack.callback(listener.close)
        yield listener


def _bind_tcp(address: Address) -> socket.socket:
    try:
        family, kind, proto, _, name = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with ExitStack() as stack:
            raw = stack.enter_context(socket.socket(family, kind, proto))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            raw.bind(name)
            raw.listen(BACKLOG)
            stack.pop_all()
            return raw
    except OSError as error:
        raise OSError(f"{address}: {error.strerror or error}") from None


def _bind_unix(path: Path) -> socket.socket:
    """Whoever has the lock may take over a socket that was left behind."""
    if path.exists() and not path.is_socket():
        raise OSError(f"{path}: exists and is no socket")
    path.unlink(missing_ok=True)
    raw = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)  # not for a moment anybody else's
    try:
        raw.bind(os.fspath(path))
        raw.listen(BACKLOG)
    except OSError as error:
        raw.close()
        raise OSError(f"{path}: {error.strerror or error}") from None
    finally:
        os.umask(mask)
    return raw


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The lock beside the socket. The file stays: taken away, two hosts could each have one."""
    lock = path.with_name(path.name + ".lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise OSError(f"{lock}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise OSError(f"{path}: a host is serving there already") from None
    try:
        yield
    finally:
        os.close(fd)


async def connect(
    where: Path | Address, context: ssl.SSLContext | None = None
) -> UnixStream | RawStream | SecureStream:
    """OSError, with the address in it, when nobody serves there."""
    address = Address(path=where) if isinstance(where, Path) else where
    try:
        if address.path is not None:
            return UnixStream(await _connected(socket.AF_UNIX, os.fspath(address.path)))
        family, *_, name = (
            await anyio.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        )[0]
        raw = await _connected(family, name)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return RawStream(raw)
        return await secured(raw, context, address.host)
    except (OSError, Broken) as error:
        text = getattr(error, "strerror", None) or error
        raise OSError(f"{address}: {text}") from None


async def _connected(family: int, name: object) -> socket.socket:
    raw = socket.socket(family)
    raw.setblocking(False)
    try:
        while True:
            try:
                raw.connect(name)  # type: ignore[arg-type]
                return raw
            except BlockingIOError:
                if family == socket.AF_UNIX:  # its queue is full
                    await anyio.sleep(BUSY_SECONDS)
                    continue
                await anyio.wait_writable(raw)
                error = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, os.strerror(error)) from None
                return raw
    except BaseException:
        raw.close()
        raise

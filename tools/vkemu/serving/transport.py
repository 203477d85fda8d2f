"""Byte streams between host and guest: in memory, and unix sockets that can carry a descriptor.

A stream has `send`, `receive` (b"" at the end) and `aclose`. Whatever goes wrong with the other
end is a `Broken`, in a line; the sessions above need to know no more.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn, Protocol

import anyio
from anyio.abc import SocketAttribute, SocketListener, UNIXSocketStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from vkprotocol.messages import Credentials

CHUNK: Final = 65536  # bytes asked of a stream at a time
MEMORY_CHUNKS: Final = 16  # sends an in-memory stream holds before the sender waits
DESCRIPTORS: Final = 1  # the memory image
VANISHED: Final = "vanished without a goodbye"
_UCRED: Final = struct.Struct("iII")


class Broken(Exception):
    """The other end is gone, or did something no stream may; the text says what."""


class Stream(Protocol):
    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        """Some bytes, at least one; b"" at the end."""

    async def aclose(self) -> None: ...


class MemoryStream:
    """One end of a pair in one process."""

    def __init__(
        self,
        outgoing: MemoryObjectSendStream[bytes],
        incoming: MemoryObjectReceiveStream[bytes],
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    async def send(self, data: bytes) -> None:
        try:
            await self._outgoing.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise Broken("the stream is closed") from None

    async def receive(self) -> bytes:
        try:
            return await self._incoming.receive()
        except anyio.EndOfStream:
            return b""
        except anyio.ClosedResourceError:
            raise Broken("the stream is closed") from None

    async def aclose(self) -> None:
        await self._outgoing.aclose()
        await self._incoming.aclose()


def memory_pair() -> tuple[MemoryStream, MemoryStream]:
    """Two streams, each the other's far end."""
    send1, receive1 = anyio.create_memory_object_stream[bytes](MEMORY_CHUNKS)
    send2, receive2 = anyio.create_memory_object_stream[bytes](MEMORY_CHUNKS)
    return MemoryStream(send1, receive2), MemoryStream(send2, receive1)


class UnixStream:
    """A unix socket. With the first bytes, descriptors may come: they are in `descriptors`."""

    def __init__(self, stream: UNIXSocketStream, *, descriptors_come: bool = False) -> None:
        self._stream = stream
        self._descriptors_come = descriptors_come
        self.descriptors: list[int] = []

    async def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        try:
            if descriptors:
                await self._stream.send_fds(data, descriptors)
            else:
                await self._stream.send(data)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            _broken(error)

    async def receive(self) -> bytes:
        try:
            if not self._descriptors_come:
                return await self._stream.receive(CHUNK)
            data, descriptors = await self._stream.receive_fds(CHUNK, DESCRIPTORS)
        except anyio.EndOfStream:
            return b""
        except RuntimeError as error:  # ancillary data that is no descriptor
            raise Broken(str(error)) from None
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            _broken(error)
        self.descriptors += descriptors
        self._descriptors_come = False
        return data

    async def aclose(self) -> None:
        """Close, with the descriptors nobody has taken."""
        while self.descriptors:
            os.close(self.descriptors.pop())
        await self._stream.aclose()

    def peer(self) -> Credentials | None:
        """Who is at the other end, as the operating system says (Linux: SO_PEERCRED)."""
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None:
            return None
        raw = self._stream.extra(SocketAttribute.raw_socket)
        pid, uid, gid = _UCRED.unpack(raw.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
        return Credentials(pid=pid, uid=uid, gid=gid)


def _broken(error: Exception) -> NoReturn:
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, (ConnectionResetError, BrokenPipeError)):
        # What a process leaves that dies before it has read everything.
        raise Broken(VANISHED) from None
    text = cause.strerror if isinstance(cause, OSError) else None
    raise Broken(text or "the stream is closed") from None


@asynccontextmanager
async def listen(path: Path) -> AsyncIterator[SocketListener]:
    """A listener at `path`, for this user only. OSError when one is there already."""
    if await _answers(path):
        raise OSError(f"{path}: a host is serving there already")
    there = anyio.Path(path)
    if await there.exists() and not await there.is_socket():
        raise OSError(f"{path}: exists and is no socket")
    async with await anyio.create_unix_listener(path, mode=0o600) as listener:
        try:
            yield listener
        finally:
            await there.unlink(missing_ok=True)


async def _answers(path: Path) -> bool:
    try:
        stream = await anyio.connect_unix(path)
    except OSError:
        return False
    await stream.aclose()
    return True


async def connect(path: Path) -> UnixStream:
    """OSError, with the path in it, when nobody serves there."""
    try:
        return UnixStream(await anyio.connect_unix(path))
    except OSError as error:
        raise OSError(f"{path}: {error.strerror or error}") from None


async def accept(listener: SocketListener) -> UnixStream:
    stream = await listener.accept()
    assert isinstance(stream, UNIXSocketStream)
    return UnixStream(stream, descriptors_come=True)

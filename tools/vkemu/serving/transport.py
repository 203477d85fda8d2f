"""Byte streams between host and guest: in memory, unix sockets that can carry a descriptor, TCP.

A stream has `send`, `receive` (b"" at the end), `send_now` and `aclose`. Whatever goes wrong with
the other end is a `Broken`, in a line; the sessions above need to know no more.
"""

from __future__ import annotations

import array
import os
import socket
import ssl
import struct
from collections.abc import Sequence
from typing import Final, Protocol

import anyio
from anyio.abc import ByteStream, SocketStream
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from anyio.streams.tls import TLSStream
from vkprotocol.messages import Credentials

CHUNK: Final = 65536  # bytes asked of a stream at a time
VANISHED: Final = "vanished without a goodbye"
_UCRED: Final = struct.Struct("iII")


class Broken(Exception):
    """The other end is gone, or did something no stream may; the text says what."""


class Stream(Protocol):
    async def send(self, data: bytes) -> None: ...

    def send_now(self, data: bytes | bytearray) -> int:
        """Send what can be sent without waiting; how many bytes. Not during a `send`."""
        ...

    async def receive(self) -> bytes:
        """Some bytes, at least one; b"" at the end."""
        ...

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

    def send_now(self, data: bytes | bytearray) -> int:
        return 0

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
    memory_chunks = 16  # sends an in-memory stream holds before the sender waits
    send1, receive1 = anyio.create_memory_object_stream[bytes](memory_chunks)
    send2, receive2 = anyio.create_memory_object_stream[bytes](memory_chunks)
    return MemoryStream(send1, receive2), MemoryStream(send2, receive1)


class RawStream:
    """A socket. It is tried before it is waited for, which saves a request two turns of the event
    loop; what is ready at once costs a checkpoint, so that a peer with much to say holds up nobody.
    """

    def __init__(self, raw: socket.socket) -> None:
        raw.setblocking(False)
        self._raw = raw

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._raw.send(rest) :]
            except BlockingIOError:
                await self._ready(anyio.wait_writable)
            except OSError as error:
                raise _broken(error) from None

    def send_now(self, data: bytes | bytearray) -> int:
        try:
            return self._raw.send(data)
        except OSError:  # whoever sends in earnest, or receives, will say why
            return 0

    async def receive(self) -> bytes:
        waited = False
        while True:
            try:
                data = self._take()
            except BlockingIOError:
                await self._ready(anyio.wait_readable)
                waited = True
            except OSError as error:
                raise _broken(error) from None
            else:
                if not waited:
                    await checkpoint()
                return data

    def _take(self) -> bytes:
        return self._raw.recv(CHUNK)

    async def _ready(self, wait: object) -> None:
        try:
            await wait(self._raw)  # type: ignore[operator]
        except (anyio.ClosedResourceError, anyio.BusyResourceError, OSError, ValueError):
            raise Broken("the stream is closed") from None

    async def aclose(self) -> None:
        if self._raw.fileno() >= 0:
            anyio.notify_closing(self._raw)
            self._raw.close()

    def peer(self) -> Credentials | None:
        """Who is at the other end, as the operating system says. TCP: nobody knows."""
        return None


class UnixStream(RawStream):
    """A unix socket. With the first bytes, descriptors may come: they are in `descriptors`."""

    def __init__(self, raw: socket.socket, *, descriptors_come: bool = False) -> None:
        super().__init__(raw)
        self._descriptors_come = descriptors_come
        self.descriptors: list[int] = []

    async def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        if descriptors:
            while True:
                try:
                    data = data[socket.send_fds(self._raw, [data], descriptors) :]
                    break
                except BlockingIOError:
                    await self._ready(anyio.wait_writable)
                except OSError as error:
                    raise _broken(error) from None
        await super().send(data)

    def _take(self) -> bytes:
        if not self._descriptors_come:
            return self._raw.recv(CHUNK)
        descriptors = 1  # the memory image
        # More than one descriptor, and the kernel keeps the others from us.
        space = socket.CMSG_SPACE(descriptors * struct.calcsize("i"))
        data, ancillary, _, _ = self._raw.recvmsg(CHUNK, space, socket.MSG_CMSG_CLOEXEC)
        self._descriptors_come = False
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(content[: len(content) // found.itemsize * found.itemsize])
                self.descriptors += found
        return data

    async def aclose(self) -> None:
        """Close, with the descriptors nobody has taken."""
        while self.descriptors:
            os.close(self.descriptors.pop())
        await super().aclose()

    def peer(self) -> Credentials | None:
        """Linux: SO_PEERCRED."""
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None:
            return None
        pid, uid, gid = _UCRED.unpack(self._raw.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
        return Credentials(pid=pid, uid=uid, gid=gid)


class SecureStream:
    """TLS, as anyio does it."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise _broken(error) from None

    def send_now(self, data: bytes | bytearray) -> int:
        return 0

    async def receive(self) -> bytes:
        try:
            return await self._stream.receive(CHUNK)
        except anyio.EndOfStream:
            return b""
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise _broken(error) from None

    async def aclose(self) -> None:
        await anyio.aclose_forcefully(self._stream)

    def peer(self) -> Credentials | None:
        return None


async def secured(
    raw: socket.socket, context: ssl.SSLContext, server: str | None = None
) -> SecureStream:
    """After the handshake. `server`: its name, if we are the client. Broken if it fails."""
    stream = await SocketStream.from_socket(raw)
    try:
        tls = await TLSStream.wrap(
            stream, server_side=server is None, hostname=server, ssl_context=context
        )
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        await anyio.aclose_forcefully(stream)
        cause = error if isinstance(error, ssl.SSLError) else error.__cause__
        reason = getattr(cause, "reason", None) or "no handshake"
        raise Broken(f"TLS: {reason}") from None
    return SecureStream(tls)


def _broken(error: Exception) -> Broken:
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, (ConnectionResetError, BrokenPipeError)):
        # What a process leaves that dies before it has read everything.
        return Broken(VANISHED)
    text = cause.strerror if isinstance(cause, OSError) else None
    return Broken(text or "the stream is closed")

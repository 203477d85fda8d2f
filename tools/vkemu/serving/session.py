"""Sessions: what moves messages between a stream and the Mailboxes of kernel threads.

A kernel thread never sees a stream. What it sends into an `Outlet` is bytes on their way before its
step ends; what arrives for it is posted into its Mailbox by the live executor. A session ends in
one line that says why, and never takes anything with it but its own peer.

What is said while steps are taken goes out when the slice of them ends, all of it in one piece and
without a wait where the stream takes it; else the writer does it, which may wait.
"""

from __future__ import annotations

from collections.abc import Callable
from types import coroutine
from typing import Any, Final, TypeAlias

import anyio
from vkprotocol import limits
from vkprotocol.connection import Connection, Role, State
from vkprotocol.effects import Key, Mailbox, Step
from vkprotocol.errno import Errno, errno_name
from vkprotocol.errors import LocalProtocolError, RemoteProtocolError
from vkprotocol.messages import AnyMessage, Goodbye, HelloReply

from vkemu.executors.live import Live
from vkemu.serving.transport import VANISHED, Broken, Stream

UNSENT_BYTES: Final = 1 << 20  # nothing more is read from a peer that has left this much unread

# What a message is to be posted as, if it is for a kernel thread.
Mail: TypeAlias = tuple[Mailbox, Any] | None


class Refused(Exception):
    """The host does not take this guest; it is told errno and reason."""

    def __init__(self, errno: Errno, reason: str) -> None:
        super().__init__(reason)
        self.errno = errno
        self.reason = reason


class Outlet(Mailbox):
    """A Mailbox whose far end is a stream: `send` is the same visible operation, and delivers."""

    __slots__ = ("deliver",)

    def __init__(self, key: Key, deliver: Callable[[Any], None]) -> None:
        super().__init__(key)
        self.deliver = deliver

    @coroutine
    def send(self, message: Any) -> Step:
        yield self._send
        self.deliver(message)


class Session:
    """A Connection on a Stream: the reader in `converse`, the writer beside it."""

    unsent_bytes = UNSENT_BYTES
    outstanding = 64 * limits.OUTSTANDING_PER_LWP

    def __init__(self, live: Live, stream: Stream, role: Role) -> None:
        self.live = live
        self.stream = stream
        self.connection = Connection(role)
        self.reason = ""  # why it ended; empty for an ordinary goodbye
        self.over = False
        self._unsent = bytearray()
        self._more = anyio.Event()
        self._drained = anyio.Event()
        self._reading = anyio.CancelScope()
        self._early: list[AnyMessage] = []
        self._sending = 0  # bytes that the writer has in its hand
        self._to_flush = False

    @property
    def unsent(self) -> int:
        """Bytes on their way, those in the writer's hand included."""
        return len(self._unsent) + self._sending

    def say(self, message: AnyMessage) -> None:
        """Put `message` on its way, unless nobody listens any more. A Goodbye ends it all."""
        state = self.connection.state
        if self.over or state is State.CLOSED:
            return
        if state is State.FAILED and not isinstance(message, Goodbye):
            return  # the peer will hear what it has done wrong, and nothing else
        try:
            self._unsent += self.connection.send(message)
        except LocalProtocolError as error:
            self.failed(error)
            return
        if not self._to_flush:
            self._to_flush = self.live.at_slice_end(self._flush)
            if not self._to_flush:
                self._more.set()
        if isinstance(message, Goodbye):
            self.reason = self.reason or message.reason
            self._reading.cancel()

    def failed(self, error: Exception) -> None:
        """Something here, or in the kernel for this peer, is our bug."""
        raise error

    def _flush(self) -> None:
        self._to_flush = False
        if not self._sending and self._unsent:
            del self._unsent[: self.stream.send_now(self._unsent)]
        if self._unsent:
            self._more.set()
        self._drained.set()

    def hang_up(self, reason: str = "", errno: int = 0) -> None:
        """Say goodbye and end the conversation."""
        self.say(Goodbye(errno, one_line(reason)))

    async def converse(self, hear: Callable[[AnyMessage], Mail]) -> None:
        """Hand every message to `hear` until the conversation ends; `reason` then says why."""
        flush_seconds = 1.0  # for the last words
        async with anyio.create_task_group() as group:
            group.start_soon(self._write)
            try:
                with self._reading:
                    await self._read(hear)
            except Broken as broken:
                self.reason = self.reason or str(broken)
            except RemoteProtocolError as error:
                self.hang_up(str(error), Errno.EBADRPC)
            except Refused as refused:
                self.reason = refused.reason
                self._refuse(refused)
            # The writer may finish, so that the peer hears why; a peer that does not read may not
            # keep us waiting.
            self.over = True
            self._more.set()
            group.cancel_scope.deadline = anyio.current_time() + flush_seconds

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self.stream.aclose()

    def _behind(self) -> bool:
        """Has the peer enough that it has not taken, or that is not answered?"""
        if self.unsent > self.unsent_bytes:
            return True
        return self.connection.unanswered > self.outstanding

    async def _read(self, hear: Callable[[AnyMessage], Mail]) -> None:
        for message in self._early:
            self._deliver([hear(message)])
        while True:
            while self._behind() and not self.over:
                self._drained = anyio.Event()
                await self._drained.wait()
            data = await self.stream.receive()
            goodbye = None
            mail: list[Mail] = []
            for message in self.connection.receive_bytes(data):
                if isinstance(message, Goodbye):
                    goodbye = message
                else:
                    mail.append(hear(message))
            self._deliver(mail)
            if goodbye is not None:
                self.reason = _farewell_text(goodbye)
                return
            if not data:
                self.connection.receive_eof()
                raise Broken(VANISHED)

    def _deliver(self, mail: list[Mail]) -> None:
        posts = [post for post in mail if post is not None]
        if posts:
            self.live.deliver(posts)

    async def _write(self) -> None:
        try:
            while True:
                while self._unsent:
                    data = bytes(self._unsent)
                    self._unsent.clear()
                    self._sending = len(data)
                    await self.stream.send(data)
                    self._sending = 0
                    self._drained.set()
                if self.over:
                    return
                self._more = anyio.Event()
                await self._more.wait()
        except Broken:
            self.over = True  # the reader will find out too, and say why
            self._drained.set()

    def _refuse(self, refused: Refused) -> None:
        reply = HelloReply(
            schema=limits.SCHEMA,
            name="vkemu",
            errno=refused.errno,
            reason=one_line(refused.reason),
        )
        self.say(reply)


def one_line(text: str) -> str:
    """As a message can carry it: one line, of characters that UTF-8 has."""
    text = " ".join(text.split())[: limits.TEXT_CHARS]
    return text.encode(errors="replace").decode()


def _farewell_text(message: Goodbye) -> str:
    if message.errno:
        return f"said goodbye: {errno_name(message.errno)}: {message.reason}"
    return message.reason and f"said goodbye: {message.reason}"

"""Sessions: what moves messages between a stream and the Mailboxes of kernel threads.

A kernel thread never sees a stream. What it sends into an `Outlet` is bytes on their way before its
step ends; what arrives for it is posted into its Mailbox by the live executor. A session ends in
one line that says why, and never takes anything with it but its own peer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import coroutine
from typing import Any, Final, Protocol

import anyio
from vkprotocol import limits
from vkprotocol.connection import Connection, Role, State
from vkprotocol.effects import Key, Mailbox, Step
from vkprotocol.errno import Errno, errno_name
from vkprotocol.errors import RemoteProtocolError
from vkprotocol.messages import AnyMessage, Goodbye, Hello, HelloReply, Reply, Request, Signal

from vkemu.executors.live import Live
from vkemu.serving.transport import VANISHED, Broken, Stream, UnixStream
from vkguest.kern.errors import HostGone

UNSENT_BYTES: Final = 1 << 20  # nothing more is read from a peer that has left this much unread
HELLO_SECONDS: Final = 10.0  # a peer that has not said Hello by then is not a guest
FLUSH_SECONDS: Final = 1.0  # for the last words
GUESTS: Final = 64


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

    def say(self, message: AnyMessage) -> None:
        """Put `message` on its way, unless nobody listens any more. A Goodbye ends it all."""
        if not self.over and self.connection.state is not State.CLOSED:
            self._unsent += self.connection.send(message)
            self._more.set()
            if isinstance(message, Goodbye):
                self.reason = self.reason or message.reason
                self._reading.cancel()

    def hang_up(self, reason: str = "", errno: int = 0) -> None:
        """Say goodbye and end the conversation."""
        self.say(Goodbye(errno, reason[: limits.TEXT_CHARS]))

    async def converse(self, hear: Callable[[AnyMessage], None]) -> None:
        """Hand every message to `hear` until the conversation ends; `reason` then says why."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._write)
            try:
                with self._reading:
                    await self._read(hear)
            except Broken as broken:
                self.reason = str(broken)
            except RemoteProtocolError as error:
                self.hang_up(str(error), Errno.EBADRPC)
            except Refused as refused:
                self.reason = refused.reason
                self._refuse(refused)
            # The writer may finish, so that the peer hears why; a peer that does not read may not
            # keep us waiting.
            self.over = True
            self._more.set()
            group.cancel_scope.deadline = anyio.current_time() + FLUSH_SECONDS

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            await self.stream.aclose()

    async def _read(self, hear: Callable[[AnyMessage], None]) -> None:
        for message in self._early:
            hear(message)
        while True:
            while len(self._unsent) > UNSENT_BYTES and not self.over:
                self._drained = anyio.Event()
                await self._drained.wait()
            data = await self.stream.receive()
            goodbye = None
            for message in self.connection.receive_bytes(data):
                if isinstance(message, Goodbye):
                    goodbye = message
                else:
                    hear(message)
            if goodbye is not None:
                self.reason = _farewell_text(goodbye)
                return
            if not data:
                self.connection.receive_eof()
                raise Broken(VANISHED)

    async def _write(self) -> None:
        try:
            while True:
                while self._unsent:
                    data = bytes(self._unsent)
                    self._unsent.clear()
                    self._drained.set()
                    await self.stream.send(data)
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
            reason=refused.reason[: limits.TEXT_CHARS],
        )
        self.say(reply)


def _farewell_text(message: Goodbye) -> str:
    if message.errno:
        return f"said goodbye: {errno_name(message.errno)}: {message.reason}"
    return message.reason and f"said goodbye: {message.reason}"


class Vcpu(Protocol):
    """What a session needs of a host lwp: where its requests go and its replies come from."""

    requests: Mailbox
    replies: Mailbox


class Guest(Protocol):
    """An admitted guest: a host process."""

    @property
    def pid(self) -> int: ...

    @property
    def lwps(self) -> Sequence[Vcpu]: ...


class Host(Protocol):
    """What sessions need of a host. Nothing here awaits: threads are spawned, mail is posted."""

    name: str

    def admit(self, hello: Hello, image: int | None, session: HostSession) -> Guest:
        """A process for this guest, whose lwps reply to `session.say`. Takes `image` over.

        Raises Refused.
        """

    def release(self, guest: Guest) -> None:
        """The guest is gone: end its lwps wherever they are, and give back what it held."""


class HostSession(Session):
    """One guest, seen from the host."""

    def __init__(self, live: Live, stream: Stream, host: Host) -> None:
        super().__init__(live, stream, Role.HOST)
        self.host = host
        self.guest: Guest | None = None
        self.name = "a peer"

    async def run(self) -> str:
        """Serve one guest to its end, and say in a line how it went."""
        try:
            with anyio.move_on_after(HELLO_SECONDS) as waiting:
                self._waiting = waiting
                await self.converse(self._hear)
            if waiting.cancelled_caught:
                self.reason = f"no Hello within {HELLO_SECONDS:g} s"
        finally:
            await self.close()
            if self.guest is not None:
                self.host.release(self.guest)
        return f"{self.name}: {self.reason or 'done'}"

    def _hear(self, message: AnyMessage) -> None:
        if isinstance(message, Request):
            assert self.guest is not None
            self.live.post(self.guest.lwps[message.lwp].requests, message)
        elif isinstance(message, Hello):
            self._waiting.deadline = float("inf")
            self._admit(message)

    def _admit(self, hello: Hello) -> None:
        self.name = repr(hello.name)
        if hello.schema != limits.SCHEMA:
            raise Refused(
                Errno.EPROTONOSUPPORT, f"schema {hello.schema}, this host speaks {limits.SCHEMA}"
            )
        image = None
        if isinstance(self.stream, UnixStream):
            peer = self.stream.peer()
            said = hello.credentials
            if peer is not None and (peer.uid, peer.gid) != (said.uid, said.gid):
                raise Refused(Errno.EPERM, f"runs as uid {peer.uid}, not {said.uid}")
            if hello.image and self.stream.descriptors:
                image = self.stream.descriptors.pop()
        if hello.image and image is None:
            raise Refused(Errno.EBADF, "the descriptor of the memory image did not come")
        self.guest = self.host.admit(hello, image, self)
        self.say(HelloReply(schema=limits.SCHEMA, name=self.host.name, proc=self.guest.pid))


class GuestSession(Session):
    """The host, seen from one guest: a pair of Mailboxes for every virtual CPU."""

    def __init__(self, live: Live, stream: Stream, hello: Hello) -> None:
        super().__init__(live, stream, Role.GUEST)
        self.hello = hello
        self.requests = [Outlet(("requests", n), self._ask) for n in range(hello.vcpus)]
        self.replies = [Mailbox(("replies", n)) for n in range(hello.vcpus)]
        self.signals = Mailbox("signals")
        self.unanswered = 0  # requests under way

    def _ask(self, request: Any) -> None:
        self.unanswered += 1
        self.say(request)

    async def greet(self, image: int | None = None) -> HelloReply:
        """Say Hello, with the descriptor of the memory image if there is one. HostGone if refused.

        The host may send on at once: what came with its answer is kept for `run`.
        """
        try:
            data = self.connection.send(self.hello)
            if image is None:
                await self.stream.send(data)
            else:
                assert isinstance(self.stream, UnixStream)
                await self.stream.send(data, [image])
            while not self._early:
                data = await self.stream.receive()
                self._early += self.connection.receive_bytes(data)
                if not data:
                    raise Broken(VANISHED)
        except (Broken, RemoteProtocolError) as error:
            raise HostGone(f"the host {error}") from None
        reply = self._early.pop(0)
        if isinstance(reply, Goodbye):
            raise HostGone(f"the host {_farewell_text(reply)}")
        assert isinstance(reply, HelloReply)
        if reply.errno:
            raise HostGone(f"the host refuses: {errno_name(reply.errno)}: {reply.reason}")
        return reply

    async def run(self) -> None:
        """Deliver replies until `hang_up`; if the host ends first, stop the guest: HostGone."""
        try:
            await self.converse(self._hear)
        finally:
            await self.close()
        if self.connection.last_word is not Role.GUEST:
            self.live.stop(HostGone(f"the host {self.reason or 'said goodbye'}"))

    def _hear(self, message: AnyMessage) -> None:
        if isinstance(message, Reply):
            self.unanswered -= 1
            self.live.post(self.replies[message.lwp], message)
        elif isinstance(message, Signal):
            self.live.post(self.signals, message)

"""One guest, seen from the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import anyio
from vkprotocol import limits
from vkprotocol.connection import Role
from vkprotocol.effects import Mailbox
from vkprotocol.errno import Errno
from vkprotocol.messages import (
    AnyMessage,
    Goodbye,
    Hello,
    HelloReply,
    Reply,
    Request,
    Status,
    StatusQuery,
)

from vkemu.executors.live import Live
from vkemu.executors.run_queue import Account
from vkemu.serving.session import Mail, Refused, Session
from vkemu.serving.transport import Stream, UnixStream

HELLO_SECONDS: Final = 10.0  # a peer that has not said Hello by then is not a guest


class Vcpu(Protocol):
    """What a session needs of a host lwp: where its requests go and its replies come from."""

    requests: Mailbox
    replies: Mailbox
    closed: bool  # it receives nothing any more


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
        """A process for this guest, whose lwps reply to `session.say`. Takes `image` over, unless
        it raises what is not Refused. Raises Refused."""
        ...

    def release(self, guest: Guest) -> None:
        """The guest is gone: end its lwps wherever they are, and give back what it held."""
        ...

    def status(self, form: str) -> bytes:
        """How it does, in the form asked for. Raises Refused."""
        ...

    def bug(self, who: str, error: Exception) -> str:
        """Report what is vkemu's own fault; the line that the peer hears."""
        ...


class HostSession(Session):
    """From the first byte of a peer to its last. `token`: what it must know, if anything."""

    def __init__(self, live: Live, stream: Stream, host: Host, token: bytes = b"") -> None:
        super().__init__(live, stream, Role.HOST)
        self.host = host
        self.token = token
        self.guest: Guest | None = None
        self.account: Account | None = None  # whose turns its threads take
        self.name = "a peer"
        self.asked = False  # it was but a question
        self.requests = 0
        self.heard_at = anyio.current_time()
        self.since = self.heard_at
        self._waiting = anyio.CancelScope()

    @property
    def greeted(self) -> bool:
        return self.guest is not None

    async def run(self) -> str:
        """Serve one guest to its end, and say in a line how it went."""
        try:
            with anyio.move_on_after(HELLO_SECONDS) as self._waiting:
                await self.converse(self._hear_or_fail)
            if self._waiting.cancelled_caught:
                self.reason = f"no Hello within {HELLO_SECONDS:g} s"
        except Exception as error:
            self.reason = self.host.bug(self.name, error)
        finally:
            await self.close()
            if self.guest is not None:
                self.host.release(self.guest)
        return "" if self.asked else f"{self.name}: {self.reason or 'done'}"

    def failed(self, error: Exception) -> None:
        self.hang_up(self.host.bug(self.name, error), Errno.EIO)

    def _hear_or_fail(self, message: AnyMessage) -> Mail:
        try:
            return self._hear(message)
        except Refused:
            raise
        except Exception as error:
            self.failed(error)
            return None

    def _hear(self, message: AnyMessage) -> Mail:
        if isinstance(message, Request):
            assert self.guest is not None
            self.requests += 1
            self.heard_at = self.live.now
            lwp = self.guest.lwps[message.lwp]
            if lwp.closed:
                self.say(Reply(lwp=message.lwp, seq=message.seq, errno=int(Errno.ESRCH)))
                return None
            return lwp.requests, message
        if isinstance(message, Hello):
            self._waiting.deadline = float("inf")
            self._admit(message)
        elif isinstance(message, StatusQuery):
            self._tell_status(message)
        return None

    def _admit(self, hello: Hello) -> None:
        self.name = repr(hello.name)
        if hello.schema != limits.SCHEMA:
            raise Refused(
                Errno.EPROTONOSUPPORT, f"schema {hello.schema}, this host speaks {limits.SCHEMA}"
            )
        self._check_token(hello.token)
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

    def _check_token(self, token: str) -> None:
        """In a time that does not depend on how much of it is right."""
        from hmac import compare_digest

        if self.token and not compare_digest(token.encode(errors="replace"), self.token):
            raise Refused(Errno.EACCES, "not the token of this host")

    def _tell_status(self, query: StatusQuery) -> None:
        try:
            self._check_token(query.token)
            content = self.host.status(query.form)
        except Refused as refused:
            self.hang_up(refused.reason, refused.errno)
            return
        self.asked = True
        for at in range(0, len(content), limits.IO_BYTES):
            end = at + limits.IO_BYTES
            self.say(Status(part=content[at:end], more=end < len(content)))
        self.say(Goodbye())

"""One connection, without I/O: bytes to messages, messages to bytes, and who may say what when.

Rule 1: whatever depends on the state of the conversation is in this file and in TRANSITIONS.
Rule 2: an illegal `send` raises LocalProtocolError and nothing has happened.
Rule 3: whatever bytes a peer sends, the worst that comes of it is RemoteProtocolError.

    NEW     guest: Hello                      -> GREETED
    NEW     guest: StatusQuery                -> ASKED
    ASKED   host: Status, as often as it has parts -> ASKED
    GREETED host: HelloReply, errno 0         -> OPEN
    GREETED host: HelloReply, errno           -> CLOSED
    OPEN    guest: requests                   -> OPEN     each answered once, in order per lwp
    OPEN    host: Reply, Signal               -> OPEN
    any     either: Goodbye                   -> CLOSED
    any     the peer breaks the rules         -> FAILED   we may still say Goodbye, to tell it why

After our last word the peer's messages on their way are dropped unread; after the peer's last word
there is nothing more to read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, NoReturn, get_args

from msgspec import Struct

from vkprotocol import limits
from vkprotocol.codec import BIN32, HEADER, decode, frame
from vkprotocol.errors import LocalProtocolError, RemoteProtocolError
from vkprotocol.messages import (
    AnyMessage,
    AnyRequest,
    Goodbye,
    Hello,
    HelloReply,
    Reply,
    Request,
    Signal,
    Status,
    StatusQuery,
    ToGuest,
    ToHost,
)


class Role(Enum):
    __hash__ = object.__hash__  # these three are looked up twice a message; Enum's own is slow

    HOST = "host"
    GUEST = "guest"


class State(Enum):
    __hash__ = object.__hash__

    NEW = "new"
    ASKED = "asked"
    GREETED = "greeted"
    OPEN = "open"
    CLOSED = "closed"
    FAILED = "failed"


class Kind(Enum):
    __hash__ = object.__hash__

    HELLO = "Hello"
    QUERY = "StatusQuery"
    STATUS = "Status"
    WELCOME = "HelloReply of errno 0"
    REFUSAL = "HelloReply with an errno"
    REQUEST = "a request"
    REPLY = "Reply"
    SIGNAL = "Signal"
    GOODBYE = "Goodbye"


TRANSITIONS: Final[dict[tuple[State, Role], dict[Kind, State]]] = {
    (State.NEW, Role.GUEST): {
        Kind.HELLO: State.GREETED,
        Kind.QUERY: State.ASKED,
        Kind.GOODBYE: State.CLOSED,
    },
    (State.NEW, Role.HOST): {Kind.GOODBYE: State.CLOSED},
    (State.ASKED, Role.GUEST): {Kind.GOODBYE: State.CLOSED},
    (State.ASKED, Role.HOST): {Kind.STATUS: State.ASKED, Kind.GOODBYE: State.CLOSED},
    (State.GREETED, Role.GUEST): {Kind.GOODBYE: State.CLOSED},
    (State.GREETED, Role.HOST): {
        Kind.WELCOME: State.OPEN,
        Kind.REFUSAL: State.CLOSED,
        Kind.GOODBYE: State.CLOSED,
    },
    (State.OPEN, Role.GUEST): {Kind.REQUEST: State.OPEN, Kind.GOODBYE: State.CLOSED},
    (State.OPEN, Role.HOST): {
        Kind.REPLY: State.OPEN,
        Kind.SIGNAL: State.OPEN,
        Kind.GOODBYE: State.CLOSED,
    },
    (State.FAILED, Role.GUEST): {Kind.GOODBYE: State.CLOSED},
    (State.FAILED, Role.HOST): {Kind.GOODBYE: State.CLOSED},
}
_NOTHING: Final[dict[Kind, State]] = {}
# What nearly all is that they say, when OPEN: it leaves the state as it is.
USUAL: Final = {Role.GUEST: Kind.REQUEST, Role.HOST: Kind.REPLY}


_KINDS: Final[dict[type[Any], Kind]] = {
    Hello: Kind.HELLO,
    StatusQuery: Kind.QUERY,
    Status: Kind.STATUS,
    Goodbye: Kind.GOODBYE,
    Signal: Kind.SIGNAL,
    Reply: Kind.REPLY,
    **dict.fromkeys(get_args(AnyRequest), Kind.REQUEST),
}


def kind_of(message: AnyMessage) -> Kind:
    kind = _KINDS.get(type(message))
    if kind is None:
        assert isinstance(message, HelloReply)
        return Kind.REFUSAL if message.errno else Kind.WELCOME
    return kind


class ConnectionStatistics(Struct, frozen=True):
    state: State
    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    bytes_waiting: int
    outstanding: int


class Connection:
    """One end of a conversation.

    Invariant: every entry of `_outstanding` is the seqs of one lwp's unanswered requests, oldest
    first, at most OUTSTANDING_PER_LWP of them and all different.
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        self.peer = Role.GUEST if role is Role.HOST else Role.HOST
        self.state = State.NEW
        self.hello: Hello | None = None
        self.last_word: Role | None = None  # who closed the connection
        self.unanswered = 0  # requests
        self._outstanding: list[deque[int]] = []
        self._union = ToHost if role is Role.HOST else ToGuest
        self._buffer = bytearray()
        self._offset = 0  # of _buffer's first byte in the stream
        self._sent = [0, 0]
        self._received = 0

    def send(self, message: AnyMessage) -> bytes:
        """The bytes that say `message`. LocalProtocolError when it may not be said (now)."""
        sent = frame(message)
        wrong = self._take(self.role, message)
        if wrong is not None:
            raise LocalProtocolError(f"{self.role.value}: expected {wrong}, not {_name(message)}")
        self._sent[0] += 1
        self._sent[1] += len(sent)
        return sent

    def receive_bytes(self, data: bytes | bytearray) -> Iterator[AnyMessage]:
        """Take what the peer sent, however it was cut, and iterate the messages now complete.

        The iterator raises RemoteProtocolError at the first thing wrong, after the messages before
        it. What is not iterated stays and comes first next time.
        """
        if self.last_word is self.role:
            self._offset += len(data)
            return iter(())
        if len(self._buffer) + len(data) > limits.RECEIVE_BYTES:
            raise LocalProtocolError(
                f"{len(self._buffer) + len(data)} bytes unread, at most {limits.RECEIVE_BYTES}"
            )
        self._buffer += data
        return self._messages()

    def receive_eof(self) -> None:
        """The peer's stream ended; RemoteProtocolError when in the middle of a frame."""
        if self.state is State.FAILED or self.last_word is self.role:
            return
        if self._buffer:
            missing = "the rest of a frame" if self._buffer[0] == BIN32 else "a frame (0xc6)"
            self._fail(self._offset, missing, f"{len(self._buffer)} bytes and the end")
        self.state = State.CLOSED
        self.last_word = self.last_word or self.peer

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(
            state=self.state,
            messages_sent=self._sent[0],
            messages_received=self._received,
            bytes_sent=self._sent[1],
            bytes_received=self._offset + len(self._buffer),
            bytes_waiting=len(self._buffer),
            outstanding=self.unanswered,
        )

    def _messages(self) -> Iterator[AnyMessage]:
        buffer, header = self._buffer, HEADER.size
        while buffer and self.last_word is not self.role:
            if self.state is State.FAILED:
                self._fail(self._offset, "nothing, the connection failed before", "more bytes")
            if self.state is State.CLOSED:
                self._fail(self._offset, "nothing after the last word", f"{len(buffer)} bytes")
            if buffer[0] != BIN32:
                self._fail(self._offset, "a frame (0xc6)", f"{buffer[0]:#04x}")
            if len(buffer) < header:
                return
            end = header + HEADER.unpack_from(buffer)[1]
            if end > header + limits.FRAME_BYTES:
                expected = f"a frame of at most {limits.FRAME_BYTES} bytes"
                self._fail(self._offset + 1, expected, f"one of {end - header}")
            if len(buffer) < end:
                return
            try:
                message = decode(buffer[header:end], self._union)
            except ValueError as error:
                self._fail(self._offset + header, self._awaited(), str(error))
            wrong = self._take(self.peer, message)
            if wrong is not None:
                self._fail(self._offset + header, wrong, _name(message))
            del buffer[:end]
            self._offset += end
            self._received += 1
            yield message

    def _take(self, speaker: Role, message: Any) -> str | None:
        """Let it be said. What was expected in its place, and nothing has happened, if it is out of
        place."""
        kind = _KINDS.get(type(message)) or kind_of(message)
        if kind is USUAL[speaker] and self.state is State.OPEN:
            return self._take_turn(kind, message.lwp, message.seq)
        state = TRANSITIONS.get((self.state, speaker), _NOTHING).get(kind)
        if state is None:
            return self._awaited(speaker)
        if kind is Kind.SIGNAL and message.lwp >= len(self._outstanding):
            return f"an lwp below {len(self._outstanding)}"
        self.state = state
        if kind is Kind.HELLO:
            self.hello = message
            self._outstanding = [deque() for _ in range(message.vcpus)]
        elif state is State.CLOSED:
            self.last_word = speaker
        return None

    def _take_turn(self, kind: Kind, lwp: int, seq: int) -> str | None:
        """`_take` of a request or a reply."""
        if lwp >= len(self._outstanding):
            return f"an lwp below {len(self._outstanding)}"
        seqs = self._outstanding[lwp]
        if kind is Kind.REPLY:
            if not seqs:
                return f"no reply to lwp {lwp}, which waits for none"
            if seqs[0] != seq:
                return f"the reply to request {seqs[0]} of lwp {lwp}"
            seqs.popleft()
            self.unanswered -= 1
            return None
        if len(seqs) >= limits.OUTSTANDING_PER_LWP:
            return f"at most {limits.OUTSTANDING_PER_LWP} requests of an lwp unanswered"
        if seq in seqs:
            return f"another seq than {seq}, which waits for its reply"
        seqs.append(seq)
        self.unanswered += 1
        return None

    def _awaited(self, speaker: Role | None = None) -> str:
        kinds = TRANSITIONS.get((self.state, speaker or self.peer), _NOTHING)
        return " or ".join(kind.value for kind in kinds) or f"nothing, it is {self.state.value}"

    def _fail(self, offset: int, expected: str, got: str) -> NoReturn:
        self.state = State.FAILED
        raise RemoteProtocolError(offset, expected, got)


def _name(message: AnyMessage) -> str:
    if isinstance(message, (Request, Reply)):
        return f"{type(message).__name__} {message.seq} of lwp {message.lwp}"
    return type(message).__name__

"""The conversation: who may say what when, however the bytes are cut and whatever they are."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkprotocol import limits
from vkprotocol.codec import decode, frame
from vkprotocol.connection import TRANSITIONS, Connection, Kind, Role, State
from vkprotocol.errors import LocalProtocolError, RemoteProtocolError
from vkprotocol.messages import (
    AnyMessage,
    Exit,
    Goodbye,
    Hello,
    HelloReply,
    Kill,
    Reply,
    Request,
    Signal,
    Status,
    StatusQuery,
)

from tests.protocol.examples import EXAMPLES
from tests.protocol.strategies import MESSAGES, REQUESTS, message_of, messages

HELLO = EXAMPLES["hello"]
WELCOME = EXAMPLES["hello_reply"]
REFUSED = EXAMPLES["hello_reply.refused"]


def said(*conversation: tuple[Role, AnyMessage]) -> tuple[Connection, Connection]:
    """Host's and guest's ends after the conversation."""
    host, guest = Connection(Role.HOST), Connection(Role.GUEST)
    for speaker, message in conversation:
        ours, theirs = (host, guest) if speaker is Role.HOST else (guest, host)
        assert list(theirs.receive_bytes(ours.send(message))) == [message]
    return host, guest


def opened() -> tuple[Connection, Connection]:
    return said((Role.GUEST, HELLO), (Role.HOST, WELCOME))


# A second, dumber account of the rules: the whole history each time, no tables.
def legal(history: list[tuple[Role, AnyMessage]], speaker: Role, message: AnyMessage) -> bool:
    spoken = [type(m) for _, m in history]
    refused = any(isinstance(m, HelloReply) and m.errno for _, m in history)
    if Goodbye in spoken or refused:
        return False
    if isinstance(message, Goodbye):
        return True
    if isinstance(message, Hello):
        return speaker is Role.GUEST and not history
    if isinstance(message, HelloReply):
        return speaker is Role.HOST and spoken == [Hello]
    if isinstance(message, StatusQuery):
        return speaker is Role.GUEST and not history
    if isinstance(message, Status):
        return speaker is Role.HOST and spoken[:1] == [StatusQuery]
    if HelloReply not in spoken:
        return False
    vcpus = next(m.vcpus for _, m in history if isinstance(m, Hello))
    if message.lwp >= vcpus:
        return False
    if isinstance(message, Signal):
        return speaker is Role.HOST
    mine = [m for _, m in history if getattr(m, "lwp", None) == message.lwp]
    asked = [m.seq for m in mine if isinstance(m, Request)]
    waiting = asked[sum(isinstance(m, Reply) for m in mine) :]
    if isinstance(message, Reply):
        return speaker is Role.HOST and waiting[:1] == [message.seq]
    return (
        speaker is Role.GUEST
        and len(waiting) < limits.OUTSTANDING_PER_LWP
        and message.seq not in waiting
    )


_lwps = st.integers(0, 3)
_seqs = st.integers(0, 2)
_likely = st.one_of(
    st.builds(Exit, lwp=_lwps, seq=_seqs),
    st.builds(Reply, lwp=_lwps, seq=_seqs),
    st.builds(Signal, _lwps, st.just(1)),
    st.builds(Exit, lwp=st.just(0), seq=st.integers(0, 20)),
    st.just(REFUSED),
    st.just(HELLO),
    st.just(WELCOME),
    st.builds(Goodbye),
    st.just(StatusQuery()),
    st.just(Status(part=b"how it does")),
)
_lines = st.tuples(st.sampled_from(Role), _likely)


@pytest.mark.slow
@given(st.booleans(), st.lists(_lines, max_size=30))
def test_the_table_is_the_rules(welcomed: bool, lines: list[tuple[Role, AnyMessage]]) -> None:
    history: list[tuple[Role, AnyMessage]] = []
    if welcomed:
        history = [(Role.GUEST, HELLO), (Role.HOST, WELCOME)]
    host, guest = said(*history)
    for speaker, message in lines:
        ours, theirs = (host, guest) if speaker is Role.HOST else (guest, host)
        if legal(history, speaker, message):
            assert list(theirs.receive_bytes(ours.send(message))) == [message]
            assert ours.state is theirs.state
            history.append((speaker, message))
        else:
            before = ours.statistics()
            with pytest.raises(LocalProtocolError):
                ours.send(message)
            assert ours.statistics() == before


@pytest.mark.slow
@given(st.booleans(), st.lists(_lines, max_size=12), st.booleans())
def test_what_we_may_not_send_the_peer_may_not_accept(
    welcomed: bool, lines: list[tuple[Role, AnyMessage]], to_host: bool
) -> None:
    history: list[tuple[Role, AnyMessage]] = []
    if welcomed:
        history = [(Role.GUEST, HELLO), (Role.HOST, WELCOME)]
    host, guest = said(*history)
    receiver, speaker = (host, Role.GUEST) if to_host else (guest, Role.HOST)
    for message in (m for who, m in lines if who is speaker):
        to_hosts = (*REQUESTS, Hello, StatusQuery)
        right_way = isinstance(message, Goodbye) or (type(message) in to_hosts) is to_host
        if right_way and legal(history, speaker, message):
            assert list(receiver.receive_bytes(frame(message))) == [message]
            history.append((speaker, message))
        else:
            before = receiver.statistics()
            with pytest.raises(RemoteProtocolError) as caught:
                list(receiver.receive_bytes(frame(message)))
            assert before.bytes_received <= caught.value.offset <= before.bytes_received + 5
            assert receiver.state is State.FAILED
            return


def outcome(receiver: Connection, chunks: list[bytes]) -> tuple[list[AnyMessage], str]:
    """Everything a connection made of a stream: its messages and how it ended."""
    received: list[AnyMessage] = []
    try:
        for chunk in chunks:
            for message in receiver.receive_bytes(chunk):
                received.append(message)  # noqa: PERF402 - keeps what came before an error
        receiver.receive_eof()
    except RemoteProtocolError as error:
        return received, str(error)
    return received, receiver.state.value


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(n % (len(stream) + 1) for n in cuts)})
    return [stream[a:b] for a, b in pairwise(edges)]


_requests = st.sampled_from(REQUESTS).flatmap(message_of)


@pytest.mark.slow
@given(st.lists(_requests, max_size=6), st.binary(max_size=12), st.lists(st.integers(0, 1 << 16)))
def test_cutting_the_stream_elsewhere_changes_nothing(
    requests: list[Any], rest: bytes, cuts: list[int]
) -> None:
    stream = b"".join(map(frame, requests)) + rest
    whole, one_by_one, anyhow = (opened()[0] for _ in range(3))

    expected = outcome(whole, [stream])

    assert outcome(one_by_one, [bytes([byte]) for byte in stream]) == expected
    assert outcome(anyhow, cut(stream, cuts)) == expected
    for other in (one_by_one, anyhow):
        assert other.statistics().messages_received == whole.statistics().messages_received
        assert other.statistics().outstanding == whole.statistics().outstanding


@pytest.mark.slow
@given(st.sampled_from(Role), st.booleans(), st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_at_all_are_at_worst_the_peers_error(
    role: Role, welcomed: bool, chunks: list[bytes]
) -> None:
    host, guest = opened() if welcomed else said()
    outcome(host if role is Role.HOST else guest, chunks)


@pytest.mark.slow
@given(
    st.sampled_from(Role),
    st.booleans(),
    st.lists(st.one_of(messages().map(frame), st.binary(max_size=9)), max_size=8),
    st.data(),
)
def test_changed_streams_are_at_worst_the_peers_error(
    role: Role, welcomed: bool, pieces: list[bytes], data: Any
) -> None:
    host, guest = opened() if welcomed else said()
    stream = bytearray(b"".join(pieces))
    if stream:
        for _ in range(data.draw(st.integers(0, 4))):
            stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    receiver = host if role is Role.HOST else guest
    received, _ = outcome(receiver, [bytes(stream)])

    assert all(type(message) in MESSAGES for message in received)
    assert receiver.statistics().bytes_waiting <= len(stream)


@pytest.mark.parametrize(
    ("stream", "offset", "expected", "got"),
    [
        (b"GET / HTTP/1.1\r\n", 0, "a frame (0xc6)", "0x47"),
        (b"\xc6\xff\xff\xff\xff", 1, "a frame of at most 262144 bytes", "one of 4294967295"),
        (b"\xc6\x00\x00\x00\x00", 5, "Hello or StatusQuery or Goodbye", "Input data was truncated"),
        (frame(Goodbye()) + b"\xc6", 19, "nothing after the last word", "1 bytes"),
        (frame(EXAMPLES["kill"]), 5, "Hello or StatusQuery or Goodbye", "Kill 16 of lwp 0"),
        (
            frame(EXAMPLES["reply"]),
            5,
            "Hello or StatusQuery or Goodbye",
            "Invalid value 'reply' - at `$.type`",
        ),
        (b"\xc6\x00\x00", 0, "the rest of a frame", "3 bytes and the end"),
        (
            b"\xc6\x00\x04\x93\xe0" + b"\x91" * 300_000,
            1,
            "a frame of at most 262144 bytes",
            "one of 300000",
        ),
        (
            b"\xc6\x00\x03\x00\x00" + (b"\x82\xa1x" + b"\x91" * 0x2FFFD),
            5,
            "Hello or StatusQuery or Goodbye",
            "nested too deep",
        ),
    ],
)
def test_an_error_says_where_and_what(stream: bytes, offset: int, expected: str, got: str) -> None:
    host, _ = said()
    _, end = outcome(host, [stream])

    assert end == f"byte {offset}: expected {expected}, got {got}"
    assert host.state is State.FAILED


def test_bytes_after_a_failure_are_refused_too() -> None:
    host, _ = said()
    assert outcome(host, [b"?"])[1].startswith("byte 0: expected a frame")
    assert outcome(host, [frame(HELLO)])[1].startswith("byte 0: expected nothing, the connection")


def test_the_one_who_failed_is_told_why() -> None:
    host, guest = opened()
    assert outcome(host, [frame(HELLO)])[0] == []

    farewell = host.send(Goodbye(72, "byte 110: expected a request or Goodbye, got Hello"))

    assert [type(m) for m in guest.receive_bytes(farewell)] == [Goodbye]
    assert guest.last_word is Role.HOST
    assert list(host.receive_bytes(b"whatever else is on its way")) == []
    host.receive_eof()
    with pytest.raises(LocalProtocolError):
        host.send(Goodbye())


def test_messages_on_their_way_when_we_say_goodbye_are_dropped() -> None:
    host, guest = opened()
    late = guest.send(Exit(lwp=0, seq=0))
    host.send(Goodbye())

    assert list(host.receive_bytes(late)) == []
    host.receive_eof()
    assert host.state is State.CLOSED


def test_a_goodbye_said_between_two_messages_of_a_chunk_ends_the_reading() -> None:
    host, guest = opened()
    chunk = guest.send(Exit(lwp=0, seq=0)) + guest.send(Exit(lwp=1, seq=0))
    received = []
    for message in host.receive_bytes(chunk):
        received.append(message)
        host.send(Goodbye())

    assert received == [Exit(lwp=0, seq=0)]


def test_what_is_not_iterated_comes_first_next_time() -> None:
    host, guest = opened()
    host.receive_bytes(guest.send(Exit(lwp=0, seq=0)))

    assert list(host.receive_bytes(guest.send(Exit(lwp=1, seq=0)))) == [
        Exit(lwp=0, seq=0),
        Exit(lwp=1, seq=0),
    ]


def test_vanishing_is_not_an_error_but_no_goodbye_either() -> None:
    host, guest = opened()
    host.receive_eof()

    assert (host.state, host.last_word) == (State.CLOSED, Role.GUEST)
    with pytest.raises(LocalProtocolError, match="nothing, it is closed"):
        host.send(Signal(0, 1))
    assert guest.state is State.OPEN


def test_requests_outstanding_on_both_sides_of_the_bound() -> None:
    host, guest = opened()
    for seq in range(limits.OUTSTANDING_PER_LWP):
        list(host.receive_bytes(guest.send(Exit(lwp=0, seq=seq))))
    one_more = Exit(lwp=0, seq=limits.OUTSTANDING_PER_LWP)

    with pytest.raises(LocalProtocolError, match="at most 8 requests"):
        guest.send(one_more)
    guest.send(Exit(lwp=1, seq=0))
    list(guest.receive_bytes(host.send(Reply(lwp=0, seq=0))))
    guest.send(one_more)
    list(host.receive_bytes(frame(one_more)))
    with pytest.raises(RemoteProtocolError, match="at most 8 requests"):
        list(host.receive_bytes(frame(Exit(lwp=0, seq=9))))


def test_replies_come_in_the_order_of_the_requests() -> None:
    host, guest = opened()
    for seq in (1, 2):
        list(host.receive_bytes(guest.send(Exit(lwp=0, seq=seq))))

    with pytest.raises(LocalProtocolError, match="the reply to request 1 of lwp 0"):
        host.send(Reply(lwp=0, seq=2))
    with pytest.raises(RemoteProtocolError, match="the reply to request 1 of lwp 0"):
        list(guest.receive_bytes(frame(Reply(lwp=0, seq=2))))


def test_unread_bytes_on_both_sides_of_the_bound() -> None:
    host, _ = said()
    host.receive_bytes(b"\xc6" * limits.RECEIVE_BYTES)
    with pytest.raises(LocalProtocolError, match="bytes unread"):
        host.receive_bytes(b"\xc6")


@pytest.mark.parametrize(("size", "fits"), [(0, True), (1, False)])
def test_frame_size_on_both_sides_of_the_bound(size: int, fits: bool) -> None:
    host, _ = said()
    header = b"\xc6" + (limits.FRAME_BYTES + size).to_bytes(4, "big")
    if fits:
        assert list(host.receive_bytes(header)) == []
    else:
        with pytest.raises(RemoteProtocolError, match="at most"):
            list(host.receive_bytes(header))


def test_a_replys_value_reaches_the_one_who_asked() -> None:
    host, guest = opened()
    asked = list(host.receive_bytes(guest.send(Kill(1, 15, lwp=0, seq=7))))
    answered = list(guest.receive_bytes(host.send(Reply(lwp=0, seq=7, value=-1))))

    assert asked == [Kill(1, 15, lwp=0, seq=7)]
    assert answered == [Reply(lwp=0, seq=7, value=-1)]
    assert host.statistics().messages_received == 2
    assert guest.statistics().messages_sent == 2
    assert guest.statistics().outstanding == 0


def test_the_table_has_no_dead_ends() -> None:
    for (state, _), kinds in TRANSITIONS.items():
        assert kinds.get(Kind.GOODBYE) is State.CLOSED, state
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.CLOSED}


def test_a_stream_is_messagepack_to_any_reader() -> None:
    guest = Connection(Role.GUEST)
    unpacker = msgpack.Unpacker(max_bin_len=limits.FRAME_BYTES)
    unpacker.feed(guest.send(HELLO) + guest.send(Goodbye()))

    assert [decode(payload) for payload in unpacker] == [HELLO, Goodbye()]

"""Sessions and streams: guests come, misbehave, vanish; the host and the others go on."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.executors.live import Live
from vkemu.serving import host_session as sessions
from vkemu.serving.guest_session import GuestSession
from vkemu.serving.host_session import HostSession
from vkemu.serving.transport import memory_pair
from vkprotocol import limits
from vkprotocol.codec import frame
from vkprotocol.connection import Connection, Role
from vkprotocol.messages import (
    AnyMessage,
    Exit,
    Goodbye,
    HelloReply,
    Madvise,
    Reply,
    Signal,
)

from tests.serving.serving import ASK, GREETING, Serving, guest, running, serving
from tests.serving.stub import asking, hello
from vkguest.kern.errors import HostGone

backends = pytest.mark.parametrize("backend", BACKENDS)


def on_both(test: Callable[..., Awaitable[None]]) -> Any:
    """Run an async test on every backend."""

    @backends
    def both(backend: str) -> None:
        on_backend(backend, test)

    return both


@on_both
async def test_guests_are_served_and_leave() -> None:
    async with serving() as host:
        one = await guest(host.dial(), hello("one"), 5)
        two = await guest(host.dial(), hello("two", vcpus=3), 5)
        await anyio.wait_all_tasks_blocked()

        assert one == [1, 2, 3, 4, 5]
        assert sorted(two) == list(range(6, 21))
        assert host.lines == ["'one': done", "'two': done"]
        assert host.host.released == [1, 2]
        assert all(thread.done for thread in list(host.live.threads.values())[1:])


@on_both
async def test_guests_at_the_same_time() -> None:
    answers: list[int] = []

    async def one(host: Serving, n: int) -> None:
        answers.extend(await guest(host.dial(), hello(f"guest{n}", vcpus=2), 10))

    async with serving() as host, anyio.create_task_group() as group:
        for n in range(4):
            group.start_soon(one, host, n)

    assert sorted(answers) == list(range(1, 81))


@backends
@pytest.mark.parametrize(
    ("stream", "line"),
    [
        (b"", "a peer: vanished without a goodbye"),
        (b"GET / HTTP/1.1\r\n", r"a peer: byte 0: expected a frame \(0xc6\), got 0x47"),
        (GREETING, "'bad': vanished without a goodbye"),
        (GREETING[:-1], r"a peer: byte 0: expected the rest of a frame, got \d+ bytes and the end"),
        (GREETING + GREETING, r"'bad': byte \d+: expected a request or Goodbye, got Hello"),
        (GREETING + b"\xc6\xff\xff\xff\xff", r"'bad': byte \d+: expected a frame of at most .*"),
        (GREETING + ASK + ASK[:-1], r"'bad': byte \d+: expected the rest of a frame, got .*"),
        (GREETING + frame(Exit(lwp=1, seq=0)), r"'bad': byte \d+: expected an lwp below 1, got .*"),
        (GREETING + ASK * 2, r"'bad': byte \d+: expected another seq than 1, which waits .*"),
        (GREETING + frame(Goodbye()), "'bad': done"),
        (GREETING + frame(Goodbye(0, "enough")), "'bad': said goodbye: enough"),
        (GREETING + frame(Goodbye(5, "disk")), "'bad': said goodbye: EIO: disk"),
        (GREETING + frame(Goodbye()) + b"x", r"'bad': byte \d+: expected nothing after the .*"),
    ],
    ids=range(13),
)
def test_a_bad_peer_takes_nobody_with_it(backend: str, stream: bytes, line: str) -> None:
    async def main() -> None:
        async with serving() as host:
            good: list[int] = []

            async def good_guest() -> None:
                good.extend(await guest(host.dial(), hello("good"), 30))

            host.group.start_soon(good_guest)
            bad = host.dial()
            if stream:
                await bad.send(stream)
            await anyio.wait_all_tasks_blocked()
            await bad.aclose()
            await anyio.wait_all_tasks_blocked()

            ending = next(text for text in host.lines if text != "'good': done")
            assert re.fullmatch(line, ending)
            assert "'good': done" in host.lines
            assert len(good) == 30
            assert sorted(host.host.released) == [g.pid for g in host.host.guests]
            assert await guest(host.dial(), hello("next"), 1) != []

    on_backend(backend, main)


@on_both
async def test_the_peer_hears_what_it_did_wrong() -> None:
    async with serving() as host:
        stream = host.dial()
        end = Connection(Role.GUEST)
        await stream.send(end.send(hello("bad")))
        assert [type(m) for m in end.receive_bytes(await stream.receive())] == [HelloReply]
        await stream.send(b"nonsense")
        (farewell,) = end.receive_bytes(await stream.receive())
        await stream.aclose()

    assert isinstance(farewell, Goodbye)
    assert farewell.errno == 72
    assert farewell.reason.endswith("expected a frame (0xc6), got 0x6e")


@on_both
async def test_refusals_say_why() -> None:
    async with serving() as host:
        with pytest.raises(HostGone, match=r"EPROTONOSUPPORT: schema 2, this host speaks 1"):
            await guest(host.dial(), hello(schema=2), 1)
        with pytest.raises(HostGone, match=r"EBADF: the descriptor of the memory image"):
            await guest(host.dial(), hello(image=True), 1)
        host.host.guests_max = 0
        with pytest.raises(HostGone, match=r"the host refuses: EPROCLIM: 0 guests are all"):
            await guest(host.dial(), hello(), 1)

        await anyio.wait_all_tasks_blocked()
        assert host.host.released == []
        assert len(host.lines) == 3


async def test_a_silent_peer_is_not_waited_for(autojump_clock: Any) -> None:
    async with serving() as host:
        stream = host.dial()
        began = anyio.current_time()
        assert await stream.receive() == b""
        await stream.aclose()

        assert anyio.current_time() - began == pytest.approx(sessions.HELLO_SECONDS)
        assert host.lines == ["a peer: no Hello within 10 s"]


async def test_a_guest_may_be_silent_after_its_hello(autojump_clock: Any) -> None:
    async with serving() as host:
        stream = host.dial()
        await stream.send(frame(hello()))
        await anyio.sleep(100 * sessions.HELLO_SECONDS)

        assert host.lines == []
        await stream.aclose()


async def test_a_peer_that_does_not_read_is_not_read_from(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostSession, "unsent_bytes", 100)
    async with serving() as host:
        stream = host.dial()
        await stream.send(frame(hello()))
        sent = 0
        with anyio.move_on_after(5):
            while True:
                requests = (Madvise(0, 1, 0, lwp=0, seq=sent + n) for n in range(8))
                await stream.send(b"".join(map(frame, requests)))
                sent += 8
                await anyio.wait_all_tasks_blocked()

        # What is held is bounded: our stream, the session's buffer, and its writer's hand.
        assert host.host.sum.value < 8 * 40
        assert sent < 8 * 80
        await stream.aclose()
        await anyio.wait_all_tasks_blocked()
        assert host.host.released == [1]


@on_both
async def test_hanging_up_ends_a_session_from_our_side() -> None:
    async with serving() as host:
        near, far = memory_pair()
        session = HostSession(host.live, far, host.host)

        async def serve() -> None:
            host.lines.append(await session.run())

        host.group.start_soon(serve)
        live = Live(time_scale=1.0)
        there = GuestSession(live, near, hello())
        await there.greet()

        async def waits() -> None:
            await there.replies[0].recv()

        live.spawn("vcpu0", waits())
        with pytest.raises(HostGone, match="the host said goodbye: the host shuts down"):
            async with running(live, there):
                session.hang_up("the host shuts down")
        await anyio.wait_all_tasks_blocked()

        assert host.lines == ["'guest': the host shuts down"]
        assert host.host.released == [1]


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (b"", "the host vanished without a goodbye"),
        (b"\x00", "the host byte 0: expected a frame"),
        (frame(Goodbye(16, "full")), "the host said goodbye: EBUSY: full"),
        (frame(Reply(lwp=0, seq=0)), "the host byte 5: expected HelloReply of errno 0 or"),
    ],
    ids=["nothing", "garbage", "goodbye", "reply"],
)
@backends
def test_no_welcome_is_said_plainly(backend: str, words: bytes, gone: str) -> None:
    async def main() -> None:
        near, far = memory_pair()

        async def answer() -> None:
            await far.receive()
            if words:
                await far.send(words)
            await far.aclose()

        session = GuestSession(Live(time_scale=1.0), near, hello())
        async with anyio.create_task_group() as group:
            group.start_soon(answer)
            with pytest.raises(HostGone, match=gone):
                await session.greet()
        await session.close()

    on_backend(backend, main)


@on_both
async def test_a_host_that_vanishes_ends_the_guest() -> None:
    near, far = memory_pair()
    await far.send(frame(HelloReply(schema=limits.SCHEMA, name="host")) + frame(Signal(0, 15)))
    live = Live(time_scale=1.0)
    session = GuestSession(live, near, hello())
    await session.greet()
    signals: list[AnyMessage] = []

    async def waits() -> None:
        signals.append(await session.signals.recv())
        await session.replies[0].recv()

    live.spawn("vcpu0", waits())
    with pytest.raises(HostGone, match="the host vanished without a goodbye"):
        async with running(live, session):
            await far.aclose()

    assert signals == [Signal(0, 15)]


@on_both
async def test_a_host_that_breaks_the_rules_ends_the_guest() -> None:
    near, far = memory_pair()
    await far.send(frame(HelloReply(schema=limits.SCHEMA, name="host")))
    live = Live(time_scale=1.0)
    session = GuestSession(live, near, hello())
    await session.greet()
    live.spawn("vcpu0", asking(session, 0, 1, []))
    await far.send(frame(Reply(lwp=0, seq=7)))
    with pytest.raises(HostGone, match="got Reply 7 of lwp 0"):
        async with running(live, session):
            await far.receive()  # the Hello
    await far.aclose()

"""A stub host that serves while a test talks to it, and whole guests to talk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from vkemu.executors.live import Live
from vkemu.serving.guest_session import GuestSession
from vkemu.serving.host_session import HostSession
from vkemu.serving.transport import MemoryStream, Stream, memory_pair
from vkprotocol.codec import frame
from vkprotocol.effects import Mailbox
from vkprotocol.messages import Hello, Madvise

from tests.serving.stub import StubHost, asking, hello
from vkguest.kern.errors import HostGone

GREETING = frame(hello("bad"))
ASK = frame(Madvise(0, 1, 0, lwp=0, seq=1))


class Serving:
    """A host that runs while the test talks to it, and the last line of each session."""

    def __init__(self) -> None:
        self.live = Live(time_scale=1.0)
        self.host = StubHost(self.live)
        self.lines: list[str] = []
        self.shutdown = Mailbox("shutdown")
        self.group = anyio.create_task_group()

    async def serve(self, stream: Stream) -> None:
        self.lines.append(await HostSession(self.live, stream, self.host).run())

    def dial(self) -> MemoryStream:
        near, far = memory_pair()
        self.group.start_soon(self.serve, far)
        return near


@asynccontextmanager
async def serving() -> AsyncIterator[Serving]:
    host = Serving()

    async def wait() -> None:
        await host.shutdown.recv()

    host.live.spawn("listener", wait())
    async with host.group:
        with host.live.source():
            host.group.start_soon(host.live.run)
            yield host
            host.live.post(host.shutdown, None)


async def guest(stream: Stream, words: Hello, times: int, image: int | None = None) -> list[int]:
    """A whole guest: greet, ask on every virtual CPU, leave."""
    live = Live(time_scale=1.0)
    session = GuestSession(live, stream, words)
    answers: list[int] = []
    try:
        await session.greet(image)
    except HostGone:
        await session.close()
        raise
    for n in range(words.vcpus):
        live.spawn(f"vcpu{n}", asking(session, n, times, answers))
    async with anyio.create_task_group() as group:
        with live.source():
            group.start_soon(session.run)
            await live.run()
        session.hang_up()
    return answers


@asynccontextmanager
async def running(live: Live, session: GuestSession) -> AsyncIterator[None]:
    """Inside, the guest runs; leaving waits for its end and raises it without a group."""
    errors: list[BaseException] = []

    async def run() -> None:
        try:
            with live.source():
                await live.run()
        except HostGone as gone:
            errors.append(gone)

    async with anyio.create_task_group() as group:
        group.start_soon(session.run)
        group.start_soon(run)
        yield
    if errors:
        raise errors[0]

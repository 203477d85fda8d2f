"""A host of a few lines, to test sessions without a kernel: it answers, counts, and lets go."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from vkemu.executors.live import Live
from vkemu.serving.guest_session import GuestSession
from vkemu.serving.host_session import HostSession
from vkemu.serving.session import Outlet, Refused
from vkprotocol.effects import Cell, Mailbox
from vkprotocol.errno import Errno
from vkprotocol.limits import SCHEMA
from vkprotocol.messages import AnyMessage, Credentials, Hello, Madvise, Reply

from vkguest.vkernel64.port import MailboxPort


class StubLwp:
    def __init__(self, n: int, say: Callable[[AnyMessage], None]) -> None:
        self.n = n
        self.closed = False
        self.requests = Mailbox(("requests", n))
        self.replies: Mailbox = Outlet(("replies", n), say)


class StubGuest:
    def __init__(self, pid: int, vcpus: int, say: Callable[[AnyMessage], None]) -> None:
        self.pid = pid
        self.lwps = [StubLwp(n, say) for n in range(vcpus)]


class StubHost:
    """Answers every request with the sum of what it was asked so far, over all guests."""

    name = "stub"

    def __init__(self, live: Live, guests_max: int = 8) -> None:
        self.live = live
        self.guests_max = guests_max
        self.sum = Cell("sum", 0)
        self.guests: list[StubGuest] = []
        self.released: list[int] = []
        self.images: list[bytes] = []

    def admit(self, hello: Hello, image: int | None, session: HostSession) -> StubGuest:
        if len(self.guests) >= self.guests_max:
            raise Refused(Errno.EPROCLIM, f"{self.guests_max} guests are all this host takes")
        if image is not None:
            self.images.append(os.pread(image, 100, 0))
            os.close(image)
        guest = StubGuest(len(self.guests) + 1, hello.vcpus, session.say)
        self.guests.append(guest)
        for lwp in guest.lwps:
            self.live.spawn(f"lwp{guest.pid}.{lwp.n}", self._serve(lwp), daemon=True)
        return guest

    async def _serve(self, lwp: StubLwp) -> None:
        while (request := await lwp.requests.recv()) is not None:
            before = await self.sum.add(request.length)
            reply = Reply(lwp=lwp.n, seq=request.seq, value=before + request.length)
            await lwp.replies.send(reply)

    def status(self, form: str) -> bytes:
        return form.encode()

    def bug(self, who: str, error: Exception) -> str:
        raise error

    def release(self, guest: Any) -> None:
        self.released.append(guest.pid)
        for lwp in guest.lwps:
            self.live.post(lwp.requests, None)


def hello(name: str = "guest", vcpus: int = 1, **fields: Any) -> Hello:
    credentials = Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())
    values = {"schema": SCHEMA, "credentials": credentials, "memory": 4096, **fields}
    return Hello(name=name, vcpus=vcpus, **values)


async def asking(session: GuestSession, lwp: int, times: int, answers: list[int]) -> None:
    """A virtual CPU that asks for 1, `times` times."""
    port = MailboxPort(session.requests[lwp], session.replies[lwp])
    for seq in range(times):
        reply = await port.call(Madvise(0, 1, 0, lwp=lwp, seq=seq))
        answers.append(reply.value)

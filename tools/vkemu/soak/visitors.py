"""Who comes to a host that is soaked: guests with drawn programs, some killed, and peers that are
none. Each visit is drawn from a seed; when what happens in it is the event loop's."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import Final

import anyio
from vkprotocol.codec import frame
from vkprotocol.connection import Connection, Role
from vkprotocol.limits import SCHEMA
from vkprotocol.messages import Credentials, Hello, Reply, Sysctl
from vkprotocol.param import PAGE_SIZE

from vkemu.executors.deadlock import Deadlock
from vkemu.executors.live import Live
from vkemu.serving.guest_session import GuestSession, run_guest
from vkemu.serving.transport import Broken, Stream
from vkguest.kern.errors import GuestPanic, HostGone
from vkguest.kernel import Vkernel
from vkguest.vkernel64.port import MailboxPort
from vkguest.workloads import workload

PAGES: Final = (64, 96, 128)  # of a guest's memory
ENDED: Final = "ran to its end"

Dial = Callable[[], Stream]


def greeting(name: str, pages: int, vcpus: int) -> Hello:
    credentials = Credentials(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())
    return Hello(
        schema=SCHEMA, name=name, credentials=credentials, memory=pages * PAGE_SIZE, vcpus=vcpus
    )


async def visit(random: Random, name: str, dial: Dial) -> tuple[str, list[str]]:
    """One visitor: what became of it in a word or two, and what it found wrong."""
    kinds = ("guest", "guest", "guest", "killed", "killed", "garbage")
    kind = random.choice(kinds)
    if kind == "garbage":
        await send_garbage(random, name, dial())
        return "sent garbage", []
    kill_seconds = 1.0  # within which a guest that is to be killed dies
    seconds = random.uniform(0, kill_seconds) if kind == "killed" else float("inf")
    with anyio.move_on_after(seconds):
        return await be_guest(random, name, dial())
    return "killed", []


async def send_garbage(random: Random, name: str, stream: Stream) -> None:
    """Noise, a greeting with a byte changed, or a guest that turns to noise, half a greeting."""
    hello = bytearray(frame(greeting(name, PAGES[0], 1)))
    garbage_bytes = 512
    noise = random.randbytes(random.randrange(1, garbage_bytes))
    spoilt = bytearray(hello)
    spoilt[random.randrange(len(spoilt))] ^= random.randrange(1, 256)
    said = random.choice((noise, spoilt, hello + noise, hello[: random.randrange(len(hello))]))
    try:
        await stream.send(bytes(said))
        with anyio.move_on_after(random.uniform(0, 0.1)):  # or hangs up at once
            while await stream.receive():
                pass
    except Broken:
        pass
    finally:
        await stream.aclose()


async def be_guest(random: Random, name: str, stream: Stream) -> tuple[str, list[str]]:
    vcpus = random.choice((1, 1, 2))
    beside = ("touch", "forkcow", "hog:pages=8,rounds=2", "pipe", "mmapper")
    programs = [
        workload(f"random:ops={random.randrange(4, 24)},seed={random.getrandbits(32)}"),
        workload(random.choice(beside)),
    ]
    pages = random.choice(PAGES)
    live = Live(time_scale=1.0)
    session = GuestSession(live, stream, greeting(name, pages, vcpus))
    try:
        try:
            reply = await session.greet()
            vkernel = Vkernel(
                lambda cpuid: MailboxPort(session.requests[cpuid], session.replies[cpuid]),
                memory_pages=pages,
                programs=programs,
                spawn=live.spawn,
                vcpus=vcpus,
                name=name,
                proc=reply.proc,
                image_fd=reply.fd,
            )
        except BaseException:
            await session.close()
            raise
        await run_guest(live, session, vkernel)
    except HostGone as gone:
        return ("out of memory" if "ENOMEM" in str(gone) else "sent away"), []
    except (GuestPanic, Deadlock) as error:
        return "failed", [f"{name}: {type(error).__name__}: {error}"]
    finally:
        live.close()
    if vkernel.boot_error is not None:
        return "did not boot", []
    return ENDED, [f"{name}: {wrong}" for wrong in vkernel.failed]


class Probe:
    """A guest that does nothing but ask for a sysctl now and then: how long is a quiet one kept?"""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._end = Connection(Role.GUEST)
        self._seq = 0

    async def greet(self) -> None:
        await self._stream.send(self._end.send(greeting("probe", PAGES[0], 1)))
        await self._hear()

    async def ask(self) -> float:
        """Seconds that an answer took."""
        began = anyio.current_time()
        self._seq += 1
        probed = "vm.v_free_min"
        await self._stream.send(self._end.send(Sysctl(probed, lwp=0, seq=self._seq)))
        while not isinstance(await self._hear(), Reply):
            pass
        return anyio.current_time() - began

    async def _hear(self) -> object:
        """Raises Broken when the host is gone."""
        while True:
            data = await self._stream.receive()
            for message in self._end.receive_bytes(data):
                return message
            if not data:
                raise Broken("the host has let the probe go")

    async def aclose(self) -> None:
        await self._stream.aclose()

"""The real host behind a socket: guests in other processes, guests that die, the commands."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.executors.live import Live
from vkemu.launch.assemble import Machine, assemble
from vkemu.launch.outcome import FAILURES
from vkemu.launch.scenario import Guest, Host, QuirkTable, Scenario
from vkemu.serving.address import connect, listen
from vkemu.serving.guest_session import GuestSession
from vkemu.serving.server import Server
from vkemu.serving.transport import MemoryStream, Stream, UnixStream, memory_pair
from vkprotocol import insn
from vkprotocol.codec import frame
from vkprotocol.connection import Connection, Role
from vkprotocol.errno import Errno
from vkprotocol.insn import Trapframe
from vkprotocol.messages import (
    AnyMessage,
    AnyRequest,
    CpuOps,
    Exit,
    Goodbye,
    HelloReply,
    Kill,
    Mmap,
    Reply,
    Sysctl,
    VmspaceCreate,
    VmspaceCtl,
    VmspaceDestroy,
)
from vkprotocol.mman import MAP_SHARED, PROT_READ, PROT_WRITE

from tests.serving.stub import hello
from vkguest.kernel import Vkernel
from vkguest.vkernel64.port import MailboxPort
from vkguest.workloads import workload
from vkhost.kern.panic import Panic
from vkhost.kern.proc import idle_cpus

backends = pytest.mark.parametrize("backend", BACKENDS)
HOST = Scenario(name="serve", host=Host(pages=400, cpus=3), guest=())
PAGES = 512


class Served:
    def __init__(
        self, path: Path, machine: Machine, server: Server, lines: list[str], group: TaskGroup
    ) -> None:
        self.path = path
        self.group = group
        self.machine = machine
        self.kernel = machine.kernel
        self.server = server
        self.lines = lines

    def dial(self) -> MemoryStream:
        near, far = memory_pair()
        self.group.start_soon(self.server.serve, far)
        return near

    async def told(self, count: int) -> None:
        """Until so many guests have gone, and their processes with them."""
        while len(self.lines) < count or any(not proc.zombie for proc in self.kernel.procs):
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def serving(path: Path, scenario: Scenario = HOST, **options: Any) -> AsyncIterator[Served]:
    live = Live(time_scale=1.0)
    machine = assemble(scenario, None, live)
    lines: list[str] = []
    if options.get("on_violation") == "guest":
        options |= {"blame": machine.oracle.blame, "failures": FAILURES}
    options |= {"forget": machine.oracle.forget}
    server = Server(live, machine.kernel, lines.append, **options)
    async with listen(path) as listener, anyio.create_task_group() as group:
        group.start_soon(server.run, listener)
        yield Served(path, machine, server, lines, group)
        server.shutdown()
    if not server.containment.violations:
        machine.oracle.finish()
    live.close()


class Peer:
    """A guest by hand: one request at a time."""

    def __init__(self, stream: UnixStream) -> None:
        self.stream = stream
        self.end = Connection(Role.GUEST)
        self.seq = 0
        self.heard: list[AnyMessage] = []

    async def hear(self) -> AnyMessage:
        while not self.heard:
            data = await self.stream.receive()
            self.heard += self.end.receive_bytes(data)
            assert data or self.heard, "the host is gone"
        return self.heard.pop(0)

    async def greet(self, image: int | None = None, **fields: Any) -> HelloReply:
        words = hello(image=image is not None, **{"memory": PAGES * 4096, **fields})
        await self.stream.send(self.end.send(words), [] if image is None else [image])
        reply = await self.hear()
        assert isinstance(reply, HelloReply)
        return reply

    async def ask(self, kind: type[Any], *args: Any, lwp: int = 0) -> Reply:
        await self.put(kind(*args, lwp=lwp, seq=self.seq))
        reply = await self.hear()
        assert isinstance(reply, Reply)
        return reply

    async def put(self, request: AnyRequest) -> None:
        self.seq += 1
        await self.stream.send(self.end.send(request))


@asynccontextmanager
async def peer(path: Path) -> AsyncIterator[Peer]:
    stream = await connect(path)
    assert isinstance(stream, UnixStream)
    try:
        yield Peer(stream)
    finally:
        await stream.aclose()


async def whole_guest(stream: Stream, name: str, specs: list[str], vcpus: int) -> Vkernel:
    live = Live(time_scale=1.0)
    session = GuestSession(live, stream, hello(name, vcpus, memory=PAGES * 4096))
    reply = await session.greet()
    vkernel = Vkernel(
        lambda n: MailboxPort(session.requests[n], session.replies[n]),
        memory_pages=PAGES,
        programs=[workload(spec) for spec in specs],
        spawn=live.spawn,
        vcpus=vcpus,
        name=name,
        proc=reply.proc,
    )
    vkernel.start()
    async with anyio.create_task_group() as group:
        group.start_soon(session.run)
        with live.source():
            await live.run()
        session.hang_up()
    live.close()
    return vkernel


SPECS = ["touch:pages=2,rounds=2", "forkcow"]


@pytest.mark.slow
@backends
@pytest.mark.parametrize("wire", ["memory", "unix"])
def test_a_guest_finds_the_same_over_the_wire_as_in_process(
    backend: str, wire: str, tmp_path: Path
) -> None:
    alone = Guest(name="g1", memory="2M", vcpus=2, workloads=tuple(SPECS))
    live = Live()
    machine = assemble(
        Scenario(name="in", host=Host(pages=400, cpus=2), guest=(alone,)), None, live
    )
    on_backend(backend, live.run)
    live.close()

    async def main() -> dict[int, Any]:
        async with serving(tmp_path / "host") as served:
            stream = await connect(served.path) if wire == "unix" else served.dial()
            vkernel = await whole_guest(stream, "g1", SPECS, 2)
            await served.told(1)
        assert served.lines == ["'g1': done"]
        return vkernel.results

    assert on_backend(backend, main) == machine.guests[0].results
    assert len(machine.guests[0].results) == 3


@pytest.mark.slow
@backends
def test_guests_that_break_leave_the_others_and_the_host_alone(
    backend: str, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path / "host") as served:
            free = served.kernel.vmstats.v_free_count.value
            good: list[Vkernel] = []

            async def good_guest() -> None:
                good.append(await whole_guest(served.dial(), "good", SPECS, 1))

            async with anyio.create_task_group() as group:
                group.start_soon(good_guest)
                for last in (b"garbage", frame(Exit(lwp=5, seq=0)), b"\xc6\x00", b""):
                    # One at a time: there are three CPUs.
                    while len(idle_cpus(served.kernel)) < 2:
                        await anyio.lowlevel.checkpoint()
                    async with peer(served.path) as bad:
                        await bad.greet(name="bad", vcpus=2)
                        await map_and_touch(bad)
                        # And one CPU is somewhere in user mode when we go.
                        await bad.put(endless_run(lwp=1, seq=bad.seq))
                        if last:
                            await bad.stream.send(last)
            await served.told(5)

            assert sorted(good[0].results) == [1, 2, 201]
            assert good[0].failed == []
            assert served.lines.count("'good': done") == 1
            assert all("\n" not in line for line in served.lines)
            assert served.kernel.vmstats.v_free_count.value == free
            assert served.server.sessions == {}

    on_backend(backend, main)


async def map_and_touch(guest: Peer) -> None:
    """Some of everything a host process can hold."""
    rw = PROT_READ | PROT_WRITE
    mapped = await guest.ask(Mmap, 0, 16 * 4096, rw, MAP_SHARED, 3, 0)
    ops = tuple(insn.store(mapped.value + n * 4096, n) for n in range(16))
    assert (await guest.ask(CpuOps, ops)).errno == 0
    assert (await guest.ask(VmspaceCreate, 0x1000)).errno == 0


def endless_run(lwp: int, seq: int) -> VmspaceCtl:
    loop = Trapframe(text=(insn.beq(0, 0, 0),))
    return VmspaceCtl(0x1000, 1, loop, lwp=lwp, seq=seq)


@backends
def test_a_request_gets_its_errno_and_its_value(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "host") as served, peer(served.path) as guest:
            assert (await guest.greet(vcpus=1)).errno == 0
            assert (await guest.ask(Sysctl, "vm.vkernel_enable")).value == 1
            assert (await guest.ask(Sysctl, "vm.no_such_thing")).errno == Errno.ENOENT
            assert (await guest.ask(VmspaceDestroy, 5)).errno == Errno.EINVAL
            assert (await guest.ask(VmspaceCreate, 5)).errno == 0
            assert (await guest.ask(VmspaceCreate, 5)).errno == Errno.EEXIST
            assert (await guest.ask(VmspaceDestroy, 5)).errno == 0
            assert (await guest.ask(CpuOps, (insn.load(8),))).errno == Errno.EFAULT
            assert (await guest.ask(Exit, 0)).errno == 0
            await guest.stream.send(guest.end.send(Goodbye()))
            await served.told(1)
            assert served.lines == ["'guest': done"]

    on_backend(backend, main)


@backends
def test_refusals_of_the_real_host(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "host") as served:
            async with peer(served.path) as guest:
                reply = await guest.greet(vcpus=4)
                assert (reply.errno, reply.reason) == (Errno.EAGAIN, "fewer than 4 idle CPUs")
            for make, errno in ((read_only, Errno.EACCES), (short, Errno.EINVAL)):
                async with peer(served.path) as guest:
                    fd = make(tmp_path)
                    reply = await guest.greet(fd)
                    os.close(fd)
                    assert reply.errno == errno, reply.reason
            async with peer(served.path) as guest:
                reading, writing = os.pipe()
                assert (await guest.greet(reading)).errno == Errno.ENODEV
                os.close(reading)
                os.close(writing)
            async with peer(served.path) as guest:
                assert (await guest.greet(vcpus=3)).errno == 0

    on_backend(backend, main)


def read_only(folder: Path) -> int:
    (folder / "read-only").write_bytes(bytes(PAGES * 4096))
    return os.open(folder / "read-only", os.O_RDONLY)


def short(folder: Path) -> int:
    (folder / "short").write_bytes(bytes(PAGES * 4096 - 1))
    return os.open(folder / "short", os.O_RDWR)


@backends
def test_two_guests_of_one_name(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "host") as served:
            async with peer(served.path) as one, peer(served.path) as two:
                await one.greet(name="twin")
                await two.greet(name="twin")
                names = [proc.name for proc in served.kernel.procs]
            assert names == ["twin", "twin-2"]
            await served.told(2)
            async with peer(served.path) as three:
                pid = (await three.greet(name="twin")).proc
                assert [proc.name for proc in served.kernel.procs] == ["twin-2", "twin-3"]
            assert pid == 102

    on_backend(backend, main)


@backends
def test_an_image_that_fails_costs_its_guest_only(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(fd: int, content: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    async def main() -> None:
        async with serving(tmp_path / "host") as served:
            async with peer(served.path) as guest:
                await guest.greet()
                await map_and_touch(guest)
                monkeypatch.setattr(os, "pwrite", no_space)
                image = served.kernel.procs[0].files[3].vnode
                image.pwrite(0, b"x")
                assert await guest.hear() == Goodbye(
                    Errno.EIO, "the memory image: No space left on device"
                )
            monkeypatch.undo()
            await served.told(1)
            assert served.lines == ["'guest': the memory image: No space left on device"]

    on_backend(backend, main)


@backends
def test_a_signal_ends_a_run(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "host") as served, peer(served.path) as guest:
            await guest.greet(vcpus=2)
            await guest.ask(VmspaceCreate, 0x1000)
            await guest.put(endless_run(lwp=1, seq=99))
            await guest.ask(Sysctl, "vm.vkernel_enable")  # by then it runs
            await guest.put(Kill(1, 30, lwp=0, seq=5))
            replies = [await guest.hear(), await guest.hear()]
            ended = next(m for m in replies if isinstance(m, Reply) and m.seq == 99)

            assert ended.errno == Errno.EINTR
            assert ended.frame is not None

    on_backend(backend, main)


@backends
def test_what_panics_the_real_host_panics_this_one(backend: str, tmp_path: Path) -> None:
    """One EBUSY leaks a reference, and the guest's exit takes everybody down (W22)."""

    async def once(quirks: QuirkTable) -> None:
        # Not the check that sees the leak before it does harm.
        host = Host(pages=400, cpus=3)
        scenario = Scenario(name="w22", host=host, quirks=quirks, checks=("free-frame",), guest=())
        async with serving(tmp_path / "host", scenario) as served:
            async with peer(served.path) as guest:
                await guest.greet(vcpus=2)
                await guest.ask(VmspaceCreate, 0x1000)
                await guest.put(endless_run(lwp=1, seq=99))
                await guest.ask(Sysctl, "vm.vkernel_enable")
                assert (await guest.ask(VmspaceDestroy, 0x1000)).errno == Errno.EBUSY
            await served.told(1)

    async def as_it_is() -> None:
        panic = pytest.RaisesExc(Panic, match="rb_vmspace_delete: invalid refs")
        with pytest.RaisesGroup(panic, flatten_subgroups=True):
            await once(QuirkTable(ebusy_ref_leak=True))

    async def as_it_should_be() -> None:
        await once(QuirkTable(ebusy_ref_leak=False))

    on_backend(backend, as_it_should_be)
    on_backend(backend, as_it_is)

"""What would hang for ever ends, in a line that says who waits for what."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from vkemu.commands.serve import Serving, Stopped
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.executors.deadlock import Deadlock
from vkemu.executors.hung_task import PATIENT, STILL, HungTasks
from vkemu.executors.live import Live
from vkemu.launch.assemble import assemble
from vkemu.serving.address import listen
from vkemu.serving.server import Server
from vkprotocol.effects import Cell, Lock, Mailbox
from vkprotocol.errno import Errno
from vkprotocol.messages import Goodbye, Mmap
from vkprotocol.mman import MAP_SHARED, PROT_READ

from tests.serving.test_commands import command, serve_command
from tests.serving.test_server import HOST, Peer, peer

backends = pytest.mark.parametrize("backend", BACKENDS)
DEADLOCKED = """
li r1, 1
li r0, sys.pipe
syscall
addi r1, r0, 0
li r0, sys.pipe_read
syscall
"""


def watched() -> tuple[Live, HungTasks, Mailbox]:
    """A live execution with a source, in which one thread waits for mail."""
    live = Live(time_scale=1.0)
    hung = live.hung_tasks = HungTasks(live)
    mail: Mailbox = Mailbox("mail")
    hung.fed.add(mail)

    async def wait() -> None:
        while await mail.recv() is not None:
            pass

    live.spawn("init", wait())
    return live, hung, mail


def embrace(live: Live) -> None:
    """Two threads, each with a lock that the other wants."""
    a, b, met = Lock("a"), Lock("b"), Cell("met", 0)

    async def take(first: Lock, second: Lock) -> None:
        await first.acquire()
        await met.add(1)
        await met.wait(lambda n: n == 2)
        await second.acquire()

    live.spawn("one", take(a, b))
    live.spawn("other", take(b, a))


async def test_two_that_wait_for_each_other_are_found(autojump_clock: Any) -> None:
    live, _, _ = watched()
    embrace(live)
    with live.source(), pytest.raises(Deadlock) as raised:
        await live.run()
    live.close()

    assert str(raised.value) == (
        "deadlock: one waits to acquire b (held by other); other waits to acquire a (held by one)"
    )
    assert trio.current_time() < PATIENT


async def test_who_waits_for_mail_or_time_is_not_hung(autojump_clock: Any) -> None:
    live, _, mail = watched()

    async def sleeper() -> None:
        await Cell("x").wait(lambda x: x > 0, deadline=1000 * 1_000_000_000)

    live.spawn("sleeper", sleeper())
    with live.source():
        async with anyio.create_task_group() as group:
            group.start_soon(live.run)
            await anyio.sleep(500)
            live.post(mail, None)
    live.close()

    assert trio.current_time() >= 1000


async def test_others_that_go_on_delay_the_finding_and_do_not_prevent_it(
    autojump_clock: Any,
) -> None:
    live, _, mail = watched()
    embrace(live)

    async def post() -> None:
        while True:
            await anyio.sleep(0.5)
            live.post(mail, "work")

    async with anyio.create_task_group() as group:
        group.start_soon(post)
        with live.source(), pytest.raises(Deadlock, match="one waits to acquire b"):
            await live.run()
        group.cancel_scope.cancel()
    live.close()

    assert PATIENT - 2 <= trio.current_time() <= PATIENT + 2 * STILL


def test_a_process_that_was_stopped_is_not_blamed() -> None:
    """A look counts once, however long ago the one before was."""
    live, hung, _ = watched()
    embrace(live)
    for _ in range(10):
        live._slice()
    assert [hung.look() for _ in range(STILL)] == [[]] * STILL


def host() -> Server:
    live = Live(time_scale=1.0)
    return Server(live, assemble(HOST, None, live).kernel, lambda line: None)


async def get_stuck(server: Server, guest: Peer) -> None:
    """The map lock is never released: no guest can tell that from a slow host."""
    (proc,) = server.kernel.procs

    async def holder() -> None:
        await proc.p_vmspace.vm_map.lock.acquire_exclusive()

    server.live.spawn("holder", holder(), daemon=True)
    await guest.put(Mmap(0, 4096, PROT_READ, MAP_SHARED, 3, 0, lwp=0, seq=0))


@backends
def test_a_stuck_lwp_ends_the_host_and_is_named(backend: str, tmp_path: Path) -> None:
    server = host()
    server.hung_tasks.every = 0.001

    async def main() -> None:
        async with listen(tmp_path / "host") as listener, anyio.create_task_group() as group:
            group.start_soon(ask)
            with pytest.raises(Deadlock, match=r"^deadlock: lwp vk\.0 waits to .*map"):
                await server.run(listener)

    async def ask() -> None:
        async with peer(tmp_path / "host") as guest:
            await guest.greet(name="vk")
            await get_stuck(server, guest)
            assert await guest.hear() == Goodbye(Errno.ENXIO, "the host is down")

    on_backend(backend, main)
    server.live.close()


@backends
def test_a_second_signal_ends_a_host_that_waits_for_a_process(backend: str, tmp_path: Path) -> None:
    server = host()
    server.hung_tasks.every = 1000.0  # not before the signal
    told: list[str] = []
    server.tell = told.append

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            with pytest.raises(Stopped, match=r"told to stop twice; left: .*lwp vk\.0 waits to"):
                await Serving(server, tmp_path / "host").main()

    async def ask() -> None:
        while not told:
            await anyio.lowlevel.checkpoint()
        async with peer(tmp_path / "host") as guest:
            await guest.greet(name="vk")
            await get_stuck(server, guest)
            os.kill(os.getpid(), signal.SIGINT)
            assert await guest.hear() == Goodbye(0, "the host shuts down")
            os.kill(os.getpid(), signal.SIGINT)

    on_backend(backend, main)
    server.live.close()


@pytest.mark.slow
def test_a_deadlocked_guest_ends_and_names_its_processes(tmp_path: Path) -> None:
    """Nothing is asked of the host any more, so nothing will come from there."""
    path = tmp_path / "host"
    (tmp_path / "read.s").write_text(DEADLOCKED)
    line = ["guest", "--socket", str(path), "-m", "64M"]
    with serve_command(path, "--guests", "2") as host:
        with command(*line, "--program", str(tmp_path / "read.s"), "-n", "2") as guest:
            _, err = guest.communicate(timeout=50)
        assert guest.returncode == 1
        assert err.endswith("vkemu guest: deadlock: process 1 (read) sleeps on pipe 17\n")
        with command(*line, "--run", "touch") as other:
            assert other.wait(timeout=50) == 0
        assert host.wait(timeout=50) == 0

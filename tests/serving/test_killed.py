"""Guests that are killed at any moment, and connections that are cut at any byte: nothing is kept,
nobody is disturbed, the host serves on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import anyio
import pytest
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.serving.address import connect
from vkprotocol import insn
from vkprotocol.codec import frame
from vkprotocol.messages import AnyMessage, CpuOps, Mmap, VmspaceCreate, VmspaceMmap
from vkprotocol.mman import MAP_ANON, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE

from tests.serving.stub import hello
from tests.serving.test_hostile import bystander, gone
from tests.serving.test_leaks import HISTORY, alive
from tests.serving.test_server import PAGES, SPECS, Served, endless_run, whole_guest

RW = PROT_READ | PROT_WRITE
WARM = 40
STEPS = 12_000  # of the host; a guest is killed within so many
REQUESTS: tuple[AnyMessage, ...] = (
    hello("cut", 2, memory=PAGES * 4096),
    Mmap(0, 8 * 4096, RW, MAP_SHARED, 3, 0, lwp=0, seq=1),
    Mmap(0, 8 * 4096, RW, MAP_ANON | MAP_PRIVATE, -1, 0, lwp=1, seq=1),
    VmspaceCreate(0x1000, lwp=0, seq=2),
    VmspaceMmap(0x1000, 0, 4096, RW, MAP_SHARED | 0x10, 3, 0, lwp=1, seq=2),
    CpuOps((insn.store(0x1000_0000, 1),), lwp=0, seq=3),
    endless_run(lwp=1, seq=3),
)
SAID = b"".join(map(frame, REQUESTS))


def guest_process(path: str, number: int) -> None:
    async def main() -> None:
        await whole_guest(await connect(Path(path)), f"g{number}", SPECS * 4, 2)

    on_backend("trio", main)


Visit = Callable[[Served, Random, int], Awaitable[None]]


async def killed(served: Served, random: Random, number: int) -> None:
    """A guest in a process of its own, killed after so many steps of the host."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.serving.test_killed"])
    process = context.Process(target=guest_process, args=(str(served.path), number), daemon=True)
    process.start()
    live = served.server.live
    until = live.steps + random.randrange(STEPS)
    while live.steps < until and process.exitcode is None:
        await anyio.lowlevel.checkpoint()
    assert process.pid is not None
    with suppress(ProcessLookupError):  # it has run to its end
        os.kill(process.pid, signal.SIGKILL)
    await anyio.to_thread.run_sync(process.join)
    process.close()


async def cut(served: Served, random: Random, number: int) -> None:
    """A peer whose bytes end somewhere."""
    stream = served.dial()
    await stream.send(SAID[: random.randrange(len(SAID) + 1)])
    for _ in range(random.randrange(20)):
        await anyio.lowlevel.checkpoint()
    await stream.aclose()


@pytest.mark.parametrize(
    ("visit", "count"),
    [
        pytest.param(cut, 100, marks=pytest.mark.slow),
        pytest.param(cut, 500, marks=pytest.mark.long),
        pytest.param(killed, 500, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_whoever_goes_so_is_gone(backend: str, count: int, visit: Visit, tmp_path: Path) -> None:
    grown: dict[str, int] = {}

    async def main() -> None:
        random = Random(f"{backend} {count}")
        async with bystander(tmp_path / "host") as (served, _):
            kernel, live = served.kernel, served.server.live

            async def come_and_go(number: int) -> None:
                await visit(served, random, number)
                await gone(served)

            for number in range(WARM):
                await come_and_go(number)
            free, threads, before = kernel.vmstats.v_free_count.value, len(live.threads), alive()
            for number in range(count):
                await come_and_go(number)
            grown.update({kind: n - before[kind] for kind, n in alive().items()})

            assert kernel.vmstats.v_free_count.value == free
            assert len(live.threads) == threads
            assert [proc.name for proc in kernel.procs if not proc.zombie] == ["good"]
            assert served.server.counts["bugs"] == 0
            assert not served.server.containment.violations

    on_backend(backend, main)
    assert {kind: n for kind, n in grown.items() if n >= count and kind not in HISTORY} == {}

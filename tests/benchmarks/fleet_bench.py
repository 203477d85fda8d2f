"""What a live host costs: start and memory by frames, mmap by entries, a request beside an echo.

`python -m tests.benchmarks.fleet_bench`: processor time, each pair in one run; see each figure
beside the one it is paired with, for the machine may have other work.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from vkemu.executors.live import Live
from vkemu.launch.assemble import Log, assemble
from vkemu.launch.live_run import live_schedule
from vkemu.launch.outcome import recorded
from vkemu.launch.scenario import Guest, Host, Scenario
from vkemu.record.live_log import LiveLog, Writer
from vkemu.report.trial import Origin, record
from vkemu.serving.address import listen
from vkemu.serving.server import Server
from vkprotocol import insn
from vkprotocol.insn import Trapframe
from vkprotocol.messages import (
    CpuOps,
    Mmap,
    Sysctl,
    VmspaceCreate,
    VmspaceCtl,
    VmspaceMcontrol,
    VmspaceMmap,
)
from vkprotocol.mman import (
    MADV_INVAL,
    MAP_ANON,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_VPAGETABLE,
    PROT_READ,
    PROT_WRITE,
)

from tests.benchmarks.protocol_bench import over_socket
from tests.serving.test_server import Peer, peer
from tests.vkhost.vkernel import Vkernel
from vkhost.vm.vm_map import entries_in, vm_map_findspace
from vkhost.vm.vm_mmap import kern_mmap

START = """
import sys, time, resource
from vkemu.executors.live import Live
from vkemu.launch.assemble import assemble
from vkemu.launch.scenario import Host, Scenario
began = time.process_time()
host = Host(pages=int(sys.argv[1]), cpus=8)
machine = assemble(Scenario(name="b", host=host, guest=()), None, Live(time_scale=1.0))
print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
machine.execution.close()
"""


def start(pages: int) -> tuple[float, float]:
    """Seconds, and MiB of the process, interpreter included."""
    done = subprocess.run(
        [sys.executable, "-c", START, str(pages)], capture_output=True, text=True, check=True
    )
    seconds, resident = map(float, done.stdout.split())
    return seconds, resident


def entries(count: int) -> float:
    """Microseconds to find a place and look an entry up in a map of so many."""
    k = Vkernel()
    vm_map = k.own.vm_map
    for n in range(count):
        k.do(kern_mmap(k.own, k.proc, (2 * n + 1) << 21, 4096, 3, 0x1000 | 0x2 | 0x10, -1, 0))
    vm_map_findspace(vm_map, 0, 4096, 4096)
    began = time.process_time()
    for n in range(2000):
        vm_map_findspace(vm_map, 0, 4096, 4096)
        entries_in(vm_map, (2 * (n % count) + 1) << 21, ((2 * (n % count) + 1) << 21) + 4096)
    return (time.process_time() - began) / 2000 * 1e6


@asynccontextmanager
async def hosting(pages: int, cpus: int, log: Log | None = None) -> AsyncIterator[Hosting]:
    """A host on a socket; it has ended when this has."""
    scenario = Scenario(name="b", host=Host(pages=pages, cpus=cpus), guest=())
    live = Live(time_scale=1.0)
    server = Server(live, assemble(scenario, log, live).kernel, lambda line: None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "host")
        async with listen(path) as listener, anyio.create_task_group() as group:
            group.start_soon(server.run, listener)
            yield server, path
            server.shutdown()
    live.close()


async def served(work: Work, others: int, log: bool) -> float:
    """Microseconds of processor time, both sides, for one of what a guest asks for, beside so many
    other guests that are connected and quiet."""
    with tempfile.NamedTemporaryFile() as out:
        writer = LiveLog(Writer(partial(os.write, out.fileno())), "bench") if log else None
        async with hosting(8000, others + 1, writer) as (_, path), AsyncExitStack() as stack:
            for _ in range(others):
                await (await stack.enter_async_context(peer(path))).greet()
            guest = await stack.enter_async_context(peer(path))
            await guest.greet(memory=MEMORY)
            cost = await work(guest)
        if writer is not None:
            writer.close()
    return cost


async def inval(guest: Peer) -> float:
    await guest.ask(VmspaceCreate, 0x1000)
    await guest.ask(VmspaceMmap, 0x1000, 0, 1 << 21, RW, SHADOWED, 3, 0)
    began = time.process_time()
    for n in range(INVALS):
        reply = await guest.ask(VmspaceMcontrol, 0x1000, n % 512 << 12, 4096, MADV_INVAL)
        assert not reply.errno
    return (time.process_time() - began) / INVALS * 1e6


async def fault(guest: Peer) -> float:
    mapped = await guest.ask(Mmap, 0, MEMORY, RW, MAP_SHARED, 3, 0)
    began = time.process_time()
    for first in range(0, FAULTS, 64):
        pages = range(first, first + 64)
        ops = tuple(insn.store(mapped.value + n * 4096, n) for n in pages)
        assert not (await guest.ask(CpuOps, ops)).errno
    return (time.process_time() - began) / FAULTS * 1e6


async def quiet(greedy: bool) -> tuple[float, float]:
    """Milliseconds of processor time that a guest waits for a sysctl, in the middle and at worst,
    alone or beside one that adds registers on four virtual CPUs for ever."""
    waits = []
    async with hosting(600, 6) as (_, path), peer(path) as good, peer(path) as bad:
        await good.greet(name="good")
        await bad.greet(name="greedy", vcpus=4)
        if greedy:
            await bad.ask(VmspaceCreate, 1)
            text = (insn.addi(1, 1, 1),) * 4095 + (insn.beq(0, 0, 0),)
            for lwp in range(4):
                await bad.put(VmspaceCtl(1, 1, Trapframe(text=text), lwp=lwp, seq=50))
        for _ in range(100):
            began = time.process_time()
            await good.ask(Sysctl, "vm.vkernel_enable")
            waits.append((time.process_time() - began) * 1e3)
    return sorted(waits)[50], max(waits)


async def stopped(count: int) -> float:
    """Seconds of processor time to the end, once told to stop; a guest has so many entries."""
    async with hosting(600, 2) as (server, path), peer(path) as guest:
        await guest.greet(memory=MEMORY)
        for n in range(count):
            at = (2 * n + 1) << 21
            reply = await guest.ask(Mmap, at, 4096, RW, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0)
            assert not reply.errno
        began = time.process_time()
        server.shutdown()
        while not server.live.over:
            await anyio.lowlevel.checkpoint()
        return time.process_time() - began


class Scanned:
    """A log that counts the pages at which the page daemon has looked."""

    pages = 0

    def emit(self, name: str, *args: Any) -> None:
        self.pages += name == "pageout.page"


async def scan(pages: int) -> float:
    """Microseconds of the page daemon for each page it looks at, on a host of so many."""
    log = Scanned()
    async with hosting(pages, 2, log) as (server, path), peer(path) as guest:
        server.live._spent = time.process_time_ns
        await guest.greet(memory=2 * pages * 4096)
        mapped = await guest.ask(Mmap, 0, 2 * pages * 4096, RW, MAP_SHARED, 3, 0)
        for first in range(0, 2 * pages, 64):
            ops = tuple(
                insn.store(mapped.value + page * 4096, page) for page in range(first, first + 64)
            )
            assert not (await guest.ask(CpuOps, ops)).errno
        used = server.live.run_queue.host.used
    return used / log.pages / 1e3


Hosting = tuple[Server, Path]
Work = Callable[[Peer], Awaitable[float]]
RW = PROT_READ | PROT_WRITE
SHADOWED = MAP_SHARED | MAP_VPAGETABLE | MAP_FIXED
MEMORY = 4096 * 4096
INVALS = 1000
FAULTS = 2048


def live_and_replay() -> tuple[float, float]:
    """Seconds of 64 guests live, and of the replay that makes the log of it."""
    guests = tuple(
        Guest(name=f"g{n}", memory="64p", vcpus=1, workloads=("touch:pages=4,rounds=2",))
        for n in range(64)
    )
    scenario = Scenario(name="b", host=Host(pages=4000, cpus=64), guest=guests)
    began = time.process_time()
    schedule, clean = live_schedule(scenario, "trio", 1, None)
    between = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        origin = Origin("b", (), "live", 1)
        record(scenario, recorded(schedule), origin, Path(folder), None, quiet=not clean)
    return between - began, time.process_time() - between


def main() -> None:
    for pages in (1 << 12, 1 << 20):
        seconds, resident = start(pages)
        print(f"start, {pages:9,} frames: {seconds * 1e3:6.1f} ms  {resident:6.1f} MiB")
    for count in (10, 1000, 8000):
        print(f"findspace and lookup, {count:5} entries: {entries(count):6.2f} us")
    for backend in ("trio", "asyncio"):
        for window in (1, 8):
            _, bare = over_socket("bare", backend, 4000, window)
            _, ours = over_socket("host sysctl", backend, 4000, window)
            print(f"request, {backend}, {window} at a time: {ours:6.1f} us, x{ours / bare:.2f}")
    for log in (False, True):
        what = "log" if log else "no log"
        for others in (0, 15, 63):
            cost = anyio.run(served, inval, others, log)
            print(f"INVAL, {others + 1:2} guests, {what:6}: {cost:6.1f} us")
        for others in (0, 63):
            cost = anyio.run(served, fault, others, log)
            print(f"fault, {others + 1:2} guests, {what:6}: {cost:6.1f} us")
    for greedy in (False, True):
        middle, worst = anyio.run(quiet, greedy)
        beside = "beside four loops of addi" if greedy else "alone"
        print(f"a quiet guest waits, {beside}: {middle:.1f} ms, at worst {worst:.1f} ms")
    for count in (10, 8000):
        print(f"stop, {count:5} entries: {anyio.run(stopped, count):.2f} s")
    for pages in (1 << 9, 1 << 11, 1 << 13):
        print(f"page scan, {pages:5} frames: {anyio.run(scan, pages):.1f} us a page")
    live, replay = live_and_replay()
    print(f"64 guests: live {live:.1f} s, replay with log {replay:.1f} s")
    print(f"children used {resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s")


if __name__ == "__main__":
    main()

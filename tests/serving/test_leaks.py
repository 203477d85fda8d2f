"""Nothing is kept of a guest that has gone: not an object, not a key."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import anyio
import pytest
from vkemu.executors.backend import BACKENDS, on_backend
from vkprotocol import insn
from vkprotocol.insn import Trapframe
from vkprotocol.messages import (
    CpuOps,
    Mmap,
    VmspaceCreate,
    VmspaceCtl,
    VmspaceDestroy,
    VmspaceMcontrol,
    VmspaceMmap,
)
from vkprotocol.mman import (
    MADV_SETMAP,
    MAP_ANON,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_VPAGETABLE,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.vpte import VPTE_V

from tests.serving.test_hostile import FEW
from tests.serving.test_server import Served, endless_run, peer, serving

RW = PROT_READ | PROT_WRITE
WARM = 26  # every frame has been somebody's by then
GUESTS = 12
OURS = ("vkemu", "vkhost", "vkguest", "vkprotocol")
HISTORY = {"Happening"}  # of frames: so many each at most


async def come_and_go(served: Served, path: Path, number: int) -> None:
    """Some of everything, and then gone: with a goodbye, without, in the midst of a frame."""
    async with peer(path) as guest:
        await guest.greet(name=f"g{number}", vcpus=2)
        for flags, fd in ((MAP_SHARED, 3), (MAP_ANON | MAP_PRIVATE, -1)):
            mapped = await guest.ask(Mmap, 0, 8 * 4096, RW, flags, fd, 0)
            word = mapped.value + 8 * number  # of a page: another than anybody's before
            ops = tuple(insn.store(word + n * 4096, n) for n in range(8))
            await guest.ask(CpuOps, ops)
        await guest.ask(VmspaceCreate, 0x1000)
        size, flags = 1 << 46, MAP_SHARED | MAP_VPAGETABLE | MAP_FIXED
        await guest.ask(VmspaceMmap, 0x1000, 0, size, RW, flags, 3, 0)
        await guest.ask(VmspaceMcontrol, 0x1000, 0, size, MADV_SETMAP, VPTE_V)
        walk = Trapframe(text=(insn.li(1, number << 39), insn.ld(2, 1)))  # by a word of its own
        assert not (await guest.ask(VmspaceCtl, 0x1000, 1, walk)).errno
        await guest.ask(VmspaceCreate, 0x2000)
        await guest.ask(VmspaceDestroy, 0x2000)
        if number % 3:
            await guest.put(endless_run(lwp=1, seq=99))
        if number % 3 == 2:
            await guest.stream.send(b"\xc6\x00\x00")
    while served.server.sessions or any(not proc.zombie for proc in served.kernel.procs):
        await anyio.lowlevel.checkpoint()


def alive() -> Counter[str]:
    """Objects of ours by kind; what the event loop keeps, its heap of deadlines, goes in time."""
    gc.collect()
    kinds = (type(thing) for thing in gc.get_objects())
    return Counter(k.__name__ for k in kinds if str(k.__module__).startswith(OURS))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_kept(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "host"
    grown: dict[str, int] = {}

    async def main() -> None:
        async with serving(path, FEW, on_violation="guest") as served:
            kernel, live = served.kernel, served.server.live
            for number in range(WARM):  # until every CPU has had one, and what is remembered is
                await come_and_go(served, path, number)
            threads, free = len(live.threads), kernel.vmstats.v_free_count.value
            before = alive()
            for number in range(WARM, WARM + GUESTS):
                await come_and_go(served, path, number)
            after = alive()
            grown.update({kind: n - before[kind] for kind, n in after.items()})

            assert kernel.vmstats.v_free_count.value == free
            assert len(live.threads) == threads
            assert len(kernel.mycpu) == len(kernel.cpus)  # the fault workers
            assert live.run_queue.of.keys() <= live.threads.keys()
            assert kernel.objects == {}
            assert len(kernel.procs) <= 2
            assert all(len(cpu.tlb.spaces) <= 2 for cpu in kernel.cpus)

    on_backend(backend, main)
    # Less than one object of a kind for each guest is none of a guest's.
    kept = {kind: n for kind, n in grown.items() if n >= GUESTS and kind not in HISTORY}
    assert kept == {}

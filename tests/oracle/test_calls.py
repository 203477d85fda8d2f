"""vmspace calls of two virtual CPUs at once: references, and ids that are used again."""

from __future__ import annotations

from typing import Any

import pytest
from vkemu.oracle import Violation
from vkprotocol import messages as msg
from vkprotocol.effects import Cell
from vkprotocol.insn import Insn, Op, Trapframe, swap
from vkprotocol.mman import MADV_INVAL, MADV_SETMAP, MAP_FIXED, MAP_SHARED, MAP_VPAGETABLE
from vkprotocol.param import PAGE_SIZE

from tests.oracle.host import DMAP, LEAF_BITS, SPAN, TABLE_BITS, Host
from tests.oracle.hunt import hunt, hunt_seeds
from tests.oracle.scenarios import QUIET
from vkhost.kern.lwp import Lwp
from vkhost.kern.proc import proc_create
from vkhost.kern.syscall import proc_start
from vkhost.quirks import Quirks
from vkhost.vm.vnode import MemoryVnode

FD = 3
ID = 1
TEXT = (Insn(Op.LD, 1, 0, 0), Insn(Op.SYSCALL))


class Vcpu:
    """The guest's side of one lwp."""

    def __init__(self, lwp: Lwp) -> None:
        self.lwp = lwp
        self.seq = 0

    async def call(self, kind: type[msg.Request], **fields: Any) -> msg.Reply:
        self.seq += 1
        await self.lwp.requests.send(kind(lwp=self.lwp.tid, seq=self.seq, **fields))
        reply: msg.Reply = await self.lwp.replies.recv()
        return reply

    async def make(self, vmspace: int = ID) -> None:
        flags = MAP_FIXED | MAP_SHARED | MAP_VPAGETABLE
        await self.call(msg.VmspaceCreate, id=vmspace)
        await self.call(
            msg.VmspaceMmap, id=vmspace, addr=0, length=SPAN, prot=7, flags=flags, fd=FD, offset=0
        )
        await self.mcontrol(vmspace, MADV_SETMAP, TABLE_BITS, SPAN)

    async def mcontrol(self, vmspace: int, behav: int, value: int, length: int) -> None:
        await self.call(
            msg.VmspaceMcontrol, id=vmspace, addr=0, length=length, behav=behav, value=value
        )

    async def run(self, vmspace: int = ID) -> msg.Reply:
        frame = Trapframe(text=TEXT)
        return await self.call(msg.VmspaceCtl, id=vmspace, cmd=1, frame=frame)

    async def exit(self) -> None:
        await self.call(msg.Exit)


def vkernel(quirks: Quirks | None = None, **settings: Any) -> tuple[Host, list[Vcpu]]:
    host = Host("pv_entry", quirks=quirks or Quirks.none(), cpus=2, **QUIET, **settings)
    image = MemoryVnode("image", 16 * PAGE_SIZE)
    for level in range(3):
        image.pwrite(level * PAGE_SIZE, ((level + 1) << 12 | TABLE_BITS).to_bytes(8, "little"))
    image.pwrite(3 * PAGE_SIZE, (8 << 12 | LEAF_BITS).to_bytes(8, "little"))
    proc = proc_create(host.kernel, "vkernel", image, 2)
    assert proc is not None
    proc_start(proc)
    return host, [Vcpu(lwp) for lwp in proc.lwps]


def destroy_while_running(**settings: Any) -> Host:
    """One virtual CPU runs the guest twice, another destroys it in between (W22)."""
    host, (first, second) = vkernel(**settings)
    ready = Cell("ready", False)

    async def run() -> None:
        await first.make()
        await ready.store(True)
        for _ in range(2):
            await first.run()
        await first.exit()

    async def destroy() -> None:
        await ready.wait(bool)
        await second.call(msg.VmspaceDestroy, id=ID)
        await second.exit()

    host.execution.spawn("vcpu0", run())
    host.execution.spawn("vcpu1", destroy())
    return host


def same_id_again(**settings: Any) -> Host:
    """One virtual CPU has the vmspace in its cache; another destroys it and makes a new one under
    the same id, in which the first then INVALs what it has just edited (W44)."""
    host, (first, second) = vkernel(**settings)
    turn = Cell("turn", 0)

    async def cached() -> None:
        await first.make()
        await first.run()
        await turn.store(1)
        await turn.wait(lambda now: now == 2)
        await first.call(
            msg.Mmap, addr=DMAP, length=8 * PAGE_SIZE, prot=3, flags=MAP_FIXED | MAP_SHARED, fd=FD,
            offset=0,
        )  # fmt: skip
        await first.call(msg.CpuOps, ops=(swap(DMAP + 3 * PAGE_SIZE, 0),))
        await first.mcontrol(ID, MADV_INVAL, 0, PAGE_SIZE)
        host.kernel.emit("guest.free", first.lwp.proc.pid, 8)
        await turn.store(3)
        await first.exit()

    async def again() -> None:
        await turn.wait(lambda now: now == 1)
        await second.call(msg.VmspaceDestroy, id=ID)
        await second.make()
        await second.run()
        await turn.store(2)
        await turn.wait(lambda now: now == 3)
        await second.call(msg.VmspaceDestroy, id=ID)
        await second.exit()

    host.execution.spawn("vcpu0", cached())
    host.execution.spawn("vcpu1", again())
    return host


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [destroy_while_running, same_id_again])
def test_references_are_runners_and_calls(scenario: Any) -> None:
    assert hunt_seeds(scenario, 40) is None


@pytest.mark.slow
def test_ebusy_leaks_a_reference() -> None:
    failure = hunt(destroy_while_running, quirks=Quirks())

    assert isinstance(failure, Violation)
    assert failure.invariant == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run-ref-kept", "destroy-ignores-refs"])
def test_a_mutant_shows(name: str) -> None:
    failure = hunt(destroy_while_running, mutants=(name,))

    assert isinstance(failure, Violation), failure
    assert failure.invariant == 10


def test_the_cached_entry_of_a_destroyed_vmspace() -> None:
    failure = hunt_seeds(same_id_again, 1, mutants=("ve-cache-without-deleted-test",))

    assert isinstance(failure, Violation), failure
    assert failure.invariant == 1

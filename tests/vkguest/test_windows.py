"""Windows of the guest kernel, held open: one vCPU stops between two of its steps for a while, and
the rest of the guest goes on at random.

The same schedule runs with the order as it is, where it must do no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from vkemu.oracle import Violation
from vkprotocol import messages as msg
from vkprotocol.effects import curthread
from vkprotocol.insn import Mem
from vkprotocol.mman import MADV_INVAL
from vkprotocol.param import PAGE_SIZE

from tests.vkguest.host_rig import HostRun
from vkguest.kern.param import DATA_ADDRESS
from vkguest.vkernel64.port import Port

Window = Callable[[msg.AnyRequest, msg.AnyRequest | None], bool]
NOBODY = -1
HOLD = 2000


class Doorkeeper:
    """Stops a vCPU that is about to make a request in the window, for up to HOLD steps or until
    nobody else can run."""

    def __init__(self, window: Window, seed: int) -> None:
        self.window = window
        self.random = Random(seed)
        self.stopped = NOBODY
        self.left = 0
        self.last = NOBODY

    def port(self, run: HostRun, inner: Port) -> Port:
        return WatchedPort(self, run, inner)

    def stop(self) -> None:
        self.stopped = curthread().tid
        self.left = self.random.randrange(HOLD)

    def choose(self, runnable: list[int]) -> int:
        others = [tid for tid in runnable if tid != self.stopped]
        self.left -= 1
        if not others or self.left < 0:
            self.stopped = NOBODY
            others = runnable
        if self.last not in others or self.random.random() < 0.2:
            self.last = self.random.choice(others)
        return self.last


class WatchedPort:
    def __init__(self, door: Doorkeeper, run: HostRun, inner: Port) -> None:
        self.door = door
        self.run = run
        self.inner = inner
        self.before: msg.AnyRequest | None = None

    async def call(self, request: msg.AnyRequest) -> msg.Reply:
        door = self.door
        # curproc 0: the vCPU runs the page daemon.
        daemon = self.run.guests and not self.run.guests[0].cpus[request.lwp].curproc.value
        if daemon and door.window(request, self.before):
            door.stop()
        self.before = request
        return await self.inner.call(request)


def ops_of(request: msg.AnyRequest | None) -> list[tuple[Mem, int]]:
    return [(op.op, op.a) for op in request.ops] if isinstance(request, msg.CpuOps) else []


def between_clean_and_inval(request: msg.AnyRequest, before: msg.AnyRequest | None) -> bool:
    """pmap_clean_pte has cleared RW of the first data page; its INVAL comes next."""
    return (
        isinstance(request, msg.VmspaceMcontrol)
        and request.behav == MADV_INVAL
        and DATA_ADDRESS <= request.addr < DATA_ADDRESS + 3 * PAGE_SIZE
        and any(op is Mem.CMPSET for op, _ in ops_of(before))
    )


def between_load_and_zero(request: msg.AnyRequest, before: msg.AnyRequest | None) -> bool:
    """The daemon has read a VPTE and is to store 0 there."""
    return (
        ops_of(request) == [(Mem.STORE, 0)]
        and len(ops_of(before)) == 1
        and ops_of(before)[0][0] is Mem.LOAD
    )


@dataclass(frozen=True)
class Case:
    """A defect, where it shows, in what; `checks` when a program does not suffer from it."""

    mutant: str
    window: Window
    spec: str
    vcpus: int
    checks: tuple[str, ...] = ()

    def run(self, seed: int, *mutants: str) -> HostRun:
        door = Doorkeeper(self.window, seed)
        run = HostRun(
            [self.spec], vcpus=self.vcpus, pages=90, swap_pages=24, free_target=180,
            port=door.port, checks=self.checks, mutants=frozenset(mutants),
        )  # fmt: skip
        return run.run(door.choose)


GUEST_DIRTY = ("guest-dirty",)
# In the first, the daemon has the page busied, so nobody acts on the missing INVAL in time.
CASES = [
    Case("second-clearer-elides", between_clean_and_inval, "snapshot:rounds=4", 3, GUEST_DIRTY),
    Case("m-race", between_load_and_zero, "hog:pages=12,rounds=4", 2),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.mutant)
def test_the_window_does_harm(case: Case) -> None:
    runs = (case.run(seed, case.mutant) for seed in range(16))

    assert any(run.failed or isinstance(run.error, Violation) for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.mutant)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_real_order_stands_the_same(case: Case, seed: int) -> None:
    run = case.run(seed)

    assert run.error is None
    assert run.failed == []

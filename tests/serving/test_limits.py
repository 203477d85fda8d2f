"""Limits: each is reached from outside, and answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from vkemu.executors.backend import on_backend
from vkemu.serving.limits import LIMITS, Limits, parse_limits
from vkprotocol import insn
from vkprotocol.errno import Errno
from vkprotocol.messages import (
    CpuOps,
    HelloReply,
    Mmap,
    VmspaceCreate,
    VmspaceDestroy,
)
from vkprotocol.mman import MAP_ANON, MAP_FIXED, MAP_PRIVATE, MAP_SHARED

from tests.serving.test_hostile import RW, bystander, on_both
from tests.serving.test_server import peer


async def refusal(path: Path, **fields: Any) -> HelloReply:
    async with peer(path) as guest:
        return await guest.greet(**fields)


async def reach_guests(path: Path) -> None:
    assert (await refusal(path)).errno == Errno.EPROCLIM


async def reach_memory(path: Path) -> None:
    assert (await refusal(path, memory=1 << 30)).errno == Errno.ENOMEM


async def reach_vcpus(path: Path) -> None:
    assert (await refusal(path, vcpus=3)).errno == Errno.EAGAIN


async def reach_vmspaces(path: Path) -> None:
    async with peer(path) as guest:
        await guest.greet()
        errnos = [(await guest.ask(VmspaceCreate, n)).errno for n in range(4)]
        assert errnos == [0, 0, 0, Errno.ENOMEM]
        assert (await guest.ask(VmspaceDestroy, 0)).errno == 0
        assert (await guest.ask(VmspaceCreate, 9)).errno == 0


async def reach_entries(path: Path) -> None:
    async with peer(path) as guest:
        await guest.greet()
        flags = MAP_ANON | MAP_PRIVATE | MAP_FIXED
        errnos = [
            (await guest.ask(Mmap, (2 * n + 1) << 21, 4096, RW, flags, -1, 0)).errno
            for n in range(6)
        ]
        assert errnos == [0, 0, 0, 0, Errno.ENOMEM, Errno.ENOMEM]


REACHED = {
    "guests": (Limits(guests=1), reach_guests),
    "memory": (Limits(memory=1 << 22), reach_memory),
    "vcpus": (Limits(vcpus=2), reach_vcpus),
    "vmspaces": (Limits(vmspaces=3), reach_vmspaces),
    "entries": (Limits(entries=4), reach_entries),
}
# Held to elsewhere: peers above, unsent and outstanding below, share in test_run_queue.
ELSEWHERE = {"peers", "unsent", "outstanding", "share"}


@pytest.mark.parametrize("name", REACHED)
def test_a_limit_is_answered(name: str, tmp_path: Path) -> None:
    limits, reach = REACHED[name]

    async def main() -> None:
        async with bystander(tmp_path / "host", limits=limits):
            await reach(tmp_path / "host")

    on_backend("trio", main)


def test_every_limit_has_a_test() -> None:
    assert set(REACHED) | ELSEWHERE == set(LIMITS) == set(Limits.__struct_fields__)
    for text in ("guests", "guests=", "guests=0", "guests=-1", "cows=1", "share=1e2", "unsent=9"):
        with pytest.raises(ValueError, match="expected"):
            parse_limits([text])


@on_both
async def test_who_asks_too_much_or_does_not_read_is_not_read_from(path: Path) -> None:
    limits = Limits(outstanding=4, unsent=1 << 10)
    async with bystander(path, limits=limits) as (served, _), peer(path) as greedy:
        await greedy.greet(name="greedy", vcpus=3)
        mapped = await greedy.ask(Mmap, 0, 4096, RW, MAP_SHARED, 3, 0)
        (session,) = (s for s in served.server.sessions if s.name == "'greedy'")
        await greedy.ask(CpuOps, (insn.store(mapped.value, (1 << 64) - 1),))  # nine bytes a word
        ops = tuple(insn.load(mapped.value) for _ in range(4096))

        async def ask() -> None:
            for seq in range(100, 124):  # as many as the protocol lets it, and reads no answer
                await greedy.put(CpuOps(ops, lwp=seq % 3, seq=seq))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            still = 0
            while still < 500:
                seen = session.requests
                await anyio.lowlevel.checkpoint()
                still = still + 1 if session.requests == seen > 2 else 0
            assert session._behind()
            assert session.requests < 24
            group.cancel_scope.cancel()

"""What a peer or a guest may do to a host, from outside: nobody else is disturbed by it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.launch.scenario import Host, Scenario
from vkemu.serving.address import connect
from vkemu.serving.limits import Limits
from vkprotocol import insn
from vkprotocol.errno import Errno
from vkprotocol.insn import Insn, Op, Trapframe
from vkprotocol.messages import (
    CpuOps,
    Exit,
    Goodbye,
    Mmap,
    Munmap,
    Reply,
    Sysctl,
    VmspaceCreate,
    VmspaceCtl,
    VmspaceDestroy,
    VmspaceMmap,
)
from vkprotocol.mman import MAP_ANON, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from vkprotocol.param import VM_MAX_USER_ADDRESS
from vkprotocol.vkernel import T_PRIVINFLT

from tests.serving.test_server import PAGES, Peer, Served, endless_run, peer, serving

backends = pytest.mark.parametrize("backend", BACKENDS)
RW = PROT_READ | PROT_WRITE
FEW = Scenario(name="serve", host=Host(pages=300, cpus=6), guest=())


def on_both(test: Callable[[Path], Awaitable[None]]) -> Any:
    """Run an async test on every backend, with a path to serve at."""

    @backends
    def both(backend: str, tmp_path: Path) -> None:
        on_backend(backend, lambda: test(tmp_path / "host"))

    return both


@asynccontextmanager
async def bystander(path: Path, **options: Any) -> AsyncIterator[tuple[Served, Peer]]:
    """A host, and a guest that is to notice nothing: what it has stored is there at the end."""
    async with serving(path, FEW, on_violation="guest", **options) as served:
        async with peer(path) as good:
            assert (await good.greet(name="good")).errno == 0
            mapped = await good.ask(Mmap, 0, 4096, RW, MAP_SHARED, 3, 0)
            await good.ask(CpuOps, (insn.store(mapped.value, 4711),))
            yield served, good
            assert (await good.ask(CpuOps, (insn.load(mapped.value),))).values == (4711,)
            assert (await good.ask(Sysctl, "vm.vkernel_enable")).value == 1
        await served.told(served.server.counts["guests"])


async def gone(served: Served) -> None:
    """Until nobody but the bystander is left."""
    while (
        any(not proc.zombie for proc in served.kernel.procs[1:]) or len(served.server.sessions) > 1
    ):
        await anyio.lowlevel.checkpoint()


@on_both
async def test_any_name_will_do(path: Path) -> None:
    async with bystander(path) as (served, _):
        for name in ("a\0b", "\U0001f600" * 64, "", "../..", "x" * 64, "\u202e", "lwp good.0"):
            async with peer(path) as odd:
                assert (await odd.greet(name=name)).errno == 0
        names = {proc.name for proc in served.kernel.procs}
        assert all(c.isascii() and (c.isalnum() or c in "_-") for name in names for c in name)


@on_both
async def test_a_branch_out_of_the_text_is_a_fault_of_that_guest(path: Path) -> None:
    async with bystander(path), peer(path) as bad:
        await bad.greet(name="bad")
        await bad.ask(VmspaceCreate, 1)
        for target in (1 << 40, -1, -(1 << 63), (1 << 64) - 1):
            text = (Insn(Op.BEQ, imm=target),)
            reply = await bad.ask(VmspaceCtl, 1, 1, Trapframe(text=text))
            assert reply.frame is not None
            assert (reply.frame.trapno, reply.frame.pc) == (T_PRIVINFLT, target % (1 << 64))


@on_both
async def test_a_violation_ends_the_guest_it_is_about(path: Path) -> None:
    """W22: on the real kernel it takes the host down; so it does here with on_violation stop."""
    async with bystander(path) as (served, _):
        async with peer(path) as bad:
            await bad.greet(name="bad", vcpus=2)
            await bad.ask(VmspaceCreate, 0x1000)
            await bad.put(endless_run(lwp=1, seq=99))
            await bad.ask(Sysctl, "vm.vkernel_enable")
            await bad.put(VmspaceDestroy(0x1000, lwp=0, seq=7))
            heard = await bad.hear()
            while not isinstance(heard, Goodbye):
                heard = await bad.hear()
            assert heard.errno == Errno.EIO
            assert "invariant 10" in heard.reason
        await gone(served)
        violations = served.server.containment.violations
        assert violations[0].startswith("bad: invariant 10")
        assert violations[1] == "bad: host panic: rb_vmspace_delete: invalid refs 1"
        async with peer(path) as another:
            assert (await another.greet(name="bad", vcpus=2)).errno == 0


@on_both
async def test_a_bug_of_ours_ends_the_guest_it_befell(path: Path) -> None:
    async with bystander(path) as (served, _):
        kernel = served.kernel
        emit = kernel.emit

        def broken(name: str, /, *fields: Any) -> None:
            emit(name, *fields)
            if name == "syscall.begin" and fields == ("101.0", "munmap"):
                raise TypeError("planted")

        kernel.emit = broken
        async with peer(path) as bad:
            assert (await bad.greet(name="bad")).proc == 101
            await bad.put(Munmap(0, 4096, lwp=0, seq=0))
            assert await bad.hear() == Goodbye(
                Errno.EIO, "a bug in vkemu itself: TypeError: planted"
            )
        await gone(served)
        assert "TypeError: planted\nvkemu: bad: the above is a bug in" in served.lines[0]
        assert served.server.counts["bugs"] == 1


@on_both
async def test_a_fault_that_fails_on_us_ends_its_guest_and_gives_the_cpu_back(path: Path) -> None:
    async with bystander(path) as (served, _):
        kernel, vm_fault = served.kernel, served.kernel.vm_fault

        async def broken(vm_map: Any, *rest: Any) -> int:
            if vm_map.proc.name.startswith("bad"):
                raise TypeError("planted")
            return await vm_fault(vm_map, *rest)

        vars(kernel)["vm_fault"] = broken
        for _ in range(7):  # there are six CPUs
            async with peer(path) as bad:
                assert (await bad.greet(name="bad")).errno == 0
                mapped = await bad.ask(Mmap, 0, 4096, RW, MAP_SHARED, 3, 0)
                await bad.put(CpuOps((insn.store(mapped.value, 1),), lwp=0, seq=9))
                while not isinstance(heard := await bad.hear(), Goodbye):
                    pass
                assert heard.reason == "a bug in vkemu itself: TypeError: planted"
            await gone(served)


@on_both
async def test_a_hog_without_swap_is_killed_for_memory(path: Path) -> None:
    async with bystander(path), peer(path) as hog:
        await hog.greet(name="hog")
        mapped = await hog.ask(Mmap, 0, 1000 * 4096, RW, MAP_ANON | MAP_PRIVATE, -1, 0)
        ops = tuple(insn.store(mapped.value + page * 4096, 1) for page in range(1000))
        await hog.put(CpuOps(ops, lwp=0, seq=5))
        assert await hog.hear() == Goodbye(Errno.ENOMEM, "killed: out of swap space")


@on_both
async def test_a_loop_without_accesses_holds_up_nobody(path: Path) -> None:
    async with bystander(path) as (served, good), peer(path) as greedy:
        await greedy.greet(name="greedy", vcpus=4)
        await greedy.ask(VmspaceCreate, 1)
        text = (insn.addi(1, 1, 1),) * 4095 + (insn.beq(0, 0, 0),)
        for lwp in range(4):
            await greedy.put(VmspaceCtl(1, 1, Trapframe(text=text), lwp=lwp, seq=50))
        for _ in range(20):
            assert (await good.ask(Sysctl, "vm.vkernel_enable")).value == 1
        (session,) = (s for s in served.server.sessions if s.name == "'greedy'")
        assert session.account is not None
        assert session.account.used > 0


@backends
def test_told_to_stop_while_guests_connect(backend: str, tmp_path: Path) -> None:
    """Accepted and not yet greeted, greeted and not yet answered: it ends with all of them."""
    path = tmp_path / "host"

    async def come(end: anyio.Event) -> None:
        while not end.is_set():
            try:
                async with peer(path) as guest:
                    await guest.greet()
                    await guest.ask(Sysctl, "vm.vkernel_enable")
            except (OSError, AssertionError, Exception):
                await anyio.lowlevel.checkpoint()

    async def once(turns: int) -> None:
        end = anyio.Event()
        async with anyio.create_task_group() as group:
            async with serving(path, FEW):
                for _ in range(6):
                    group.start_soon(come, end)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
            end.set()

    for turns in range(0, 60, 3):
        on_backend(backend, partial(once, turns))


@on_both
async def test_who_is_silent_keeps_nobody_out(path: Path) -> None:
    async with bystander(path, limits=Limits(peers=4)) as (served, _):
        silent = [await connect(path) for _ in range(10)]
        async with peer(path) as guest:
            assert (await guest.greet()).errno == 0
            assert served.server.counts["crowded out"] >= 6
        for stream in silent:
            await stream.aclose()


@on_both
async def test_requests_after_exit_are_answered(path: Path) -> None:
    async with bystander(path), peer(path) as guest:
        await guest.greet(vcpus=2)
        await guest.put(Exit(0, lwp=1, seq=1))
        for seq in range(2, 6):
            await guest.put(Sysctl("vm.vkernel_enable", lwp=1, seq=seq))
        replies = [await guest.hear() for _ in range(5)]
        assert [getattr(reply, "errno", -1) for reply in replies] == [0, *[Errno.ESRCH] * 4]
        assert (await guest.ask(Sysctl, "vm.vkernel_enable", lwp=1)).errno == Errno.ESRCH
        assert (await guest.ask(Sysctl, "vm.vkernel_enable")).value == 1


@on_both
async def test_an_image_is_one_that_can_be_written_anywhere(path: Path) -> None:
    async with bystander(path) as (served, _):
        image = path.with_name("image")
        image.write_bytes(bytes(PAGES * 4096))
        async with peer(path) as guest:
            fd = os.open(image, os.O_RDWR | os.O_APPEND)
            reply = await guest.greet(fd)
            os.close(fd)
            assert (reply.errno, reply.reason) == (
                Errno.EINVAL, "the memory image is open for appending",
            )  # fmt: skip
        async with peer(path) as guest:
            fd = os.open(image, os.O_RDWR)
            assert (await guest.greet(fd)).errno == 0
            os.ftruncate(fd, 4096)
            os.close(fd)
            mapped = await guest.ask(Mmap, 0, 8 * 4096, RW, MAP_SHARED, 3, 0)
            await guest.put(CpuOps((insn.load(mapped.value + 4 * 4096),), lwp=0, seq=9))
            assert await guest.hear() == Goodbye(
                Errno.EIO, "the memory image: it ends at byte 16384"
            )


# Isolation.


@on_both
async def test_a_guest_that_tries_everything_sees_nobody_elses(path: Path) -> None:
    """Whatever it names, and whatever memory it is given, is its own or nothing."""
    secret = 0x5EC2E7
    async with bystander(path) as (served, good):
        await good.ask(VmspaceCreate, 0x77)
        own = await good.ask(Mmap, 0, 64 * 4096, RW, MAP_ANON | MAP_PRIVATE, -1, 0)
        marks = tuple(insn.store(own.value + n * 4096, secret) for n in range(64))
        assert (await good.ask(CpuOps, marks)).errno == 0
        async with peer(path) as dead:  # whose frames are to be scrubbed
            await dead.greet(name="dead")
            mapped = await dead.ask(Mmap, 0, 64 * 4096, RW, MAP_SHARED, 3, 0)
            marks = tuple(insn.store(mapped.value + n * 4096, secret) for n in range(64))
            assert (await dead.ask(CpuOps, marks)).errno == 0
        await gone(served)
        async with peer(path) as spy:
            await spy.greet(name="spy")
            assert (await spy.ask(VmspaceDestroy, 0x77)).errno == Errno.EINVAL
            assert (await spy.ask(VmspaceCreate, 0x77)).errno == 0  # ids are each guest's own
            assert (await spy.ask(CpuOps, (insn.load(own.value),))).errno == Errno.EFAULT
            for fd in (0, 1, 2, 4, 5, 100):
                assert (await spy.ask(Mmap, 0, 4096, RW, MAP_SHARED, fd, 0)).errno == Errno.EBADF
            assert (await spy.ask(VmspaceMmap, 0x1000, 0, 4096, RW, MAP_SHARED, 3, 0)).errno
            seen: set[int] = set()
            for flags, fd in ((MAP_ANON | MAP_PRIVATE, -1), (MAP_SHARED, 3)):
                mapped = await spy.ask(Mmap, 0, 40 * 4096, RW, flags, fd, 0)
                for n in range(40):
                    ops = tuple(
                        insn.load(mapped.value + n * 4096 + 8 * i) for i in range(0, 512, 64)
                    )
                    seen.update((await spy.ask(CpuOps, ops)).values)
            assert seen == {0}
            beyond = await spy.ask(CpuOps, (insn.load(VM_MAX_USER_ADDRESS + 8),))
            assert beyond.errno == Errno.EFAULT
        assert isinstance(await good.ask(Sysctl, "vm.v_page_count"), Reply)

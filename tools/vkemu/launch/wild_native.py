"""A host process that does anything to its memory: what it reads is judged by the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from vkprotocol.effects import Spawn
from vkprotocol.insn import MemOp, load, store
from vkprotocol.messages import (
    AnyRequest,
    CpuOps,
    Exit,
    Kill,
    Madvise,
    Mcontrol,
    Mmap,
    Msync,
    Munmap,
    Pread,
    Sysctl,
    VmspaceDestroy,
    VmspaceMunmap,
)
from vkprotocol.mman import (
    MADV_DONTNEED,
    MADV_FREE,
    MADV_WILLNEED,
    MAP_ANON,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_STACK,
    MS_ASYNC,
    MS_SYNC,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS

from vkemu.launch.native import Killed, Native
from vkhost.kernel import Kernel


class WildNative(Native):
    """`ops` operations on `pages` pages, drawn from `seed`. A fault is not the end of it."""

    def __init__(
        self,
        kernel: Kernel,
        spawn: Spawn,
        name: str,
        pages: int,
        ops: int,
        seed: int,
        corners: bool = False,
    ) -> None:
        super().__init__(kernel, spawn, name, pages, ops)
        self.random = Random(seed)
        self.corners = corners

    async def _main(self) -> None:
        ops = ("touch", "touch", "touch", "map", "unmap", "advise")
        try:
            base = await self._mmap()
            for request in refused(self._stamp) if self.corners else ():
                reply = await self._call(request)
                assert reply.errno, request
            for _ in range(self.rounds):
                await self._call(self._drawn(base, self.random.choice(ops)))
            await self._call(Exit(lwp=0, seq=self._stamp()))
        except Killed as killed:
            self.killed = str(killed)

    def _drawn(self, base: int, op: str) -> AnyRequest:
        random, seq = self.random, self._stamp()
        batch = 8  # accesses in a row
        if op == "touch":
            ops = tuple(self._access(base) for _ in range(random.randint(1, batch)))
            return CpuOps(lwp=0, seq=seq, ops=ops)
        low = random.randrange(self.pages)
        addr, length = base + low * PAGE_SIZE, random.randint(1, self.pages - low) * PAGE_SIZE
        if op == "unmap":
            return Munmap(lwp=0, seq=seq, addr=addr, length=length)
        if op == "advise":
            behav = random.choice((MADV_FREE, MADV_DONTNEED, MADV_WILLNEED))
            return Madvise(lwp=0, seq=seq, addr=addr, length=length, behav=behav)
        return Mmap(
            lwp=0, seq=seq, addr=addr, length=length, prot=PROT_READ | PROT_WRITE,
            flags=MAP_ANON | MAP_PRIVATE | MAP_FIXED, fd=-1, offset=0,
        )  # fmt: skip

    def _access(self, base: int) -> MemOp:
        va = base + self.random.randrange(self.pages) * PAGE_SIZE + self.random.randrange(4) * 8
        return load(va) if self.random.random() < 0.5 else store(va, self._stamp())


def refused(stamp: Callable[[], int]) -> Iterator[AnyRequest]:
    """A call for every reason that a kernel has to refuse one; the process has no vmspace."""
    rw, anon = PROT_READ | PROT_WRITE, MAP_ANON | MAP_PRIVATE
    size, end = PAGE_SIZE, VM_MAX_USER_ADDRESS

    def mmap(addr: int, length: int, flags: int, fd: int = -1, offset: int = 0) -> Mmap:
        return Mmap(
            lwp=0, seq=stamp(), addr=addr, length=length, prot=rw, flags=flags, fd=fd, offset=offset
        )

    yield mmap(1, size, anon | MAP_FIXED)
    yield mmap(end, size, anon | MAP_FIXED)
    yield mmap(0, 1 << 50, anon)
    yield mmap(0, size, MAP_PRIVATE, fd=9)
    yield mmap(0, size, anon, fd=9)
    yield mmap(0, size, MAP_SHARED, fd=3, offset=1)
    yield mmap(0, size, anon | MAP_STACK, fd=9)
    yield Munmap(lwp=0, seq=stamp(), addr=1, length=size)
    yield Munmap(lwp=0, seq=stamp(), addr=end, length=size)
    yield Madvise(lwp=0, seq=stamp(), addr=0, length=1 << 50, behav=MADV_FREE)
    yield Madvise(lwp=0, seq=stamp(), addr=0, length=size, behav=99)
    yield Mcontrol(lwp=0, seq=stamp(), addr=0, length=size, behav=99, value=0)
    yield Msync(lwp=0, seq=stamp(), addr=1, length=size, flags=MS_SYNC)
    yield Msync(lwp=0, seq=stamp(), addr=0, length=0, flags=MS_SYNC | MS_ASYNC)
    yield Msync(lwp=0, seq=stamp(), addr=0, length=size, flags=MS_SYNC)
    yield Sysctl(lwp=0, seq=stamp(), name="vm.nothing")
    yield Sysctl(lwp=0, seq=stamp(), name="vm.stats.vm.v_free_count", new=1)
    yield Kill(lwp=0, seq=stamp(), target=9, signo=1)
    yield Kill(lwp=0, seq=stamp(), target=0, signo=99)
    yield VmspaceDestroy(lwp=0, seq=stamp(), id=1)
    yield VmspaceMunmap(lwp=0, seq=stamp(), id=1, addr=0, length=size)
    yield Pread(lwp=0, seq=stamp(), fd=9, addr=0, offset=0)

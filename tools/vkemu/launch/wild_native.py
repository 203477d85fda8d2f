"""A host process that does anything to its memory: what it reads is judged by the reference."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from random import Random
from typing import Final

from vkprotocol.effects import Spawn
from vkprotocol.insn import MemOp, load, store
from vkprotocol.messages import (
    DISK_FD,
    CpuOps,
    Exit,
    Madvise,
    Mmap,
    Msync,
    Munmap,
    Request,
)
from vkprotocol.mman import (
    MADV_DONTNEED,
    MADV_FREE,
    MADV_WILLNEED,
    MAP_ANON,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MS_ASYNC,
    MS_INVALIDATE,
    MS_SYNC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import PAGE_SIZE

from vkemu.launch.answered import Answered
from vkemu.launch.native import Killed, Native
from vkhost.kern.lwp import File, Proc
from vkhost.kern.user_calls import Fork, Mlock, Mprotect, Munlock
from vkhost.kernel import Kernel
from vkhost.vm.vnode import MemoryVnode

RW: Final = PROT_READ | PROT_WRITE
# Each as often as it is named.
ALL: Final = (
    "touch", "touch", "touch", "touch", "touch", "touch", "map", "share", "unmap", "advise",
    "protect", "protect", "sync", "file", "file", "lock", "unlock", "fork",
)  # fmt: skip


class WildNative(Native):
    """`ops` operations on `pages` pages, drawn from `seed`. A fault is not the end of it.

    `every`: of every kind that there is for a host program, forks and a file of its own among them,
    by two threads at once; a child does as its parent, with one.
    """

    def __init__(
        self,
        kernel: Kernel,
        spawn: Spawn,
        name: str,
        pages: int,
        ops: int,
        seed: int,
        corners: bool = False,
        every: bool = False,
    ) -> None:
        super().__init__(kernel, spawn, name, pages, ops, lwps=1 + every)
        self.kernel = kernel
        self.spawn = spawn
        self.random = Random(seed)
        self.answered: Answered | None = None
        if corners:
            self.answered = Answered(self._stamp, self.proc)
        few = ("touch", "touch", "touch", "map", "unmap", "advise")
        self.ops = ALL if every else few
        self.locked = (0, 0)  # the last range
        if every:
            file = MemoryVnode(f"{name}.data", pages * PAGE_SIZE)
            file.content[:] = self.random.randbytes(file.size)
            self.proc.files[DISK_FD] = File(file)
            kernel.emit("user.content", str(self.proc.pid), file.name, bytes(file.content))

    async def _main(self) -> None:
        try:
            base = await self._mmap()
            if self.answered is not None:
                await self.answered.all()
            for lwp in self.proc.lwps[1:]:
                self._born(self.proc, lwp.tid, base, self.rounds)
            await self._live(base, self.rounds)
        except Killed as killed:
            self.killed = str(killed)

    async def _live(self, base: int, ops: int) -> None:
        for left in range(ops, 0, -1):
            op = self.random.choice(self.ops)
            reply = await self._call(self._drawn(base, op))
            if op == "fork" and not reply.errno:
                child = next(proc for proc in self.kernel.procs if proc.pid == reply.value)
                self._born(child, 0, base, left // 2)
        await self._call(Exit(lwp=self.tid, seq=self._stamp()))

    def _born(self, proc: Proc, tid: int, base: int, ops: int) -> None:
        """Another thread of user code, of a child or of this process."""
        other = copy(self)
        other.proc, other.tid = proc, tid
        other.random = Random(self.random.random())
        other.seq += (proc.pid << 4 | tid) << 16  # what it stores is told from what others do

        async def live() -> None:
            with suppress(Killed):
                await other._live(base, ops)

        self.spawn(f"{proc.name}:{tid}", live())

    def _drawn(self, base: int, op: str) -> Request:
        random, seq = self.random, self._stamp()
        batch = 8  # accesses in a row
        if op == "touch":
            ops = tuple(self._access(base) for _ in range(random.randint(1, batch)))
            return CpuOps(lwp=self.tid, seq=seq, ops=ops)
        if op == "fork":
            return Fork(lwp=self.tid, seq=seq)
        low = random.randrange(self.pages)
        count = random.randint(1, self.pages - low)
        addr, length = base + low * PAGE_SIZE, count * PAGE_SIZE
        match op:
            case "unmap":
                return Munmap(lwp=self.tid, seq=seq, addr=addr, length=length)
            case "advise":
                behav = random.choice((MADV_FREE, MADV_DONTNEED, MADV_WILLNEED))
                return Madvise(lwp=self.tid, seq=seq, addr=addr, length=length, behav=behav)
            case "protect":
                prot = random.choice((PROT_NONE, PROT_READ, RW, RW))
                return Mprotect(lwp=self.tid, seq=seq, addr=addr, length=length, prot=prot)
            case "sync":
                flags = random.choice((MS_SYNC, MS_ASYNC, MS_INVALIDATE))
                size = random.choice((0, length, length))
                return Msync(lwp=self.tid, seq=seq, addr=addr, length=size, flags=flags)
            case "lock":
                self.locked = addr, PAGE_SIZE * min(count, 3)
                return Mlock(lwp=self.tid, seq=seq, addr=addr, length=self.locked[1])
            case "unlock":
                addr, length = self.locked if random.random() < 0.8 else (addr, length)
                return Munlock(lwp=self.tid, seq=seq, addr=addr, length=length)
        shared = MAP_PRIVATE if op == "map" else random.choice((MAP_PRIVATE, MAP_SHARED))
        anon, fd, offset = MAP_ANON, -1, 0
        if op == "file":
            anon, fd = 0, DISK_FD
            offset = random.randint(0, self.pages - count) * PAGE_SIZE
        flags = anon | shared | MAP_FIXED
        return Mmap(
            lwp=self.tid,
            seq=seq,
            addr=addr,
            length=length,
            prot=RW,
            flags=flags,
            fd=fd,
            offset=offset,
        )

    def _access(self, base: int) -> MemOp:
        va = base + self.random.randrange(self.pages) * PAGE_SIZE + self.random.randrange(4) * 8
        return load(va) if self.random.random() < 0.5 else store(va, self._stamp())

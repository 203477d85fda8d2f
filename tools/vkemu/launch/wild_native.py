"""A host process that does anything to its memory: what it reads is judged by the reference."""

from __future__ import annotations

from random import Random
from typing import Final

from vkprotocol.effects import Spawn
from vkprotocol.insn import MemOp, load, store
from vkprotocol.messages import AnyRequest, CpuOps, Exit, Madvise, Mmap, Munmap
from vkprotocol.mman import (
    MADV_DONTNEED,
    MADV_FREE,
    MADV_WILLNEED,
    MAP_ANON,
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import PAGE_SIZE

from vkemu.launch.native import Killed, Native
from vkhost.kernel import Kernel

OPS: Final = ("touch", "touch", "touch", "map", "unmap", "advise")


class WildNative(Native):
    """`ops` operations on `pages` pages, drawn from `seed`. A fault is not the end of it."""

    def __init__(
        self, kernel: Kernel, spawn: Spawn, name: str, pages: int, ops: int, seed: int
    ) -> None:
        super().__init__(kernel, spawn, name, pages, ops)
        self.random = Random(seed)

    async def _main(self) -> None:
        try:
            base = await self._mmap()
            for _ in range(self.rounds):
                await self._call(self._drawn(base, self.random.choice(OPS)))
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

"""Native: a host process that is no vkernel. It has anonymous memory, and that is all it does.

What competes with guests for memory, fills swap, and can be killed for it (W11). Its words are its
own, so whatever it reads that it did not write is an error of the host.
"""

from __future__ import annotations

from vkprotocol.effects import Spawn, pause
from vkprotocol.errno import errno_name
from vkprotocol.insn import MemOp, load, store
from vkprotocol.limits import OPS_PER_BATCH
from vkprotocol.messages import CpuOps, Exit, Goodbye, Mmap, Reply, Request
from vkprotocol.mman import MAP_ANON, MAP_PRIVATE, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE

from vkhost.kern.proc import proc_create
from vkhost.kern.syscall import proc_start
from vkhost.kernel import Kernel


class Native:
    """`wrong`: (va, expected, got) of words that were not what it had written. `killed`: why."""

    def __init__(
        self,
        kernel: Kernel,
        spawn: Spawn,
        name: str,
        pages: int,
        rounds: int,
        pause_ms: int = 0,
        innocent: bool = False,
        lwps: int = 1,
    ) -> None:
        proc = proc_create(kernel, name, None, lwps)
        assert proc is not None, "the scenario was checked to have a CPU for it"
        self.name = name
        self.pages = pages
        self.rounds = rounds
        self.pause_ms = pause_ms  # of virtual time between two rounds
        self.proc = proc
        self.tid = 0  # of the lwp that this thread of user code has
        self.innocent = innocent
        self.seq = 0
        self.wrong: list[tuple[int, int, int]] = []
        self.killed: str | None = None
        proc_start(proc)
        spawn(name, self._main())

    async def _main(self) -> None:
        ns_per_ms = 1_000_000
        try:
            base = await self._mmap()
            for number in range(self.rounds):
                await self._touch(base, number)
                if self.pause_ms:
                    await pause(self.pause_ms * ns_per_ms)
            await self._call(Exit(lwp=0, seq=self._stamp()))
        except Killed as killed:
            self.killed = str(killed)

    async def _mmap(self) -> int:
        reply = await self._call(
            Mmap(
                lwp=0, seq=self._stamp(), addr=0, length=self.pages * PAGE_SIZE,
                prot=PROT_READ | PROT_WRITE, flags=MAP_ANON | MAP_PRIVATE, fd=-1, offset=0,
            )
        )  # fmt: skip
        assert not reply.errno, errno_name(reply.errno)
        return reply.value

    async def _touch(self, base: int, number: int) -> None:
        """Read what the last round wrote, zero before the first, and write this round's."""
        ops: list[MemOp] = []
        for page in range(self.pages):
            # Neighbouring pages use different words.
            va = base + page * PAGE_SIZE + page * 8 % PAGE_SIZE
            ops += load(va), store(va, self._word(page, number))
        for first in range(0, len(ops), OPS_PER_BATCH):
            batch = tuple(ops[first : first + OPS_PER_BATCH])
            reply = await self._call(CpuOps(lwp=0, seq=self._stamp(), ops=batch))
            if reply.errno:  # out of memory, or it has none any more
                await self._call(Exit(lwp=0, seq=self._stamp()))
                raise Killed(f"a fault at {batch[reply.value].va:#x}")
            for index, op in enumerate(batch):
                page = (first + index) // 2
                expected = self._word(page, number - 1) if number else 0
                if index % 2 == 0 and reply.values[index] != expected:
                    self.wrong.append((op.va, expected, reply.values[index]))

    def _word(self, page: int, number: int) -> int:
        round_step = 0x1_0000_0001
        page_step = 0x1_0001
        return (number + 1) * round_step + page * page_step

    def _stamp(self) -> int:
        self.seq += 1
        return self.seq

    async def _call(self, request: Request) -> Reply:
        lwp = self.proc.lwps[self.tid]
        await lwp.requests.send(request)
        reply: Reply | Goodbye = await lwp.replies.recv()
        if isinstance(reply, Goodbye):
            raise Killed(reply.reason)
        return reply


class Killed(Exception):
    """The host has ended the process."""

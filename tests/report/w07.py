"""W07 in miniature: cluster laundering strips PG_VPTMAPPED, the frame is reused under a live PTE.

Not the kernel model: fifty steps with real effects and the events the kernel would emit, small
enough to know by heart what the reports must say of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vkemu.executors.controlled import Choose, Execution
from vkemu.launch.outcome import recorded
from vkemu.oracle.violation import Happening, Violation
from vkemu.report.failure import Failure
from vkemu.report.recording import Recording
from vkprotocol.effects import CURTHREAD, Cell, Lock

PG_VPTMAPPED, PG_WRITEABLE, PG_MAPPED = 0x01, 0x10, 0x20
PTE = 12 << 12 | 0x467  # page 12, V RW U A M MANAGED
VA = 0x500000
TABLE = 40  # the frame of the guest's leaf page table


class Machine:
    """One run of the story. `exact` is a policy whose reverse map knows every PTE."""

    def __init__(self, choose: Callable[[Execution], Choose], *, exact: bool = False) -> None:
        self.execution = Execution()
        self.exact = exact
        self.pte = Cell(("pte", 1, VA >> 12), 0)
        self.flags = Cell(("page.flags", 12), 0)
        self.busy = Cell(("page.busy", 12), 0)
        self.free = Cell(("page.free", 12), 0)
        self.word = Cell(("word", 12, 0), 0)
        self.vpte = Cell(("word", TABLE, 0), 0x7003)
        self.queue = Lock("pq.active", rank=3)
        self.map_lock = Lock("map.1", rank=1)
        self.owner = "guest1"
        self.tlb = False
        self.freed: Happening | None = None
        self.count = 0
        spawn = self.execution.spawn
        spawn("vcpu0@guest1", self.guest())
        spawn("fault/1", self.fault())
        spawn("pagedaemon", self.pageout(), daemon=True)
        spawn("fault/2", self.new_owner(), daemon=True)
        self.recording = Recording(self.execution, choose(self.execution))
        self.emit = self.recording.emit
        self.emit("page.alloc", 12, 3, "guest1.img", 7)
        self.emit("page.queue", 12, "none", "active")
        self.emit("page.unbusy", 12, "hard")
        self.emit("cpu.pmap", 0, 1)

    def run(self) -> Violation | None:
        try:
            self.execution.run(self.recording, 1000)
        except Violation as violation:
            return violation
        finally:
            self.execution.close()
        return None

    def happening(self, name: str, *args: Any) -> Happening:
        self.count += 1
        self.emit(name, *args)
        thread = CURTHREAD[0]
        return Happening(self.count, "" if thread is None else thread.name, name, args)

    async def guest(self) -> None:
        await self.pte.wait(lambda pte: bool(pte & 1))
        self.emit("tlb.fill", 0, 1, VA, 12, PTE)
        self.tlb = True
        for value in range(6):
            await self.word.store(value)
            self.store(value)
        await self.vpte.swap(0)
        self.emit("mem.store", 0, 0, 0x80028000, TABLE, 0, 0)
        await self.map_lock.acquire()
        self.emit("map.lock", 1, False)
        self.emit("inval.begin", 1, VA, VA + 4096)
        old = await self.pte.swap(0)
        self.emit("pte.write", 1, VA, old, 0, "inval")
        self.emit("tlb.flush", 0, VA)
        self.emit("inval.end", 1, VA, VA + 4096)
        self.tlb = False
        await self.map_lock.release()
        self.emit("map.unlock", 1)

    def store(self, value: int) -> None:
        if not self.tlb:
            return
        now = self.happening("mem.store", 0, 1, VA, 12, 0, value)
        if self.freed is not None:
            raise Violation(
                2,
                "page 12 is written through 0x500000 by guest1, who no longer owns it",
                accesses=(self.freed, now),
                frame=12,
                owners=("guest1.img+7", self.owner),
            )

    async def fault(self) -> None:
        await self.map_lock.acquire()
        self.emit("fault.begin", 1, VA, "write")
        self.emit("map.lock", 1, False)
        self.emit("ilock.enter", 1, VA, VA + 4096)
        vpte = await self.vpte.load()
        self.emit("vpte.read", TABLE, 0, vpte, 0)
        await self.vpte.set_bits(0x60)
        self.emit("vpte.am", TABLE, 0, vpte, vpte | 0x60)
        await self.busy.store(1)
        self.emit("page.busy", 12, "hard")
        await self.flags.set_bits(PG_VPTMAPPED | PG_MAPPED | PG_WRITEABLE)
        self.emit("page.flags", 12, PG_VPTMAPPED | PG_MAPPED | PG_WRITEABLE, 0)
        await self.pte.store(PTE)
        self.emit("pte.write", 1, VA, 0, PTE, "enter")
        self.emit("ilock.exit", 1, VA, VA + 4096)
        await self.busy.store(0)
        self.emit("page.unbusy", 12, "hard")
        self.emit("fault.end", 1, VA, "KERN_SUCCESS")
        await self.map_lock.release()
        self.emit("map.unlock", 1)

    async def pageout(self) -> None:
        await self.flags.wait(lambda flags: bool(flags & PG_VPTMAPPED))
        self.emit("pageout.pass", 0, 4)
        async with self.queue:
            self.emit("pageout.page", 11, "launder")
        self.emit("pageout.launder", 11, 11, 2)
        await self.busy.wait(lambda busy: not busy)
        await self.busy.store(1)
        self.emit("page.busy", 12, "soft")
        self.emit("pageout.launder", 12, 11, 2)
        if self.exact:
            old = await self.pte.swap(0)
            self.emit("pte.write", 1, VA, old, 0, "remove_all")
            self.emit("tlb.flush", 0, VA)
            self.tlb = False
        await self.flags.clear_bits(PG_VPTMAPPED | PG_MAPPED | PG_WRITEABLE)
        self.emit("page.flags", 12, 0, PG_VPTMAPPED | PG_MAPPED | PG_WRITEABLE)
        self.emit("page.dirty", 12, 0xFF)
        await self.word.load()
        self.emit("pager.put", "guest1.img", 7, 12)
        self.emit("page.dirty", 12, 0)
        await self.queue.acquire()
        self.emit("page.queue", 12, "active", "cache")
        await self.queue.release()
        await self.busy.store(0)
        self.emit("page.unbusy", 12, "soft")
        await self.free.store(1)
        self.owner = "nobody"
        self.emit("page.queue", 12, "cache", "free")
        self.freed = self.happening("page.free", 12, 3)

    async def new_owner(self) -> None:
        await self.free.wait(bool)
        self.owner = "guest2.img+2"
        self.emit("page.alloc", 12, 4, "guest2.img", 2)
        await self.flags.store(0)
        self.emit("page.flags", 12, 0, 0)
        await self.word.store(0)
        self.emit("page.zero", 12)


def at_random(seed: int) -> Callable[[Execution], Choose]:
    from random import Random

    rng = Random(seed)
    return lambda execution: lambda runnable: runnable[rng.randrange(len(runnable))]


def find() -> tuple[Machine, Violation]:
    """The first seed that fails."""
    for seed in range(1000):
        machine = Machine(at_random(seed))
        violation = machine.run()
        if violation is not None and machine.owner == "guest2.img+2":
            return machine, violation
    raise AssertionError("no seed fails")


def rerun(choose: Choose, *, exact: bool = False) -> bool:
    return Machine(lambda execution: choose, exact=exact).run() is not None


def failure() -> Failure:
    """The failing run, measured."""
    first, _ = find()
    machine = Machine(lambda execution: recorded(first.recording.schedule))
    violation = machine.run()
    assert violation is not None
    machine.recording.events()
    told = Failure.of(
        violation,
        machine.recording.steps,
        replay="vkemu replay vk1.w07-in-miniature",
        context={"scenario": "w07", "policy": "vptmapped", "seed": "7"},
    )
    told.measure(rerun, {"policy pv_entry": lambda choose: rerun(choose, exact=True)})
    return told

"""Programs that do anything to their memory at the same time and know nothing of the outcome.

What several lwps that map, unmap, protect and store at once may see is a set, which no program can
say beforehand: so these check nothing. What they read, and where they fault, is judged from outside
by what they asked for (the oracle's reference); many of them die of it, as they should.
"""

from __future__ import annotations

from random import Random
from typing import Final

from vkprotocol.insn import addi, cas, ld, li, st
from vkprotocol.mman import (
    MADV_DONTNEED,
    MADV_FREE,
    MAP_ANON,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SIZEALIGN,
    MS_SYNC,
    PROT_NONE,
    PROT_READ,
)
from vkprotocol.param import PAGE_SIZE, SEG_SIZE

from vkguest.asm import CHILD, PAGE_STRIDE, PID, R0, SCRATCH, SCRATCH2, VA, VALUE, ZERO
from vkguest.kern.kern_exec import Program
from vkguest.kern.param import DATA_ADDRESS, LARGE_ADDRESS, MMAP_ADDRESS, SPARSE_ADDRESS
from vkguest.kern.sys_shm import SHM_PAGE_SHIFT
from vkguest.kern.syscall import Sys
from vkguest.workloads.words import PAGE_STEP, RW, STATUS_CHILD, begin, finish, value

REGIONS: Final = (DATA_ADDRESS, MMAP_ADDRESS, SPARSE_ADDRESS)
# Each as often as it is named.
OFTEN: Final = (
    "store", "store", "store", "load", "load", "load", "swap", "poke", "peek", "mmap", "mmap",
    "munmap", "mprotect", "mprotect", "madvise", "sched", "sched", "sync", "share", "share",
)  # fmt: skip


class Wild:
    """A program while it is drawn. `mapped` is what this line of it may count on, were it alone:
    most accesses go there, or there would soon be nobody left."""

    def __init__(self, random: Random, pages: int, *, msync: bool, large: bool = False) -> None:
        self.random = random
        self.pages = pages
        self.regions = (*REGIONS, LARGE_ADDRESS) if large else REGIONS
        self.often = OFTEN if msync else tuple(op for op in OFTEN if op != "sync")
        self.asm = begin()
        self.stores = 0
        self.mapped = self._all(DATA_ADDRESS)
        if large:
            self._large()

    def _all(self, base: int) -> set[int]:
        return {base + n * PAGE_SIZE for n in range(self.pages)}

    def _large(self) -> None:
        """A PS entry, which goes with the first part of it that is unmapped: there is one only as
        long as no page table is there. What is no large page is refused."""
        size, flags = self.pages * PAGE_SIZE, MAP_ANON | MAP_FIXED | MAP_SIZEALIGN
        for wrong in (
            (LARGE_ADDRESS + PAGE_SIZE, size, RW, flags),
            (LARGE_ADDRESS, SEG_SIZE + PAGE_SIZE, RW, flags),
            (LARGE_ADDRESS, size, RW, flags & ~MAP_FIXED),
            (LARGE_ADDRESS, size, RW, flags & ~MAP_ANON),
            (LARGE_ADDRESS, 0, RW, flags),
        ):
            self.asm.call(Sys.MMAP, *wrong)
            self.asm.check_result(0)  # no address
        self.asm.call(Sys.MMAP, LARGE_ADDRESS, size, RW, flags)
        self.mapped |= self._all(LARGE_ADDRESS)

    def _va(self) -> int:
        """A word, of which each page has few that are used."""
        where = sorted(self.mapped)
        if not where or self.random.random() < 0.05:
            where = sorted(va for base in self.regions for va in self._all(base))
        page = self.random.choice(where)
        return (
            page + page // PAGE_SIZE % 8 * (PAGE_STRIDE - PAGE_SIZE) + self.random.choice((0, 64))
        )

    def _value(self) -> None:
        self.stores += 1
        value(self.asm, self.stores * PAGE_STEP)

    def run(self, ops: int) -> None:
        for _ in range(ops):
            getattr(self, self.random.choice(self.often))()

    # One word.

    def store(self) -> None:
        self._value()
        self.asm.put(li(VA, self._va()), st(VALUE, VA))

    def load(self) -> None:
        self.asm.put(li(VA, self._va()), ld(SCRATCH, VA))

    def swap(self) -> None:
        self._value()
        self.asm.put(li(VA, self._va()), ld(SCRATCH, VA), cas(SCRATCH, VA, VALUE))

    def poke(self) -> None:
        self._value()
        self.asm.put(li(VA, self._va()))
        self.asm.call_regs(Sys.SUWORD, VA, VALUE)

    def peek(self) -> None:
        self.asm.put(li(VA, self._va()))
        self.asm.call_regs(Sys.FUWORD, VA)

    def sched(self) -> None:
        self.asm.call(Sys.YIELD)

    # A range.

    def _range(self) -> tuple[int, int, set[int]]:
        base = self.random.choice(self.regions)
        low = self.random.randrange(self.pages)
        count = self.random.randint(1, self.pages - low)
        start = base + low * PAGE_SIZE
        return start, count * PAGE_SIZE, {start + n * PAGE_SIZE for n in range(count)}

    def mmap(self) -> None:
        start, size, inside = self._range()
        shared = self.random.choice((0, 0, MAP_SHARED))
        self.asm.call(Sys.MMAP, start, size, RW, MAP_ANON | MAP_FIXED | shared)
        self.mapped |= inside

    def share(self) -> None:
        """One object at several addresses, each from another page of it on; whoever asks for the
        number has it."""
        start, size, inside = self._range()
        flags = self.random.choice((MAP_SHARED, MAP_SHARED, MAP_PRIVATE))
        word = self.random.choice((1, 2)) | self.random.randrange(2) << SHM_PAGE_SHIFT
        self.asm.call(Sys.MMAP, start, size, RW, MAP_FIXED | flags, word)
        self.mapped |= inside

    def munmap(self) -> None:
        start, size, inside = self._range()
        self.asm.call(Sys.MUNMAP, start, size)
        self.mapped -= inside

    def mprotect(self) -> None:
        start, size, inside = self._range()
        prot = self.random.choice((PROT_NONE, PROT_READ, RW, RW))
        self.asm.call(Sys.MPROTECT, start, size, prot)
        if prot != RW:
            self.mapped -= inside

    def madvise(self) -> None:
        start, size, _ = self._range()
        self.asm.call(Sys.MADVISE, start, size, self.random.choice((MADV_FREE, MADV_DONTNEED)))

    def sync(self) -> None:
        start, size, _ = self._range()
        self.asm.call(Sys.MSYNC, start, size, MS_SYNC)

    # Processes.

    def fork(self, ops: int, depth: int) -> None:
        """A child, in which two lwps go on at once; it forks again while the parent waits."""
        asm, before = self.asm, set(self.mapped)
        child, lwp, done = asm.fresh("child"), asm.fresh("lwp"), asm.fresh("done")
        asm.call(Sys.FORK)
        asm.put(addi(CHILD, R0, 0))
        asm.beq(CHILD, ZERO, child)
        self.run(ops // 2)  # the parent, meanwhile
        asm.call_regs(Sys.WAIT4, CHILD)
        asm.jump(done)
        asm.label(child)
        self.mapped = set(before)
        if self.random.random() < 0.7:
            asm.target(SCRATCH2, lwp)
            asm.call_regs(Sys.LWP_CREATE, SCRATCH2, PID)
        self.run(ops)
        depth_max = 4  # of processes below the first
        if depth < depth_max:
            self.fork(max(1, ops * 2 // 3), depth + 1)
        asm.exit(STATUS_CHILD)
        asm.label(lwp)
        self.mapped = set(before)
        self.run(ops)
        asm.call(Sys.EXTEXIT, 0)
        asm.label(done)
        self.mapped = before


def wild(
    ops: int = 6, pages: int = 2, forks: int = 2, seed: int = 0, msync: int = 1, large: int = 0
) -> Program:
    """`forks` trees of processes, one after the other, of `ops` operations each and fewer below;
    with `large` pages among their memory."""
    program = Wild(Random(seed), pages, msync=bool(msync), large=bool(large))
    program.run(ops)
    for _ in range(forks):
        program.fork(ops, 1)
        # What it may have lost meanwhile does not matter to the next tree.
        program.asm.call(Sys.MMAP, DATA_ADDRESS, pages * PAGE_SIZE, RW, MAP_ANON | MAP_FIXED)
        program.mapped |= program._all(DATA_ADDRESS)
    return finish(program.asm, f"wild{seed}", pages)

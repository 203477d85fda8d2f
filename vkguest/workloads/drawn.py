"""Programs drawn from a seed: a straight line of everything a process can do to its memory.

What each page's word must be is known as the program is assembled, so every read is checked: a
word of another process, another page or an older store is told apart. Where MADV_FREE leaves two
answers, both are allowed, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from vkprotocol.insn import addi, ld, li, st, syscall
from vkprotocol.mman import (
    MADV_DONTNEED,
    MADV_FREE,
    MADV_WILLNEED,
    MAP_ANON,
    MAP_FIXED,
    MAP_SHARED,
    MS_SYNC,
    PROT_READ,
)
from vkprotocol.param import PAGE_SIZE

from vkguest.asm import (
    CHILD,
    PAGE_STRIDE,
    PID,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    ROUND,
    SCRATCH,
    SCRATCH2,
    VA,
    VALUE,
    ZERO,
    Asm,
)
from vkguest.kern.kern_exec import Program
from vkguest.kern.kern_sig import STATUS_KILLED
from vkguest.kern.param import DATA_ADDRESS, MMAP_ADDRESS, SPARSE_ADDRESS
from vkguest.kern.sys_shm import SHM_PAGE_SHIFT
from vkguest.kern.syscall import Sys
from vkguest.workloads.words import PAGE_STEP, ROUND_STEP, RW, STATUS_CHILD, begin, finish, value

REGIONS: Final = (DATA_ADDRESS, MMAP_ADDRESS, SPARSE_ADDRESS)  # the last has a table of its own
DEPTH: Final = 2  # of processes below the first
# Each as often as it is named. What forks is dear: a process is six pages at least.
OFTEN: Final = (
    "store", "store", "store", "store", "check", "check", "check", "mmap", "mmap", "munmap",
    "mprotect", "madvise", "madvise", "sync", "poke", "pipe", "sched", "share",
)  # fmt: skip

Word = int | None  # an offset from the pid in register PID, or None for a zero word


@dataclass
class Page:
    """One word of it is looked at. `allowed`: what that word may be."""

    va: int
    writable: bool = True
    allowed: tuple[Word, ...] = (None,)


@dataclass
class Drawn:
    """A program while it is drawn. `pages` are those that are mapped just now."""

    random: Random
    count: int  # pages in a region
    asm: Asm = field(default_factory=begin)
    pages: dict[int, Page] = field(default_factory=dict)
    images: list[Program] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)  # one for each object with a number
    stores: int = 0
    depth: int = 0
    msync: bool = True

    def start(self) -> None:
        self._map(DATA_ADDRESS)

    def _map(self, base: int) -> None:
        for n in range(self.count):
            self.pages[base + n * PAGE_SIZE] = Page(base + n * PAGE_STRIDE)

    def draw(self, ops: int, *, alone: bool = True) -> None:
        """`ops` operations; not `alone` while a child or a second lwp is waited for."""
        may_fork = alone and self.depth < DEPTH
        once = ("fork", "fork", "exec", "lwp", "kill")
        for _ in range(ops):
            op = self.random.choice((*OFTEN, *once) if may_fork else OFTEN)
            if op != "sync" or self.msync:
                getattr(self, op)()
        self.check_all()

    # One page.

    def _page(self, *, writable: bool = False) -> Page | None:
        pages = [p for _, p in sorted(self.pages.items()) if p.writable or not writable]
        return self.random.choice(pages) if pages else None

    def _next(self) -> int:
        self.stores += 1
        return self.stores * ROUND_STEP + self.depth * PAGE_STEP

    def store(self) -> None:
        page = self._page(writable=True)
        if page is not None:
            self._store(page)

    def _store(self, page: Page) -> None:
        extra = self._next()
        value(self.asm, extra)
        self.asm.put(li(VA, page.va), st(VALUE, VA))
        page.allowed = (extra,)

    def check(self) -> None:
        page = self._page()
        if page is not None:
            self._check(page)

    def _check(self, page: Page) -> None:
        """The last of the allowed words is what a failure names as expected."""
        asm, right = self.asm, self.asm.fresh("right")
        asm.put(li(VA, page.va))
        for word in page.allowed:
            if word is None:
                asm.put(li(VALUE, 0))
            else:
                value(asm, word)
            if word is not page.allowed[-1]:
                asm.put(ld(SCRATCH, VA))
                asm.beq(SCRATCH, VALUE, right)
        asm.check_word(VA, VALUE)
        asm.label(right)

    def check_all(self) -> None:
        """All that was stored."""
        for _, page in sorted(self.pages.items()):
            if page.allowed != (None,):
                self._check(page)

    def poke(self) -> None:
        """The kernel writes and reads it."""
        page = self._page(writable=True)
        if page is None:
            return
        extra = self._next()
        self.asm.put(li(VA, page.va), addi(SCRATCH, PID, extra))
        self.asm.call_regs(Sys.SUWORD, VA, SCRATCH)
        self.asm.check_result(0)
        self.asm.call_regs(Sys.FUWORD, VA)
        self._check_result(extra)
        page.allowed = (extra,)
        self._check(page)

    def _check_result(self, extra: int) -> None:
        """The last call's result is a word that was stored."""
        self.asm.put(addi(R3, R0, 0), li(R1, 0), addi(R2, PID, extra))
        self.asm.bne(R3, R2, "fail")

    def sched(self) -> None:
        self.asm.call(Sys.YIELD)

    # A range.

    def _range(self, first: int = 0) -> tuple[int, int, list[int]]:
        """A part of a region, of one that is mapped if any is: start, size, pages mapped there."""
        mapped = [base for base in REGIONS[first:] if base in self.pages]
        base = self.random.choice(mapped or REGIONS[first:])
        low = self.random.randrange(self.count)
        size = self.random.randint(1, self.count - low) * PAGE_SIZE
        start = base + low * PAGE_SIZE
        return start, size, [va for va in sorted(self.pages) if start <= va < start + size]

    def mmap(self) -> None:
        base = self.random.choice(REGIONS[1:])
        size = self.count * PAGE_SIZE
        self.asm.call(Sys.MMAP, base, size, RW, MAP_ANON | MAP_FIXED)
        self.asm.check_result(base)
        self._map(base)

    def share(self) -> None:
        """An object at two addresses, at one of them from a page of it on: what is stored at one is
        at the other. Its number is this program's, and this line's."""
        asm, extra, first = self.asm, self._next(), self.random.randrange(2)
        size, flags = 2 * PAGE_SIZE, MAP_SHARED | MAP_FIXED
        a, b = (base + self.count * PAGE_SIZE for base in REGIONS[1:])
        self.shared.append(extra)
        number = len(self.shared) << 32
        for address, word in ((a, number), (b, number | first << SHM_PAGE_SHIFT)):
            asm.put(li(R1, address), li(R2, size), li(R3, RW), li(R4, flags), addi(R5, PID, word))
            asm.put(li(R0, Sys.MMAP), syscall())
            asm.check_result(address)
        ways = [a + first * PAGE_SIZE, b]
        self.random.shuffle(ways)
        value(asm, extra)
        asm.put(li(VA, ways[0]), st(VALUE, VA))
        if self.random.random() < 0.5:
            self.sched()
        asm.put(li(VA, ways[1]))
        asm.check_word(VA, VALUE)
        for address in (a, b):
            asm.call(Sys.MUNMAP, address, size)
            asm.check_result(0)
        asm.put(addi(SCRATCH, PID, number))
        asm.call_regs(Sys.SHM_UNLINK, SCRATCH)
        asm.check_result(0)

    def munmap(self) -> None:
        start, size, inside = self._range(1)
        self.asm.call(Sys.MUNMAP, start, size)
        self.asm.check_result(0)
        for va in inside:
            del self.pages[va]

    def mprotect(self) -> None:
        start, size, inside = self._range(1)
        prot = self.random.choice((PROT_READ, RW))
        self.asm.call(Sys.MPROTECT, start, size, prot)
        self.asm.check_result(0)
        for va in inside:
            self.pages[va].writable = prot == RW

    def madvise(self) -> None:
        start, size, inside = self._range()
        advice = self.random.choice((MADV_DONTNEED, MADV_FREE, MADV_WILLNEED))
        self.asm.call(Sys.MADVISE, start, size, advice)
        self.asm.check_result(0)
        if advice == MADV_FREE:
            for va in inside:
                page = self.pages[va]
                page.allowed = (*(word for word in page.allowed if word is not None), None)

    def sync(self) -> None:
        start, size, inside = self._range()
        self.asm.call(Sys.MSYNC, start, size, MS_SYNC)
        if size == len(inside) * PAGE_SIZE:  # it refuses holes
            self.asm.check_result(0)

    # More than one process or lwp.

    def pipe(self) -> None:
        """Words through the kernel and back."""
        extras = [self._next() for _ in range(self.random.randint(1, 3))]
        asm = self.asm
        asm.call(Sys.PIPE, self.random.randint(1, 2))
        asm.put(addi(SCRATCH2, R0, 0))
        for extra in extras:
            value(asm, extra)
            asm.call_regs(Sys.PIPE_WRITE, SCRATCH2, VALUE)
        for extra in extras:
            asm.call_regs(Sys.PIPE_READ, SCRATCH2)
            self._check_result(extra)
        asm.call_regs(Sys.PIPE_CLOSE, SCRATCH2)
        asm.check_result(0)

    def _child(self) -> Drawn:
        """The same program in a process that starts with what this one has mapped."""
        pages = {va: Page(p.va, p.writable, p.allowed) for va, p in self.pages.items()}
        return Drawn(
            self.random, self.count, self.asm, pages, self.images, self.shared,
            self.stores, self.depth + 1, self.msync,
        )  # fmt: skip

    def fork(self) -> None:
        self._fork(lambda child: child.draw(self.random.randint(1, 4)))

    def exec(self) -> None:
        """The child becomes another program, on memory of its own."""
        image = Drawn(self.random, self.count, shared=self.shared, depth=DEPTH, msync=self.msync)
        image.start()
        image.draw(self.random.randint(1, 4))
        image.asm.exit(STATUS_CHILD)
        self.images.append(Program(f"image{len(self.images)}", image.asm.text(), self.count))
        number = len(self.images) - 1

        def body(child: Drawn) -> None:
            child.check()
            child.asm.call(Sys.EXECVE, number)

        self._fork(body)

    def _fork(self, body: Callable[[Drawn], None], *, kill: bool = False) -> None:
        """Both go on at the same time; then the parent waits."""
        asm = self.asm
        label, done = asm.fresh("child"), asm.fresh("done")
        child = self._child()
        asm.call(Sys.FORK)
        asm.put(addi(CHILD, R0, 0))
        asm.beq(CHILD, ZERO, label)
        self.draw(self.random.randint(0, 2), alone=False)
        if kill:
            asm.call_regs(Sys.KILL, CHILD)
        self._wait(done)
        asm.label(label)
        body(child)
        self.stores = max(self.stores, child.stores)  # the next child starts beyond
        asm.exit(STATUS_CHILD)
        asm.label(done)

    def _wait(self, done: str) -> None:
        """The child ends well, or is killed, if not by its parent then for its memory."""
        asm = self.asm
        asm.call_regs(Sys.WAIT4, CHILD)
        asm.put(li(SCRATCH, STATUS_KILLED))
        asm.beq(R0, SCRATCH, done)
        asm.check_result(STATUS_CHILD)
        asm.jump(done)

    def kill(self) -> None:
        """A child that stores until it is killed, or tired of it."""

        kill_rounds = 20

        def body(child: Drawn) -> None:
            asm, again = child.asm, child.asm.fresh("again")
            asm.put(li(ROUND, 0))
            asm.label(again)
            child.store()
            child.check()
            asm.put(addi(ROUND, ROUND, 1), li(SCRATCH, kill_rounds))
            asm.bne(ROUND, SCRATCH, again)

        self._fork(body, kill=True)

    def lwp(self) -> None:
        """A second lwp stores to one page all the time while this one goes on with the others."""
        page = self._page(writable=True)
        if page is None:
            return
        asm = self.asm
        label, done = asm.fresh("lwp"), asm.fresh("done")
        extras = [self._next() for _ in range(3)]
        asm.target(SCRATCH, label)
        asm.call_regs(Sys.LWP_CREATE, SCRATCH, PID)
        asm.put(addi(CHILD, R0, 0))
        theirs = self.pages.pop(page.va & -PAGE_SIZE)
        for _ in range(self.random.randint(1, 3)):
            self.random.choice((self.store, self.check, self.poke, self.sched))()
        asm.call_regs(Sys.LWP_JOIN, CHILD)
        asm.jump(done)
        asm.label(label)
        for extra in extras:
            value(asm, extra)
            asm.put(li(VA, page.va), st(VALUE, VA))
            asm.check_word(VA, VALUE)
            asm.call(Sys.YIELD)
        asm.call(Sys.EXTEXIT, 0)
        asm.label(done)
        theirs.allowed = (extras[-1],)
        self.pages[page.va & -PAGE_SIZE] = theirs
        self._check(theirs)


def drawn(ops: int = 12, pages: int = 3, seed: int = 0, msync: int = 1) -> Program:
    """`ops` operations on three regions of `pages` pages each; msync is among them, or not."""
    program = Drawn(Random(seed), pages, msync=bool(msync))
    program.start()
    program.draw(ops)
    return finish(program.asm, f"random{seed}", pages, *program.images)

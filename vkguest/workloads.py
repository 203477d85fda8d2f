"""Named guest programs. Each computes what its memory must hold and checks every word it reads.

`workload("touch:pages=4,rounds=2")` gives the Program. Values depend on the process (its pid), the
page and the round, so a word of another process, another page or an older round is told apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from random import Random
from typing import Final

from vkprotocol.insn import addi, cas, ld, li, st
from vkprotocol.mman import MAP_ANON, MAP_FIXED, MAP_SIZEALIGN, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE, SEG_SIZE, VM_MAX_USER_ADDRESS

from vkguest.asm import CHILD, PAGE_STRIDE, PID, R0, ROUND, SCRATCH, SCRATCH2, VA, VALUE, ZERO, Asm
from vkguest.kern_exec import Program, insn_word
from vkguest.param import DATA_ADDRESS, LARGE_ADDRESS, MMAP_ADDRESS, TEXT_ADDRESS
from vkguest.syscall import Sys

PAGE_STEP: Final = 0x1_0001  # from one page to the next
ROUND_STEP: Final = 0x1_0000_0001  # from one round to the next
CHILD_STEP: Final = 0x7_0000_0000_0000  # from parent to child
STATUS_CHILD: Final = 7
RW: Final = PROT_READ | PROT_WRITE


def _begin(asm: Asm) -> None:
    """r6 := the pid, of which every value is made."""
    asm.call(Sys.GETPID)
    asm.put(addi(PID, R0, 0))


def _value(asm: Asm, extra: int = 0) -> None:
    asm.put(addi(VALUE, PID, extra))


def _end(asm: Asm, name: str, pages: int, *images: Program) -> Program:
    asm.exit(0)
    return Program(name, asm.text(), pages, images)


def touch(pages: int = 4, rounds: int = 2) -> Program:
    """Fresh memory is zero; then every round checks what the last one wrote, and writes anew."""
    asm = Asm()
    _begin(asm)
    asm.check_text(TEXT_ADDRESS, insn_word(asm.insns[0]))
    asm.put(li(VALUE, 0))
    asm.check_pages(DATA_ADDRESS, pages, 0)
    for number in range(rounds):
        _value(asm, number * ROUND_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.YIELD)
        _value(asm, number * ROUND_STEP)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
    return _end(asm, "touch", pages + 1)


def hog(pages: int = 48, rounds: int = 3) -> Program:
    """`touch` with a working set larger than its share, and no pause."""
    asm = Asm()
    _begin(asm)
    _value(asm)
    asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
    for number in range(rounds):
        _value(asm, number * ROUND_STEP)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
        _value(asm, (number + 1) * ROUND_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
    _value(asm, rounds * ROUND_STEP)
    asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
    return _end(asm, "hog", pages + 1)


def forkcow(pages: int = 2, rounds: int = 1) -> Program:
    """fork: the child finds the parent's words, both write their own, and neither sees the
    other's."""
    asm = Asm()
    _begin(asm)
    for number in range(rounds):
        child, done = asm.fresh("child"), asm.fresh("done")
        mine = number * ROUND_STEP
        _value(asm, mine)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.FORK)
        asm.put(addi(CHILD, R0, 0))
        asm.beq(CHILD, ZERO, child)
        _value(asm, mine + ROUND_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.YIELD)
        _value(asm, mine + ROUND_STEP)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call_regs(Sys.WAIT4, CHILD)
        asm.check_result(STATUS_CHILD)
        asm.jump(done)
        asm.label(child)
        _value(asm, mine)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
        _value(asm, CHILD_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.YIELD)
        _value(asm, CHILD_STEP)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.exit(STATUS_CHILD)
        asm.label(done)
    return _end(asm, "forkcow", pages + 1)


def mmapper(pages: int = 2, rounds: int = 2) -> Program:
    """Map at the same place again and again: new memory is zero, read-only keeps what was there."""
    asm = Asm()
    _begin(asm)
    size = (pages + 1) * PAGE_SIZE
    for number in range(rounds):
        asm.call(Sys.MMAP, MMAP_ADDRESS, size, RW, MAP_ANON | MAP_FIXED)
        asm.check_result(MMAP_ADDRESS)
        asm.put(li(VALUE, 0))
        asm.check_pages(MMAP_ADDRESS, pages, 0)
        _value(asm, number * ROUND_STEP)
        asm.store_pages(MMAP_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.MPROTECT, MMAP_ADDRESS, size, PROT_READ)
        _value(asm, number * ROUND_STEP)
        asm.check_pages(MMAP_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.MPROTECT, MMAP_ADDRESS, size, RW)
        _value(asm, (number + 1) * ROUND_STEP)
        asm.store_pages(MMAP_ADDRESS, pages, PAGE_STEP)
        _value(asm, (number + 1) * ROUND_STEP)
        asm.check_pages(MMAP_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.MUNMAP, MMAP_ADDRESS, size)
        asm.check_result(0)
    return _end(asm, "mmapper", 0)


def execs(rounds: int = 2, pages: int = 2) -> Program:
    """exec a chain of images: each starts on zeroed memory, in a vmspace whose id was used."""
    program = _image(0, pages)
    for number in range(1, rounds + 1):
        program = _image(number, pages, program)
    return program


def _image(number: int, pages: int, *images: Program) -> Program:
    asm = Asm()
    _begin(asm)
    asm.put(li(VALUE, 0))
    asm.check_pages(DATA_ADDRESS, pages, 0)
    _value(asm, number * ROUND_STEP)
    asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
    if images:
        asm.call(Sys.EXECVE, 0)
        asm.check_result(0)  # not reached, unless exec failed
    return _end(asm, f"exec{number}", pages + 1, *images)


def idle(rounds: int = 3) -> Program:
    """Gives the CPU up a few times, and ends."""
    asm = Asm()
    for _ in range(rounds):
        asm.call(Sys.YIELD)
    return _end(asm, "idle", 0)


def threads(rounds: int = 8, pages: int = 1) -> Program:
    """Two lwps of one process count in the same words, by cas: no increment is lost."""
    asm = Asm()
    _begin(asm)
    asm.target(SCRATCH, "lwp")
    asm.call_regs(Sys.LWP_CREATE, SCRATCH, PID)
    asm.put(addi(CHILD, R0, 0))
    asm.put(li(SCRATCH2, 0))
    asm.label("lwp")
    asm.put(li(ROUND, 0))
    asm.label("round")
    for page in range(pages):
        again = asm.fresh("again")
        asm.put(li(VA, DATA_ADDRESS + page * PAGE_STRIDE))
        asm.label(again)
        asm.put(ld(VALUE, VA), addi(SCRATCH, VALUE, 1), addi(SCRATCH2, VALUE, 0))
        asm.put(cas(SCRATCH2, VA, SCRATCH))
        asm.bne(SCRATCH2, VALUE, again)
    asm.put(addi(ROUND, ROUND, 1), li(SCRATCH, rounds))
    asm.bne(ROUND, SCRATCH, "round")
    asm.beq(CHILD, ZERO, "end")
    asm.call_regs(Sys.LWP_JOIN, CHILD)
    asm.put(li(VALUE, 2 * rounds))
    asm.check_pages(DATA_ADDRESS, pages, 0)
    asm.exit(0)
    asm.label("end")
    asm.call(Sys.EXTEXIT, 0)
    return Program("threads", asm.text(), pages + 1)


def snapshot(rounds: int = 6, pages: int = 1) -> Program:
    """One lwp writes all the time while the other forks: the child's copy does not move (W03)."""
    asm = Asm()
    _begin(asm)
    asm.target(SCRATCH, "writer")
    asm.call_regs(Sys.LWP_CREATE, SCRATCH, PID)
    asm.put(addi(ROUND, R0, 0))
    asm.call(Sys.YIELD)
    asm.call(Sys.FORK)
    asm.put(addi(CHILD, R0, 0))
    asm.beq(CHILD, ZERO, "child")
    asm.call_regs(Sys.WAIT4, CHILD)
    asm.check_result(STATUS_CHILD)
    asm.call_regs(Sys.LWP_JOIN, ROUND)
    asm.exit(0)
    asm.label("child")
    for page in range(pages):
        asm.put(li(VA, DATA_ADDRESS + page * PAGE_STRIDE), ld(VALUE, VA))
        for _ in range(rounds):
            asm.check_word(VA, VALUE)
    asm.exit(STATUS_CHILD)
    asm.label("writer")
    for number in range(rounds):
        _value(asm, number * ROUND_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
    asm.call(Sys.EXTEXIT, 0)
    return Program("snapshot", asm.text(), pages + 1)


def poke(pages: int = 2, rounds: int = 1) -> Program:
    """The kernel reads and writes the program's memory, in parent and child after a fork.

    The program has read each page, so it has a translation, of the page it shares; the kernel then
    writes, which makes a copy, and the program must find what was written.
    """
    asm = Asm()
    _begin(asm)
    for number in range(rounds):
        child, done = asm.fresh("child"), asm.fresh("done")
        _value(asm, number * ROUND_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.FORK)
        asm.put(addi(CHILD, R0, 0))
        _value(asm, number * ROUND_STEP)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
        for page in range(pages):
            asm.put(li(VA, DATA_ADDRESS + page * PAGE_STRIDE), addi(SCRATCH, CHILD, page + 1))
            asm.call_regs(Sys.SUWORD, VA, SCRATCH)
            asm.check_result(0)
            asm.check_word(VA, SCRATCH)
            asm.call_regs(Sys.FUWORD, VA)
            asm.put(addi(VALUE, R0, 0))
            asm.check_word(VA, VALUE)
        asm.beq(CHILD, ZERO, child)
        asm.call_regs(Sys.WAIT4, CHILD)
        asm.check_result(STATUS_CHILD)
        asm.jump(done)
        asm.label(child)
        asm.exit(STATUS_CHILD)
        asm.label(done)
    return _end(asm, "poke", pages + 1)


def pipe(words: int = 4, rounds: int = 2) -> Program:
    """A child sends words through the kernel; buffers come and go at the same KVA."""
    asm = Asm()
    _begin(asm)
    for number in range(rounds):
        child, done = asm.fresh("child"), asm.fresh("done")
        asm.call(Sys.PIPE, 1 + number % 2)
        asm.put(addi(SCRATCH2, R0, 0))
        asm.call(Sys.FORK)
        asm.put(addi(CHILD, R0, 0))
        asm.beq(CHILD, ZERO, child)
        for word in range(words):
            asm.call_regs(Sys.PIPE_READ, SCRATCH2)
            asm.put(addi(VALUE, R0, 0), li(VA, DATA_ADDRESS), st(VALUE, VA))
            asm.put(addi(SCRATCH, PID, word * PAGE_STEP + number * ROUND_STEP))
            asm.check_word(VA, SCRATCH)
        asm.call_regs(Sys.WAIT4, CHILD)
        asm.call_regs(Sys.PIPE_CLOSE, SCRATCH2)
        asm.check_result(0)
        asm.jump(done)
        asm.label(child)
        for word in range(words):
            asm.put(addi(VALUE, PID, word * PAGE_STEP + number * ROUND_STEP))
            asm.call_regs(Sys.PIPE_WRITE, SCRATCH2, VALUE)
        asm.exit(STATUS_CHILD)
        asm.label(done)
    return _end(asm, "pipe", 1)


def killer(rounds: int = 1) -> Program:
    """Kill a child that never ends by itself."""
    asm = Asm()
    _begin(asm)
    for _ in range(rounds):
        child, done = asm.fresh("child"), asm.fresh("done")
        asm.call(Sys.FORK)
        asm.put(addi(CHILD, R0, 0))
        asm.beq(CHILD, ZERO, child)
        asm.call(Sys.YIELD)
        asm.call_regs(Sys.KILL, CHILD)
        asm.call_regs(Sys.WAIT4, CHILD)
        asm.check_result(128 + 9)
        asm.jump(done)
        asm.label(child)
        asm.put(li(VA, DATA_ADDRESS), st(PID, VA))
        asm.check_word(VA, PID)
        asm.jump(child)
        asm.label(done)
    return _end(asm, "killer", 1)


def large(pages: int = 8, rounds: int = 1) -> Program:
    """A PS mapping goes away in halves, upper half first; what is mapped there next is zero (W17).

    The INVAL of the first half begins in the middle and misses the lower half; when that goes, its
    PDE is 0 already and nobody says INVAL again.
    """
    return _large("large", LARGE_ADDRESS, pages, rounds)


def largetop(pages: int = 8, rounds: int = 1) -> Program:
    """`large` in the last 2 MB of user space, where the host refuses an unrounded INVAL (W18)."""
    return _large("largetop", VM_MAX_USER_ADDRESS - SEG_SIZE, pages, rounds)


def _large(name: str, address: int, pages: int, rounds: int) -> Program:
    asm = Asm()
    _begin(asm)
    half = pages // 2 * PAGE_SIZE
    flags = MAP_ANON | MAP_FIXED
    for number in range(rounds):
        asm.call(Sys.MMAP, address, 2 * half, RW, flags | MAP_SIZEALIGN)
        asm.check_result(address)
        _value(asm, number * ROUND_STEP)
        asm.store_pages(address, pages - 1, PAGE_STEP)
        _value(asm, number * ROUND_STEP)
        asm.check_pages(address, pages - 1, PAGE_STEP)
        asm.call(Sys.MUNMAP, address + half, half)
        asm.call(Sys.MUNMAP, address, half)
        # Frames freed last are used first: what is written now goes where stale translations lead.
        asm.call(Sys.MMAP, MMAP_ADDRESS, 2 * half, RW, flags)
        _value(asm, CHILD_STEP)
        asm.store_pages(MMAP_ADDRESS, pages - 1, PAGE_STEP)
        asm.call(Sys.MMAP, address, half, RW, flags)
        asm.put(li(VALUE, 0))
        asm.check_pages(address, pages // 2 - 1, 0)
        asm.call(Sys.MUNMAP, address, half)
        asm.call(Sys.MUNMAP, MMAP_ADDRESS, 2 * half)
    return _end(asm, name, 1)


def mixed(seed: int = 0, rounds: int = 12, pages: int = 4) -> Program:
    """A straight line of random operations on a few pages, each word known at assembly time."""
    random = Random(seed)
    asm = Asm()
    _begin(asm)
    words: dict[int, int | None] = dict.fromkeys(range(pages))  # page -> offset of pid, None: zero
    protection = RW
    size = (pages + 1) * PAGE_SIZE
    asm.call(Sys.MMAP, MMAP_ADDRESS, size, RW, MAP_ANON | MAP_FIXED)
    for step in range(1, rounds + 1):
        page = random.randrange(pages)
        va = MMAP_ADDRESS + page * PAGE_STRIDE
        action = random.choice(("store", "store", "check", "check", "remap", "protect", "fork"))
        asm.put(li(VA, va))
        if action == "store" and protection & PROT_WRITE:
            words[page] = step * ROUND_STEP
            _value(asm, step * ROUND_STEP)
            asm.put(st(VALUE, VA))
        elif action == "remap":
            asm.call(Sys.MMAP, MMAP_ADDRESS, size, RW, MAP_ANON | MAP_FIXED)
            words = dict.fromkeys(range(pages))
            protection = RW
        elif action == "protect":
            protection ^= PROT_WRITE
            asm.call(Sys.MPROTECT, MMAP_ADDRESS, size, protection)
        elif action == "fork":
            _mixed_fork(asm, words)
        else:
            _check_known(asm, page, words[page])
    for page, extra in words.items():
        _check_known(asm, page, extra)
    return _end(asm, f"mixed{seed}", 1)


def _check_known(asm: Asm, page: int, extra: int | None) -> None:
    asm.put(li(VA, MMAP_ADDRESS + page * PAGE_STRIDE))
    if extra is None:
        asm.check_word(VA, ZERO)
    else:
        _value(asm, extra)
        asm.check_word(VA, VALUE)


def _mixed_fork(asm: Asm, words: dict[int, int | None]) -> None:
    """A child checks all it has inherited and ends; the parent waits."""
    done = asm.fresh("done")
    asm.call(Sys.FORK)
    asm.put(addi(CHILD, R0, 0))
    asm.bne(CHILD, ZERO, done)
    for page, extra in words.items():
        _check_known(asm, page, extra)
    asm.exit(STATUS_CHILD)
    asm.label(done)
    asm.call_regs(Sys.WAIT4, CHILD)
    asm.check_result(STATUS_CHILD)


WORKLOADS: Final[dict[str, Callable[..., Program]]] = {
    "touch": touch,
    "hog": hog,
    "forkcow": forkcow,
    "mmapper": mmapper,
    "exec": execs,
    "idle": idle,
    "threads": threads,
    "snapshot": snapshot,
    "poke": poke,
    "pipe": pipe,
    "killer": killer,
    "large": large,
    "largetop": largetop,
    "mixed": mixed,
}


def workload(spec: str) -> Program:
    """The Program of `name` or `name:parameter=number,...`; ValueError says what is wrong."""
    name, _, rest = spec.partition(":")
    make = WORKLOADS.get(name)
    if make is None:
        raise ValueError(f"no workload {name!r}; there are: {', '.join(WORKLOADS)}")
    known = inspect.signature(make).parameters
    values: dict[str, int] = {}
    for pair in filter(None, rest.split(",")):
        key, _, number = pair.partition("=")
        if key not in known:
            there = ", ".join(known)
            raise ValueError(f"workload {name}: no parameter {key!r}; there are: {there}")
        if not number.isdecimal():
            raise ValueError(f"workload {name}: {key} is {number!r}, not a number")
        values[key] = int(number)
    return make(**values)

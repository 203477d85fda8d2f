"""Programs of several processes and threads."""

from __future__ import annotations

from vkprotocol.insn import addi, cas, ld, li, st

from vkguest.asm import CHILD, PAGE_STRIDE, PID, R0, ROUND, SCRATCH, SCRATCH2, VA, VALUE, ZERO, Asm
from vkguest.kern.kern_exec import Program
from vkguest.kern.param import DATA_ADDRESS
from vkguest.kern.syscall import Sys
from vkguest.workloads.words import (
    CHILD_STEP,
    PAGE_STEP,
    ROUND_STEP,
    STATUS_CHILD,
    begin,
    finish,
    value,
)


def forkcow(pages: int = 2, rounds: int = 1) -> Program:
    """fork: the child finds the parent's words, both write their own, and neither sees the
    other's."""
    asm = begin()
    for number in range(rounds):
        child, done = asm.fresh("child"), asm.fresh("done")
        mine = number * ROUND_STEP
        value(asm, mine)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.FORK)
        asm.put(addi(CHILD, R0, 0))
        asm.beq(CHILD, ZERO, child)
        value(asm, mine + ROUND_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.YIELD)
        value(asm, mine + ROUND_STEP)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call_regs(Sys.WAIT4, CHILD)
        asm.check_result(STATUS_CHILD)
        asm.jump(done)
        asm.label(child)
        value(asm, mine)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
        value(asm, CHILD_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.YIELD)
        value(asm, CHILD_STEP)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.exit(STATUS_CHILD)
        asm.label(done)
    return finish(asm, "forkcow", pages + 1)


def execs(rounds: int = 2, pages: int = 2) -> Program:
    """exec a chain of images: each starts on zeroed memory, in a vmspace whose id was used."""
    program = _image(0, pages)
    for number in range(1, rounds + 1):
        program = _image(number, pages, program)
    return program


def _image(number: int, pages: int, *images: Program) -> Program:
    asm = begin()
    asm.put(li(VALUE, 0))
    asm.check_pages(DATA_ADDRESS, pages, 0)
    value(asm, number * ROUND_STEP)
    asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
    if images:
        asm.call(Sys.EXECVE, 0)
        asm.check_result(0)  # not reached, unless exec failed
    return finish(asm, f"exec{number}", pages + 1, *images)


def idle(rounds: int = 3) -> Program:
    """Gives the CPU up a few times, and ends."""
    asm = Asm()
    for _ in range(rounds):
        asm.call(Sys.YIELD)
    return finish(asm, "idle", 0)


def threads(rounds: int = 8, pages: int = 1) -> Program:
    """Two lwps of one process count in the same words, by cas: no increment is lost."""
    asm = begin()
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


def snapshot(rounds: int = 2, pages: int = 1, checks: int = 4) -> Program:
    """One lwp counts in every page all the time, another forks: the child's copy does not move,
    and no count of the parent's is lost (W02, W03)."""
    asm = begin()
    stop = DATA_ADDRESS + pages * PAGE_STRIDE
    asm.target(SCRATCH, "writer")
    asm.call_regs(Sys.LWP_CREATE, SCRATCH, PID)
    asm.put(addi(ROUND, R0, 0))
    for _ in range(rounds):
        child = asm.fresh("child")
        asm.call(Sys.FORK)
        asm.put(addi(CHILD, R0, 0))
        asm.bne(CHILD, ZERO, child)
        for page in range(pages):
            asm.put(li(VA, DATA_ADDRESS + page * PAGE_STRIDE), ld(VALUE, VA))
            for _ in range(checks):
                asm.check_word(VA, VALUE)
                asm.call(Sys.YIELD)
        asm.exit(STATUS_CHILD)
        asm.label(child)
        asm.call_regs(Sys.WAIT4, CHILD)
        asm.check_result(STATUS_CHILD)
    asm.put(li(VA, stop), li(VALUE, 1), st(VALUE, VA))
    asm.call_regs(Sys.LWP_JOIN, ROUND)
    asm.exit(0)
    asm.label("writer")
    asm.put(li(VALUE, 0))
    asm.label("again")
    for page in range(pages):
        asm.put(li(VA, DATA_ADDRESS + page * PAGE_STRIDE))
        asm.check_word(VA, VALUE)
        asm.put(addi(SCRATCH, VALUE, 1), st(SCRATCH, VA))
    asm.put(addi(VALUE, VALUE, 1), li(VA, stop), ld(SCRATCH, VA))
    asm.beq(SCRATCH, ZERO, "again")
    asm.call(Sys.EXTEXIT, 0)
    return Program("snapshot", asm.text(), pages + 2)


def killer(rounds: int = 1) -> Program:
    """Kill a child that never ends by itself."""
    asm = begin()
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
    return finish(asm, "killer", 1)

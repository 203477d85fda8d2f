"""Programs whose memory the guest kernel reads and writes, and pipes, which use its own."""

from __future__ import annotations

from vkprotocol.insn import addi, li, st

from vkguest.asm import CHILD, PAGE_STRIDE, PID, R0, SCRATCH, SCRATCH2, VA, VALUE, ZERO
from vkguest.kern.kern_exec import Program
from vkguest.kern.param import DATA_ADDRESS
from vkguest.kern.syscall import Sys
from vkguest.workloads.words import PAGE_STEP, ROUND_STEP, STATUS_CHILD, begin, finish, value


def poke(pages: int = 2, rounds: int = 1) -> Program:
    """The kernel reads and writes the program's memory, in parent and child after a fork.

    The program has read each page, so it has a translation, of the page it shares; the kernel then
    writes, which makes a copy, and the program must find what was written.
    """
    asm = begin()
    for number in range(rounds):
        child, done = asm.fresh("child"), asm.fresh("done")
        value(asm, number * ROUND_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.FORK)
        asm.put(addi(CHILD, R0, 0))
        value(asm, number * ROUND_STEP)
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
    return finish(asm, "poke", pages + 1)


def pipe(words: int = 4, rounds: int = 2) -> Program:
    """A child sends words through the kernel; buffers come and go at the same KVA."""
    asm = begin()
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
    return finish(asm, "pipe", 1)

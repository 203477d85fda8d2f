"""Random programs."""

from __future__ import annotations

from random import Random

from vkprotocol.insn import addi, li, st
from vkprotocol.mman import MAP_ANON, MAP_FIXED, PROT_WRITE
from vkprotocol.param import PAGE_SIZE

from vkguest.asm import CHILD, PAGE_STRIDE, R0, VA, VALUE, ZERO, Asm
from vkguest.kern.kern_exec import Program
from vkguest.kern.param import MMAP_ADDRESS
from vkguest.kern.syscall import Sys
from vkguest.workloads.words import ROUND_STEP, RW, STATUS_CHILD, begin, finish, value


def mixed(seed: int = 0, rounds: int = 12, pages: int = 4) -> Program:
    """A straight line of random operations on a few pages, each word known at assembly time."""
    random = Random(seed)
    asm = begin()
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
            value(asm, step * ROUND_STEP)
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
    return finish(asm, f"mixed{seed}", 1)


def _check_known(asm: Asm, page: int, extra: int | None) -> None:
    asm.put(li(VA, MMAP_ADDRESS + page * PAGE_STRIDE))
    if extra is None:
        asm.check_word(VA, ZERO)
    else:
        value(asm, extra)
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

"""Programs of one process about its own memory."""

from __future__ import annotations

from vkprotocol.insn import li, st
from vkprotocol.mman import MAP_ANON, MAP_FIXED, MAP_SIZEALIGN, PROT_READ
from vkprotocol.param import PAGE_SIZE, SEG_SIZE, VM_MAX_USER_ADDRESS

from vkguest.asm import VA, VALUE
from vkguest.kern.kern_exec import Program, insn_word
from vkguest.kern.param import (
    DATA_ADDRESS,
    LARGE_ADDRESS,
    MMAP_ADDRESS,
    SPARSE_ADDRESS,
    TEXT_ADDRESS,
)
from vkguest.kern.syscall import Sys
from vkguest.workloads.words import CHILD_STEP, PAGE_STEP, ROUND_STEP, RW, begin, finish, value


def touch(pages: int = 4, rounds: int = 2) -> Program:
    """Fresh memory is zero; then every round writes, lets others run, and checks."""
    asm = begin()
    asm.check_text(TEXT_ADDRESS, insn_word(asm.insns[0]))
    asm.put(li(VALUE, 0))
    asm.check_pages(DATA_ADDRESS, pages, 0)
    for number in range(rounds):
        value(asm, number * ROUND_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.YIELD)
        value(asm, number * ROUND_STEP)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
    return finish(asm, "touch", pages + 1)


def hog(pages: int = 48, rounds: int = 3) -> Program:
    """`touch` with a working set larger than its share, and no pause."""
    asm = begin()
    value(asm)
    asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
    for number in range(rounds):
        value(asm, number * ROUND_STEP)
        asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
        value(asm, (number + 1) * ROUND_STEP)
        asm.store_pages(DATA_ADDRESS, pages, PAGE_STEP)
    value(asm, rounds * ROUND_STEP)
    asm.check_pages(DATA_ADDRESS, pages, PAGE_STEP)
    return finish(asm, "hog", pages + 1)


def mmapper(pages: int = 2, rounds: int = 2) -> Program:
    """Map at the same place again and again: new memory is zero, read-only keeps what was there."""
    asm = begin()
    size = (pages + 1) * PAGE_SIZE
    for number in range(rounds):
        asm.call(Sys.MMAP, MMAP_ADDRESS, size, RW, MAP_ANON | MAP_FIXED)
        asm.check_result(MMAP_ADDRESS)
        asm.put(li(VALUE, 0))
        asm.check_pages(MMAP_ADDRESS, pages, 0)
        value(asm, number * ROUND_STEP)
        asm.store_pages(MMAP_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.MPROTECT, MMAP_ADDRESS, size, PROT_READ)
        value(asm, number * ROUND_STEP)
        asm.check_pages(MMAP_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.MPROTECT, MMAP_ADDRESS, size, RW)
        value(asm, (number + 1) * ROUND_STEP)
        asm.store_pages(MMAP_ADDRESS, pages, PAGE_STEP)
        value(asm, (number + 1) * ROUND_STEP)
        asm.check_pages(MMAP_ADDRESS, pages, PAGE_STEP)
        asm.call(Sys.MUNMAP, MMAP_ADDRESS, size)
        asm.check_result(0)
    return finish(asm, "mmapper", 0)


def sparse(tables: int = 3, rounds: int = 2) -> Program:
    """`hog` on two pages in every 2 MB, each of which needs a page table: paging empties tables all
    the time (W16)."""
    asm = begin()
    places = []
    for first in range(SPARSE_ADDRESS, SPARSE_ADDRESS + tables * SEG_SIZE, SEG_SIZE):
        asm.call(Sys.MMAP, first, 2 * PAGE_SIZE, RW, MAP_ANON | MAP_FIXED)
        places += [first, first + PAGE_SIZE]
    for number in range(rounds + 1):
        for page, va in enumerate(places):
            asm.put(li(VA, va))
            if number:
                value(asm, (number - 1) * ROUND_STEP + page * PAGE_STEP)
                asm.check_word(VA, VALUE)
            value(asm, number * ROUND_STEP + page * PAGE_STEP)
            asm.put(st(VALUE, VA))
    return finish(asm, "sparse", 0)


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
    asm = begin()
    half = pages // 2 * PAGE_SIZE
    flags = MAP_ANON | MAP_FIXED
    for number in range(rounds):
        asm.call(Sys.MMAP, address, 2 * half, RW, flags | MAP_SIZEALIGN)
        asm.check_result(address)
        value(asm, number * ROUND_STEP)
        asm.store_pages(address, pages - 1, PAGE_STEP)
        value(asm, number * ROUND_STEP)
        asm.check_pages(address, pages - 1, PAGE_STEP)
        asm.call(Sys.MUNMAP, address + half, half)
        asm.call(Sys.MUNMAP, address, half)
        # Frames freed last are used first: what is written now goes where stale translations lead.
        asm.call(Sys.MMAP, MMAP_ADDRESS, 2 * half, RW, flags)
        value(asm, CHILD_STEP)
        asm.store_pages(MMAP_ADDRESS, pages - 1, PAGE_STEP)
        asm.call(Sys.MMAP, address, half, RW, flags)
        asm.put(li(VALUE, 0))
        asm.check_pages(address, pages // 2 - 1, 0)
        asm.call(Sys.MUNMAP, address, half)
        asm.call(Sys.MUNMAP, MMAP_ADDRESS, 2 * half)
    return finish(asm, name, 1)

"""A program that asks for all that is refused, and for what is only just granted."""

from __future__ import annotations

from collections.abc import Iterator

from vkprotocol.errno import Errno
from vkprotocol.insn import addi, li, st
from vkprotocol.mman import (
    MADV_DONTNEED,
    MADV_INVAL,
    MADV_WILLNEED,
    MAP_ANON,
    MAP_FIXED,
    MAP_SIZEALIGN,
    MS_SYNC,
    PROT_READ,
)
from vkprotocol.param import PAGE_SIZE, SEG_SIZE, VM_MAX_USER_ADDRESS

from vkguest.asm import PID, R1, R2, R3, VA, VALUE, Asm
from vkguest.kern.kern_exec import Program
from vkguest.kern.param import DATA_ADDRESS, LARGE_ADDRESS, LARGE_PAGES_MAX, MMAP_ADDRESS
from vkguest.kern.syscall import Sys
from vkguest.workloads.words import RW, begin, finish


def refused(rounds: int = 1) -> Program:
    """Each call that is refused, with its errno; after all of them memory is as it was"""
    asm = begin()
    asm.put(li(VA, DATA_ADDRESS), st(PID, VA))
    for errno, number, *args in (*_calls(),) * rounds:
        asm.call(number, *args)
        _check_errno(asm, errno)
    asm.put(addi(VALUE, PID, 0))
    asm.check_word(VA, VALUE)
    return finish(asm, "refused", 1)


def _check_errno(asm: Asm, errno: int) -> None:
    errno_reg = 15
    asm.put(addi(R3, errno_reg, 0), li(R1, 0), li(R2, errno))
    asm.bne(R3, R2, "fail")


def _calls() -> Iterator[tuple[int, Sys, *tuple[int, ...]]]:
    """(errno, call, arguments); nothing is mapped at MMAP_ADDRESS."""
    top, fixed, large = VM_MAX_USER_ADDRESS, MAP_ANON | MAP_FIXED, MAP_SIZEALIGN
    yield 0, Sys.MMAP, top - PAGE_SIZE, PAGE_SIZE, RW, fixed
    yield 0, Sys.MADVISE, top - PAGE_SIZE, PAGE_SIZE, MADV_WILLNEED
    yield 0, Sys.MSYNC, top - PAGE_SIZE, PAGE_SIZE, MS_SYNC
    yield Errno.EINVAL, Sys.MSYNC, top - 2 * PAGE_SIZE, 2 * PAGE_SIZE, MS_SYNC  # a hole
    yield 0, Sys.MUNMAP, top - PAGE_SIZE, PAGE_SIZE
    bad = Errno.EINVAL
    for number, last, holes, nothing in (
        (Sys.MMAP, (RW, fixed), bad, bad), (Sys.MUNMAP, (), bad, 0),
        (Sys.MPROTECT, (PROT_READ,), 0, 0), (Sys.MADVISE, (MADV_DONTNEED,), 0, 0),
        (Sys.MSYNC, (MS_SYNC,), bad, bad),
    ):  # fmt: skip
        yield holes, number, 1, PAGE_SIZE, *last
        yield nothing, number, DATA_ADDRESS, 0, *last
        yield bad, number, top - PAGE_SIZE, PAGE_SIZE + 1, *last
    yield Errno.ENOMEM, Sys.MMAP, 0, top, RW, MAP_ANON
    yield Errno.EINVAL, Sys.MMAP, LARGE_ADDRESS, SEG_SIZE, RW, MAP_ANON | large
    yield Errno.EINVAL, Sys.MMAP, LARGE_ADDRESS, SEG_SIZE, RW, MAP_FIXED | large
    yield Errno.EINVAL, Sys.MMAP, LARGE_ADDRESS + PAGE_SIZE, PAGE_SIZE, RW, fixed | large
    pages = (LARGE_PAGES_MAX + 1) * PAGE_SIZE
    yield Errno.EINVAL, Sys.MMAP, LARGE_ADDRESS, pages, RW, fixed | large
    for behav in (MADV_INVAL, 99):
        yield Errno.EINVAL, Sys.MADVISE, DATA_ADDRESS, PAGE_SIZE, behav
    yield Errno.EFAULT, Sys.FUWORD, MMAP_ADDRESS
    yield Errno.EFAULT, Sys.SUWORD, MMAP_ADDRESS, 1
    yield 0, Sys.MPROTECT, DATA_ADDRESS, PAGE_SIZE, PROT_READ
    yield 0, Sys.FUWORD, DATA_ADDRESS + 8
    yield Errno.EFAULT, Sys.SUWORD, DATA_ADDRESS, 1
    yield 0, Sys.MPROTECT, DATA_ADDRESS, PAGE_SIZE, RW
    yield Errno.EINVAL, Sys.PIPE, 0
    yield Errno.EINVAL, Sys.PIPE, 9
    for number in (Sys.PIPE_READ, Sys.PIPE_WRITE, Sys.PIPE_CLOSE):
        yield Errno.EBADF, number, 1, 1
    yield Errno.ENOENT, Sys.SHM_UNLINK, 9
    yield Errno.ENOENT, Sys.EXECVE, 0
    yield Errno.ESRCH, Sys.KILL, 1
    yield Errno.ECHILD, Sys.WAIT4, 1

"""The reference and machine code: bytes that the kernel copies, files, vfork, and what a step of
many instructions is judged by."""

from __future__ import annotations

import pytest
from vkemu.oracle import Violation
from vkprotocol.mman import MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_READ

from tests.oracle.test_reference import DATA, RW, Act, Program

ONES = 0x1111_1111_1111_1111
FILE = 0x80_0000
CONTENT = (1).to_bytes(8, "little") + bytes(4096 - 8) + (2).to_bytes(8, "little")


def copyout(p: Program, va: int, content: bytes, errno: int = 0, tid: int = 1) -> Program:
    copying(p, va, content, tid)
    return p.end("copyout", errno=errno, tid=tid)


def copying(p: Program, va: int, content: bytes, tid: int = 1) -> Program:
    return p.tell("user.copyout", "7/1", tid, va, content)


def copyin(p: Program, va: int, content: bytes, *between: Act) -> Program:
    end = va + len(content)
    p.tell("user.call", "7/1", 1, "copyin", va, end, 0, 0, 0)
    for act in between:
        act(p)
    return p.tell("user.copyin", "7/1", 1, va, content)


def ones(p: Program) -> None:
    p.store(ONES)


def copied(p: Program) -> None:
    """Two bytes over the end of a word."""
    p.store(ONES)
    p.store(ONES, DATA + 8)
    copyout(p, DATA + 7, b"\x22\x33")


def in_copy(p: Program) -> None:
    p.store(ONES)
    copying(p, DATA, b"\x22")


def failed(p: Program) -> None:
    p.store(ONES)
    copyout(p, DATA, b"\x22", errno=14)


def mapped(p: Program, flags: int, va: int = FILE, pages: int = 2) -> None:
    p.begin("mmap", va, pages, flags=flags | MAP_FIXED)
    p.tell("user.file", "7/1", 0, "data", 0)
    p.end("mmap", value=va)


def shared(p: Program) -> None:
    """A file twice, and the second page of it alone."""
    p.tell("user.content", "7", "data", CONTENT)
    mapped(p, MAP_SHARED)
    mapped(p, MAP_PRIVATE, FILE + 0x10000)
    p.begin("mmap", FILE + 0x20000, 1, flags=MAP_SHARED | MAP_FIXED)
    p.tell("user.file", "7/1", 0, "data", 4096)
    p.end("mmap", value=FILE + 0x20000)


def vforked(p: Program) -> None:
    p.store(5)
    p.tell("user.vfork", "7/1", 0, "7/2")
    p.run(1, 2)


def code(p: Program, count: int = 1) -> Program:
    """An instruction on vCPU 0, or many."""
    return p.tell("user.insns", "7.0", 0x1000, count, by="lwp 0")


def frame(p: Program, pfn: int, **words: int) -> None:
    """A frame with these words, as its owner's, and then stale for DATA."""
    p.tell("page.alloc", pfn, 1, "object", 0)
    p.tell("page.zero", pfn)
    for idx, value in words.items():
        p.tell("mem.store", 9, "k", 0, pfn, int(idx[1:]), value)


def partial(p: Program) -> None:
    """A byte of a word: the frame has it otherwise than the program."""
    p.store(ONES)
    frame(p, 5, w0=0x2222)
    code(p)


def merged(p: Program) -> None:
    """A step of many instructions: word 3 of the page is not what it should be."""
    p.store(7, DATA + 24)
    frame(p, 5, w0=0, w3=8)


def touch(p: Program, pfn: int = 5) -> Program:
    return p.tell("mem.load", 0, "p", DATA, pfn, 0, 0, by="lwp 0")


def store(p: Program, value: int, pfn: int = 5) -> None:
    p.tell("mem.store", 0, "p", DATA, pfn, 0, value, by="lwp 0")


RIGHT: list[tuple[Act, list[Act]]] = [
    (copied, [lambda p: p.load(0x2211_1111_1111_1111), lambda p: p.load(ONES ^ 0x22, DATA + 8)]),
    (in_copy, [lambda p: p.load(ONES), lambda p: p.load(ONES ^ 0x33)]),
    (in_copy, [lambda p: p.store(0).end("copyout", tid=1).load(0), lambda p: p.load(0)]),
    (in_copy, [lambda p: p.store(0).end("copyout", tid=1).load(0x22)]),
    (failed, [lambda p: p.load(ONES)]),
    (failed, [lambda p: p.load(ONES ^ 0x33)]),
    (ones, [lambda p: copyin(p, DATA + 1, b"\x11")]),
    (ones, [lambda p: copyin(p, DATA + 6, b"\x11\x11\0\0")]),
    (ones, [lambda p: copyin(p, DATA, b"\x05", lambda p: p.store(5))]),
    (shared, [lambda p: p.load(1, FILE), lambda p: p.load(2, FILE + 4096)]),
    (shared, [lambda p: p.load(2, FILE + 0x20000), lambda p: p.load(1, FILE + 0x10000)]),
    (shared, [lambda p: p.store(9, FILE + 4096).load(9, FILE + 0x20000).load(9, FILE + 0x11000)]),
    (shared, [lambda p: p.store(9, FILE + 4096).load(2, FILE + 0x11000)]),
    (shared, [lambda p: p.store(9, FILE + 0x10000).load(1, FILE).load(9, FILE + 0x10000)]),
    (vforked, [lambda p: p.store(6, vcpu=1).load(6), lambda p: p.load(6, vcpu=1)]),
    (vforked, [lambda p: p.store(6, vcpu=1).tell("user.exit", "7/2").load(6)]),
    (partial, [lambda p: store(p, ONES, pfn=6)]),
    (merged, [lambda p: touch(code(p))]),
]  # fmt: skip
WRONG: list[tuple[Act, Act, str]] = [
    (copied, lambda p: p.load(ONES), "not 0x22111111"),
    (copied, lambda p: p.load(ONES, DATA + 8), "not 0x1111111111111133"),
    (in_copy, lambda p: p.load(ONES ^ 0x77), "or 0x1111111111111122"),
    (in_copy, lambda p: p.store(0).end("copyout", tid=1).load(ONES), "not 0x22 or 0x0"),
    (ones, lambda p: copyin(p, DATA + 1, b"\x12"), "reads 0x1200 at 0x410000, not 0x1100"),
    (shared, lambda p: p.load(1, FILE + 0x20000), "not 0x2"),
    (shared, lambda p: p.store(9, FILE + 0x10000).load(9, FILE), "not 0x1"),
    (shared, lambda p: p.store(9, FILE + 4096).load(2, FILE + 0x20000), "not 0x9"),
    (shared, lambda p: p.load(0, FILE + 0x21000), "where nothing is mapped"),
    (vforked, lambda p: p.store(6, vcpu=1).load(5), "not 0x6"),
    (partial, lambda p: store(p, ONES), "reads 0x2222 at 0x410000, not 0x1111"),
    (merged, lambda p: touch(code(p, 9)), "reads 0x8 at 0x410018, not 0x7"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "acts"), RIGHT)
def test_what_may_be_is_no_violation(before: Act, acts: list[Act]) -> None:
    p = Program()
    before(p)
    for act in acts:
        act(p)


@pytest.mark.parametrize(("before", "act", "says"), WRONG)
def test_what_cannot_be_is_one(before: Act, act: Act, says: str) -> None:
    p = Program()
    before(p)
    with pytest.raises(Violation, match=says) as found:
        act(p)
    assert found.value.invariant == 11


def test_a_file_is_mapped_as_it_may_be_read() -> None:
    p = Program()
    shared(p)
    p.call("mprotect", FILE, prot=PROT_READ)
    p.load(1, FILE)
    p.fault(FILE, RW)

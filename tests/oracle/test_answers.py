"""What host programs are answered, by hand: process 7 has four pages of its own."""

from __future__ import annotations

import pytest
from vkemu.oracle import Oracle, Violation
from vkprotocol.mman import MAP_ANON, MAP_FIXED, PROT_NONE, PROT_READ, PROT_WRITE

AT, PAGE = 0x8_0000_0000, 0x1000
RW = PROT_READ | PROT_WRITE


class Program:
    def __init__(self) -> None:
        self.oracle = Oracle(["reference"])
        self.oracle.actor = lambda: "lwp"
        self.oracle("proc.create", 7, "n")
        self.call("mmap", 0, 4)

    def call(self, name: str, first: int, end: int, errno: int = 0, prot: int = RW) -> Program:
        self.begin(name, first, end, prot)
        return self.end(name, errno, AT + PAGE * first)

    def begin(self, name: str, first: int, end: int, prot: int = RW, tid: int = 0) -> Program:
        start, flags = AT + PAGE * first, MAP_ANON | MAP_FIXED
        end = AT + PAGE * end
        self.oracle("user.call", "7", tid, name, start, end, prot, flags, 0)
        return self

    def end(self, name: str, errno: int = 0, value: int = 0, tid: int = 0) -> Program:
        self.oracle("user.return", "7", tid, name, errno, value)
        return self


def test_what_is_right() -> None:
    p = Program()
    p.call("msync", 0, 4).call("mlock", 1, 3).call("munlock", 1, 3).call("munlock", 1, 3, 12)
    p.call("mlock", 0, 4, 35).call("mprotect", 2, 3, prot=PROT_NONE).call("mlock", 2, 3, 12)
    p.call("munmap", 1, 2).call("munmap", 0, 4, 22).call("msync", 0, 4, 22).call("mlock", 0, 4, 12)
    p.begin("munmap", 3, 4, tid=1).call("msync", 3, 4, 22).end("munmap", tid=1)


@pytest.mark.parametrize(
    ("name", "first", "end", "errno"),
    [
        ("msync", 0, 4, 22),
        ("msync", 3, 5, 0),
        ("munmap", 0, 4, 22),
        ("munmap", 3, 5, 0),
        ("mprotect", 0, 4, 13),
        ("mlock", 0, 4, 12),
        ("mlock", 3, 5, 0),
        ("munlock", 0, 1, 0),
        ("munlock", 1, 2, 12),
    ],
)
def test_what_is_not(name: str, first: int, end: int, errno: int) -> None:
    program = Program().call("mlock", 1, 2)

    with pytest.raises(Violation, match=f"{name} of .* is answered {errno}, not"):
        program.call(name, first, end, errno)


def faults(program: Program, page: int) -> None:
    """A write there, once all its calls have returned."""
    program.oracle("lwp.create", 7, "7.0")
    program.oracle("syscall.begin", "7.0", "cpu_ops")
    program.oracle("user.fault", "7.0", "7", AT + PAGE * page, PROT_WRITE)


def test_which_of_two_that_overlap_is_on_top_nobody_knows() -> None:
    p = Program().begin("mmap", 0, 4).begin("mprotect", 0, 2, PROT_READ, tid=1)
    p.end("mprotect", tid=1).end("mmap", value=AT)

    faults(p, 1)
    with pytest.raises(Violation, match="which is mapped and permits the access"):
        faults(p, 2)


def test_two_that_lock_at_once_may_be_answered_anything() -> None:
    p = Program().begin("mlock", 0, 2).begin("munlock", 1, 3, tid=1)

    p.end("munlock", 0, tid=1).end("mlock").call("munlock", 0, 2, 12).call("munlock", 0, 2)

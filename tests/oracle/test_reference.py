"""The reference by hand: what each system call leaves a program to see, and what it must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vkemu.oracle import Oracle, Violation
from vkprotocol.events import validate
from vkprotocol.mman import (
    MADV_FREE,
    MAP_ANON,
    MAP_FIXED,
    MAP_SHARED,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)

RW = PROT_READ | PROT_WRITE
DATA = 0x41_0000
PRIVATE = MAP_ANON | MAP_FIXED
SHARED = PRIVATE | MAP_SHARED


class Program:
    """A guest with programs `7/1` and, once forked, `7/2`, each on a vCPU of its own; thread 1 of
    the first is on a third. `begin` and the rest are what the guest's kernel tells."""

    def __init__(self) -> None:
        self.oracle = Oracle(["reference"])
        self.speaker = ""
        self.oracle.actor = lambda: self.speaker
        self.tell("user.exec", "7/1")
        self.tell("user.map", "7/1", DATA, DATA + 0x4000, RW, 0, b"")
        self.run(0, 1)
        self.run(2, 1)

    def tell(self, name: str, *args: Any, by: str = "kernel") -> Program:
        assert validate(name, args) is None, validate(name, args)
        self.speaker = by
        self.oracle(name, *args)
        return self

    def run(self, vcpu: int, pid: int) -> None:
        self.tell("user.run", f"7.{vcpu}", f"7/{pid}")
        self.tell("run.enter", f"7.{vcpu}", 0, by=f"lwp {vcpu}")

    def begin(self, name: str, start: int = 0, pages: int = 1, *, prot: int = RW, flags: int = 0,
              value: int = 0, tid: int = 0, pid: int = 1) -> Program:  # fmt: skip
        end = start + (8 if name in ("suword", "fuword") else pages << 12)
        return self.tell("user.call", f"7/{pid}", tid, name, start, end, prot, flags, value)

    def end(self, name: str, *, errno: int = 0, value: int = 0, tid: int = 0) -> Program:
        return self.tell("user.return", "7/1", tid, name, errno, value)

    def call(self, name: str, start: int = 0, pages: int = 1, **how: int) -> None:
        self.begin(name, start, pages, **how)
        self.end(name, value=start if name == "mmap" else 0)

    def fork(self) -> None:
        self.begin("fork")
        self.forked()

    def forked(self) -> None:
        self.tell("user.fork", "7/1", 0, "7/2")
        self.end("fork", value=2)
        self.run(1, 2)

    def store(self, value: int, va: int = DATA, vcpu: int = 0) -> Program:
        return self.tell("mem.store", vcpu, "p", va, 0, va >> 3 & 511, value, by=f"lwp {vcpu}")

    def load(self, value: int, va: int = DATA, vcpu: int = 0) -> Program:
        return self.tell("mem.load", vcpu, "p", va, 0, va >> 3 & 511, value, by=f"lwp {vcpu}")

    def cas(self, old: int, new: int, *, ok: bool, vcpu: int = 0) -> Program:
        """What it finds, and whether that is what it wanted to find."""
        where = "mem.cmpset", vcpu, "p", DATA, 0, DATA >> 3 & 511
        return self.tell(*where, new, ok, old, by=f"lwp {vcpu}")

    def fault(self, va: int = DATA, prot: int = PROT_READ) -> Program:
        self.tell("run.exit", "7.0", 0, 12, va, by="lwp 0")
        return self.tell("user.fault", "7.0", "7/1", va, prot)


Act = Callable[[Program], Program | None]


def stored(p: Program) -> None:
    p.store(5)


def forked(p: Program) -> None:
    p.store(5)
    p.fork()


def forking(p: Program) -> None:
    """A fork during which another thread stores 6."""
    p.store(5)
    p.begin("fork")
    p.store(6, vcpu=2)
    p.forked()


def shared(p: Program) -> None:
    p.call("mmap", DATA, flags=SHARED)
    p.store(5)
    p.fork()


def read_only(p: Program) -> None:
    p.store(5)
    p.call("mprotect", DATA, prot=PROT_READ)


def unmapped(p: Program) -> None:
    p.store(5)
    p.call("munmap", DATA)


def unmapping(p: Program) -> None:
    p.store(5)
    p.begin("munmap", DATA, tid=1)


def mapped_anew(p: Program) -> None:
    p.store(5)
    p.call("mmap", DATA, flags=PRIVATE)


def mapping(p: Program) -> None:
    p.store(5)
    p.begin("mmap", DATA, flags=PRIVATE, tid=1)


def given_up(p: Program) -> None:
    p.store(5)
    p.call("madvise", DATA, value=MADV_FREE)


def writing(p: Program) -> None:
    p.store(5)
    p.begin("suword", DATA, value=7, tid=1)


def written(p: Program) -> None:
    p.store(5)
    p.call("suword", DATA, value=7)


def written_by_two(p: Program) -> None:
    """The kernel writes a word for two threads; who returns first may have written last."""
    writing(p)
    p.begin("suword", DATA, value=8)
    p.end("suword", tid=1).end("suword")


def writing_given_up(p: Program) -> None:
    """MADV_FREE begins and returns while the kernel writes a word for another thread."""
    p.begin("suword", DATA, value=7, tid=1)
    p.call("madvise", DATA, value=MADV_FREE)
    p.end("suword", tid=1)


def forking_into_shared(p: Program) -> None:
    """What is mapped shared while a fork is under way: the child shares it, or has what was."""
    p.begin("fork")
    p.begin("mmap", DATA, flags=SHARED, tid=1)
    p.end("mmap", value=DATA, tid=1)
    p.forked()


RIGHT: list[tuple[Act, list[Act]]] = [
    (stored, [lambda p: p.load(5), lambda p: p.load(0, DATA + 8)]),
    (stored, [lambda p: p.cas(5, 6, ok=True).load(6), lambda p: p.cas(5, 6, ok=False).load(5)]),
    (forked, [lambda p: p.load(5, vcpu=1), lambda p: p.store(6).load(5, vcpu=1)]),
    (forking, [lambda p: p.load(5, vcpu=1), lambda p: p.load(6, vcpu=1)]),
    (shared, [lambda p: p.store(6).load(6, vcpu=1)]),
    (read_only, [lambda p: p.load(5), lambda p: p.fault(prot=RW)]),
    (unmapped, [lambda p: p.fault(), lambda p: p.load(0, DATA + 0x1000)]),
    (unmapping, [lambda p: p.load(5), lambda p: p.fault(), lambda p: p.store(6)]),
    (mapped_anew, [lambda p: p.load(0)]),
    (mapping, [lambda p: p.load(0), lambda p: p.load(5), lambda p: p.fault()]),
    (mapping, [lambda p: p.store(6).end("mmap", value=DATA, tid=1).load(6)]),
    (given_up, [lambda p: p.load(0), lambda p: p.load(5).load(0), lambda p: p.store(6)]),
    (writing, [lambda p: p.load(5), lambda p: p.load(7), lambda p: p.end("suword", tid=1)]),
    (writing, [lambda p: p.store(6).end("suword", tid=1).load(6)]),
    (written_by_two, [lambda p: p.load(7), lambda p: p.load(8)]),
    (writing_given_up, [lambda p: p.load(7), lambda p: p.load(0)]),
    (forking_into_shared, [lambda p: p.store(6, vcpu=1).load(6), lambda p: p.load(0)]),
    (written, [lambda p: p.load(7), lambda p: p.begin("fuword", DATA).end("fuword", value=7)]),
]  # fmt: skip
WRONG: list[tuple[Act, Act, str]] = [
    (stored, lambda p: p.load(4), "reads 0x4 at 0x410000, not 0x5"),
    (stored, lambda p: p.cas(4, 6, ok=False), "reads 0x4 at 0x410000, not 0x5"),
    (stored, lambda p: p.load(0, 0x1000), "where nothing is mapped"),
    (stored, lambda p: p.fault(), "faults at 0x410000, which is mapped"),
    (forked, lambda p: p.store(6).load(6, vcpu=1), "program 7/2 reads 0x6"),
    (forked, lambda p: p.load(0, vcpu=1), "not 0x5"),
    (forking, lambda p: p.load(6, vcpu=1).load(5, vcpu=1), "not 0x6"),
    (shared, lambda p: p.store(6).load(5, vcpu=1), "not 0x6"),
    (read_only, lambda p: p.store(6), "writes 0x410000, mapped with PROT_"),
    (read_only, lambda p: p.fault(), "permits the access"),
    (unmapped, lambda p: p.load(5), "where nothing is mapped"),
    (unmapped, lambda p: p.fault(DATA + 0x1000), "permits the access"),
    (mapped_anew, lambda p: p.load(5), "reads 0x5 at 0x410000, not 0x0"),
    (mapping, lambda p: p.load(6), "reads 0x6"),
    (given_up, lambda p: p.load(0).load(5), "reads 0x5 at 0x410000, not 0x0"),
    (given_up, lambda p: p.store(6).load(0), "not 0x6"),
    (writing, lambda p: p.end("suword", tid=1).load(5), "not 0x7"),
    (written_by_two, lambda p: p.load(5), "not 0x8 or 0x7"),
    (writing_given_up, lambda p: p.load(0).load(7), "not 0x0"),
    (written, lambda p: p.begin("fuword", DATA).end("fuword", value=5), "reads 0x5"),
    (written, lambda p: p.begin("fuword", DATA).end("fuword", errno=14), "is refused"),
    (unmapped, lambda p: p.begin("suword", DATA).end("suword"), "is done, where nothing"),
    (stored, lambda p: p.tell("user.exit", "7/1"), "has ended while lwp 0 runs it"),
    (unmapping, lambda p: p.end("munmap", errno=22, tid=1), "munmap of .* answered 22, not 0"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "acts"), RIGHT)
def test_what_a_program_may_see(before: Act, acts: list[Act]) -> None:
    for act in acts:
        program = Program()
        before(program)
        act(program)


@pytest.mark.parametrize(("before", "act", "message"), WRONG)
def test_what_it_must_not(before: Act, act: Act, message: str) -> None:
    program = Program()
    before(program)

    with pytest.raises(Violation, match=message) as caught:
        act(program)

    assert caught.value.kind == "11 reference"


def test_no_access_at_all() -> None:
    program = Program()
    program.call("mprotect", DATA, prot=PROT_NONE)
    program.fault()
    program.run(0, 1)

    with pytest.raises(Violation, match="reads 0x410000, mapped with PROT_"):
        program.load(0)


def test_a_read_that_is_refused_reads_nothing() -> None:
    program = Program().store(5)
    program.call("mprotect", DATA, prot=PROT_NONE)

    program.begin("fuword", DATA, tid=1).end("fuword", errno=14, tid=1)


# A file at more than one address.

FILE = MAP_FIXED | MAP_SHARED
THERE, HERE = DATA + 0x1000, DATA + 0x2000


def of_file(program: Program, va: int, *, tid: int = 0) -> Program:
    program.begin("mmap", va, flags=FILE, tid=tid)
    return program.tell("user.file", "7/1", tid, "f", 0)


def with_file() -> Program:
    program = Program().tell("user.content", "7", "f", b"")
    of_file(program, HERE).end("mmap", value=HERE)
    return program


def test_a_store_at_one_address_is_at_the_other() -> None:
    program = with_file()
    of_file(program, THERE).end("mmap", value=THERE).store(5, THERE).load(5, HERE)

    with pytest.raises(Violation, match="reads 0x6 at 0x412000, not 0x5"):
        program.load(6, HERE)


@pytest.mark.parametrize("found", [0, 9])
def test_what_the_kernel_writes_as_a_file_is_mapped_is_in_it_or_not(found: int) -> None:
    program = with_file()
    program.begin("suword", THERE, value=9, tid=1)
    of_file(program, THERE).end("mmap", value=THERE).end("suword", tid=1)

    program.load(found, HERE)
    with pytest.raises(Violation, match="not "):
        program.load(7, HERE)


@pytest.mark.parametrize("found", [0, 9])
def test_what_a_child_stores_to_who_knows_what_may_be_in_any_file(found: int) -> None:
    """It was made as another thread mapped a file there."""
    program = with_file()
    program.begin("fork")
    of_file(program, THERE, tid=1)
    program.forked()
    program.end("mmap", value=THERE, tid=1).store(9, THERE, vcpu=1)

    program.load(found, HERE)
    with pytest.raises(Violation, match="not "):
        program.load(7, HERE)


@pytest.mark.parametrize("found", [0, 9])
def test_what_the_kernel_writes_to_a_file_as_it_is_mapped_privately_is_seen_or_not(
    found: int,
) -> None:
    program = with_file()
    program.begin("suword", HERE, value=9, tid=1)
    program.begin("mmap", THERE, flags=MAP_FIXED).tell("user.file", "7/1", 0, "f", 0)
    program.end("mmap", value=THERE).end("suword", tid=1)

    program.load(found, THERE)
    with pytest.raises(Violation, match="not "):
        program.load(7, THERE)


@pytest.mark.parametrize("found", [0, 9])
def test_the_kernel_reads_what_is_stored_to_the_file_behind_meanwhile(found: int) -> None:
    program = with_file()
    program.begin("mmap", THERE, flags=MAP_FIXED).tell("user.file", "7/1", 0, "f", 0)
    program.end("mmap", value=THERE)

    program.begin("fuword", THERE, tid=1).store(9, HERE)

    program.end("fuword", value=found, tid=1)
    with pytest.raises(Violation, match="not "):
        program.load(7, THERE)


def test_any_range_is_given_up_at_once() -> None:
    program = Program().store(5)

    program.call("madvise", 0, 1 << 51, value=MADV_FREE)

    program.load(5).load(0)

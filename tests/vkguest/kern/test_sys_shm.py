"""One object at two addresses: what is stored at one is at the other."""

from __future__ import annotations

from random import Random

import pytest
from vkprotocol.insn import ld, li, st
from vkprotocol.mman import MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SIZE

from tests.vkguest.host_rig import HostRun, at_random
from vkguest.asm import SCRATCH, VA, VALUE, Asm
from vkguest.kern import sys_shm
from vkguest.kern.kern_exec import Program
from vkguest.kern.sys_shm import SHM_PAGE_SHIFT
from vkguest.kern.syscall import Sys
from vkguest.workloads.drawn import Drawn

A, B = 0x50_0000, 0x60_0000
RW = PROT_READ | PROT_WRITE


def program(flags: int, expected: int) -> Program:
    """A store at the second page of A, a load at the first of B, which is the same page."""
    asm = Asm()
    asm.call(Sys.MMAP, A, 2 * PAGE_SIZE, RW, MAP_FIXED | MAP_SHARED, 7)
    asm.call(Sys.MMAP, B, PAGE_SIZE, RW, MAP_FIXED | flags, 7 | 1 << SHM_PAGE_SHIFT)
    asm.check_result(B)
    asm.put(li(VA, B), ld(SCRATCH, VA), li(VALUE, 1), st(VALUE, VA))
    asm.put(li(VA, A + PAGE_SIZE), li(VALUE, expected))
    asm.check_word(VA, VALUE)
    asm.call(Sys.MUNMAP, A, 2 * PAGE_SIZE)
    asm.call(Sys.SHM_UNLINK, 7)
    asm.check_result(0)
    asm.call(Sys.SHM_UNLINK, 7)
    asm.exit(0)
    return Program("shm", asm.text())


def run(made: Program) -> HostRun:
    rig = HostRun([], vcpus=1, programs=[made]).run(at_random(1))
    assert rig.error is None, rig.error
    return rig


@pytest.mark.parametrize(("flags", "expected"), [(MAP_SHARED, 1), (MAP_PRIVATE, 0)])
def test_a_page_at_two_addresses(flags: int, expected: int) -> None:
    rig = run(program(flags, expected))

    assert not rig.failed
    assert not rig.guests[0].shm


def test_a_drawn_program_finds_it() -> None:
    drawn = Drawn(Random(3), 2)
    for _ in range(3):
        drawn.share()
    drawn.asm.exit(0)

    assert not run(Program("drawn", drawn.asm.text())).failed


def test_an_offset_that_is_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = sys_shm.shm_open

    async def forgetful(*args: object) -> tuple[object, int]:
        obj, _ = await opened(*args)  # type: ignore[arg-type]
        return obj, 0

    monkeypatch.setattr("vkguest.vm.vm_mmap.shm_open", forgetful)
    rig = HostRun([], vcpus=1, programs=[program(MAP_SHARED, 1)]).run(at_random(1))

    assert "reads" in str(rig.error)

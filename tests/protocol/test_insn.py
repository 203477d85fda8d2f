"""User instructions and constants: what can be built, what is refused, how it reads."""

from __future__ import annotations

import errno as linux
from typing import Any

import pytest
from vkprotocol import insn, limits
from vkprotocol.errno import Errno, errno_name
from vkprotocol.insn import Insn, Op, check_text
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS, atop, ptoa, round_page, trunc_page
from vkprotocol.vpte import VPTE_FRAME, VPTE_PAGE_BITS, VPTE_ROOT_SHIFT, vpte_frame, vpte_text


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (insn.ld(2, 1, 8), "ld r2, [r1+8]"),
        (insn.st(2, 1, -8), "st r2, [r1-8]"),
        (insn.cas(3, 1, 4), "cas r3, [r1+0], r4"),
        (insn.fetch(1), "fetch [r1+0]"),
        (insn.li(1, 0x400000), "li r1, 0x400000"),
        (insn.addi(2, 2, -1), "addi r2, r2, -1"),
        (insn.bne(2, 0, 1), "bne r2, r0, 1"),
        (insn.beq(0, 0, 8), "beq r0, r0, 8"),
        (insn.syscall(), "syscall"),
    ],
)
def test_instructions_read_like_assembler(made: Insn, text: str) -> None:
    assert str(made) == text


@pytest.mark.parametrize(
    "make",
    [
        lambda: insn.ld(16, 0),
        lambda: insn.st(-1, 0),
        lambda: insn.cas(0, 0, 16),
        lambda: insn.li(0, 1 << 64),
        lambda: insn.addi(0, 0, -(1 << 63) - 1),
    ],
)
def test_no_instruction_out_of_bounds_is_made(make: Any) -> None:
    with pytest.raises(ValueError, match=r"no register|does not fit"):
        make()


def test_a_program_is_checked() -> None:
    full = (insn.syscall(),) * limits.TEXT_INSNS

    assert check_text(full) == full
    assert check_text((insn.beq(0, 0, 1),)) == ((Op.BEQ, 0, 0, 0, 1),)
    with pytest.raises(ValueError, match=r"4097 instructions, at most 4096"):
        check_text((*full, insn.syscall()))
    with pytest.raises(ValueError, match=r"^1: bne r0, r1, 3 jumps out of the 2"):
        check_text((insn.syscall(), insn.bne(0, 1, 3)))
    with pytest.raises(ValueError, match=r"no register 99"):
        check_text((Insn(Op.LD, 99),))


def test_errno_is_dragonflys_not_linuxs() -> None:
    same = range(Errno.EPERM, Errno.ERANGE + 1)

    assert all(linux.errorcode[n] == Errno(n).name for n in same if n != Errno.EDEADLK)
    assert (Errno.EAGAIN, Errno.EOPNOTSUPP, Errno.EDEADLK) == (35, 45, 11)
    assert linux.EAGAIN != Errno.EAGAIN
    assert Errno["EWOULDBLOCK"].name == "EAGAIN"
    assert [errno_name(n) for n in (22, 0, 250)] == ["EINVAL", "0", "250"]


def test_pages_and_vptes() -> None:
    assert (trunc_page(0x1FFF), round_page(0x1001), round_page(0)) == (0x1000, 0x2000, 0)
    assert (atop(0x3000), ptoa(3), VM_MAX_USER_ADDRESS % PAGE_SIZE) == (3, 0x3000, 0)
    # The root and four tables of 9 index bits span the frame bits of the address.
    assert VPTE_ROOT_SHIFT == 4 * VPTE_PAGE_BITS
    assert vpte_frame(VPTE_FRAME) == (1 << 40) - 1
    assert vpte_text(0x5807) == "frame 5 V|RW|U|NX"
    assert vpte_text(0) == "frame 0 0"

"""User programs as text read back what instructions print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.launch.asm import assemble_text
from vkprotocol import insn as isa
from vkprotocol.insn import Insn

REGS = st.integers(0, isa.NREGS - 1)
OFFSETS = st.integers(-4096, 1 << 40)
STRAIGHT = st.one_of(
    st.builds(isa.ld, REGS, REGS, OFFSETS),
    st.builds(isa.st, REGS, REGS, OFFSETS),
    st.builds(isa.cas, REGS, REGS, REGS, OFFSETS),
    st.builds(isa.fetch, REGS, OFFSETS),
    st.builds(isa.li, REGS, st.integers(0, (1 << 64) - 1)),
    st.builds(isa.addi, REGS, REGS, st.integers(-(1 << 63), (1 << 63) - 1)),
    st.builds(isa.bne, REGS, REGS, st.just(0)),
    st.builds(isa.beq, REGS, REGS, st.just(0)),
    st.builds(isa.syscall),
)


@given(st.lists(STRAIGHT, max_size=20).map(tuple))
def test_what_is_printed_reads_back(program: tuple[Insn, ...]) -> None:
    assert assemble_text("\n".join(map(str, program))) == program


def test_labels_and_comments() -> None:
    program = assemble_text("""
        li r1, 3        # three times
      again: addi r1, r1, -1
        bne r1, r0, again ; back
        beq r0, r0, end
      end:
    """)

    assert program == (isa.li(1, 3), isa.addi(1, 1, -1), isa.bne(1, 0, 1), isa.beq(0, 0, 4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mov r1, r2", "line 1: no instruction 'mov', expected one of ld st"),
        ("\nld r1", "line 2: ld has 1 operands, expected 2"),
        ("ld r16, [r1]", "line 1: 'r16', expected a register r0 to r15"),
        ("ld r1, r2", r"line 1: 'r2', expected \[rN\+offset\]"),
        ("li r1, x", "line 1: 'x', expected a number or a label"),
        ("a: a: syscall", "line 1: label 'a' again"),
        ("bne r1, r2, 7", "jumps out of the 1 instructions"),
        ("li r1, 0x1ffffffffffffffff", "does not fit in 64 bits"),
    ],
)
def test_a_mistake_names_its_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assemble_text(text)

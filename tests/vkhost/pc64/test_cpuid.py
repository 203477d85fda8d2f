"""What CPUID promises: the levels of the System V ABI's x86-64 psABI, as far as there are bits."""

from __future__ import annotations

from vkhost.pc64.cpuid import cpuid

# Bits of leaf 1. Of the third level AVX2, BMI and the rest of leaf 7 are not there.
BASELINE = {"FPU": 0, "CX8": 8, "CMOV": 15, "MMX": 23, "FXSR": 24, "SSE": 25, "SSE2": 26}  # edx
LONG_MODE = {"TSC": 4, "MSR": 5, "PAE": 6}  # edx, what a kernel needs to get there
SECOND = {"SSE3": 0, "SSSE3": 9, "CX16": 13, "SSE4.1": 19, "SSE4.2": 20, "POPCNT": 23}  # ecx
THIRD = {"FMA": 12, "XSAVE": 26, "OSXSAVE": 27, "AVX": 28, "F16C": 29}  # ecx


def bits(*tables: dict[str, int]) -> int:
    return sum(1 << bit for table in tables for bit in table.values())


def test_a_program_finds_the_levels_that_its_compiler_may_ask_for() -> None:
    _, _, ecx, edx = cpuid(1)

    assert edx == bits(BASELINE, LONG_MODE)
    assert ecx == bits(SECOND, THIRD)
    assert cpuid(0x8000_0001)[3] == bits({"SYSCALL": 11, "NX": 20, "LM": 29})

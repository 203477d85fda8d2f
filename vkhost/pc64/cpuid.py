"""CPUID of the host's CPUs: one model, the same on every machine vkemu runs on.

A processor with AVX. Nothing traps CPUID for a vkernel, so its user programs see this, and the
vkernel's own cpu_feature2, from which the patch takes AVX away, is seen by those only who ask the
kernel (vkernel64 cpu_regs.c, which masks feature2; do_cpuid is the bare instruction).
"""

from __future__ import annotations

from typing import Final

SIGNATURE: Final = 0x000306C3

# Leaf 1 ecx, DragonFly sys/cpu/x86_64/include/specialreg.h.
CPUID2_SSE3: Final = 1 << 0
CPUID2_SSSE3: Final = 1 << 9
CPUID2_FMA: Final = 1 << 12
CPUID2_CX16: Final = 1 << 13
CPUID2_SSE41: Final = 1 << 19
CPUID2_SSE42: Final = 1 << 20
CPUID2_POPCNT: Final = 1 << 23
CPUID2_XSAVE: Final = 1 << 26
CPUID2_OSXSAVE: Final = 1 << 27
CPUID2_AVX: Final = 1 << 28
CPUID2_F16C: Final = 1 << 29
FEATURE2: Final = (
    CPUID2_SSE3 | CPUID2_SSSE3 | CPUID2_FMA | CPUID2_CX16 | CPUID2_SSE41 | CPUID2_SSE42
    | CPUID2_POPCNT | CPUID2_XSAVE | CPUID2_OSXSAVE | CPUID2_AVX | CPUID2_F16C
)  # fmt: skip
# Leaf 1 edx: FPU TSC MSR PAE CX8 CMOV MMX FXSR SSE SSE2.
FEATURE: Final = (
    1 << 0 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26
)
LONG_MODE: Final = 1 << 29 | 1 << 20 | 1 << 11  # leaf 0x80000001 edx: LM, NX, SYSCALL
MXCSR_MASK: Final = 0xFFFF  # hw.mxcsr_mask: DAZ is there

Regs = tuple[int, int, int, int]  # eax, ebx, ecx, edx


def _vendor(at: int) -> int:
    vendor = b"GenuineIntel"
    return int.from_bytes(vendor[at : at + 4], "little")


_LEAVES: Final[dict[int, Regs]] = {
    0: (1, _vendor(0), _vendor(8), _vendor(4)),
    1: (SIGNATURE, 0, FEATURE2, FEATURE),
    0x80000000: (0x80000001, 0, 0, 0),
    0x80000001: (0, 0, 1, LONG_MODE),
}


def cpuid(leaf: int, subleaf: int = 0) -> Regs:
    """What the instruction answers; zeroes beyond what there is."""
    return _LEAVES.get(leaf & 0xFFFF_FFFF, (0, 0, 0, 0))

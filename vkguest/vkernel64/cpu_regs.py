"""What the guest kernel thinks its CPUs can. DragonFly vkernel64 `x86_64/cpu_regs.c`.

The patch takes away what needs more than an fxsave image to be switched. That reaches who asks the
kernel; a program that executes CPUID itself sees the host's, AVX included, since nothing makes
CPUID trap for a vkernel. As it was before: quirk `cpu_feature2_avx`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.insn import cpuid

from vkguest.vkernel64.dmap import access

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData

CPUID2_FMA: Final = 1 << 12
CPUID2_XSAVE: Final = 1 << 26
CPUID2_OSXSAVE: Final = 1 << 27
CPUID2_AVX: Final = 1 << 28
CPUID2_F16C: Final = 1 << 29
NOT_SWITCHED: Final = CPUID2_XSAVE | CPUID2_OSXSAVE | CPUID2_AVX | CPUID2_FMA | CPUID2_F16C


async def identify_cpu(gd: GlobalData) -> int:
    """cpu_feature2."""
    (value,) = await access(gd, cpuid(1))
    feature2 = value >> 32
    return feature2 if gd.kernel.quirks.cpu_feature2_avx else feature2 & ~NOT_SWITCHED

"""Quirks of the vkernel: what patch #3389 changes in how it treats the machine that it runs on.

Each is a switch with a name, read at the place where it matters (`gd.kernel.quirks.name`): True is
how it was. Left open (None) it is as the guest's own tree has it, and of a guest that names none,
as patched. Only programs in machine code see them.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

Tree: TypeAlias = Literal["5.4", "2020", "patch", "2026"]

AS_IT_WAS: Final[frozenset[Tree]] = frozenset({"5.4", "2020"})


class Quirks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[guest.quirks]: the old forms. Left open they are as in the guest's tree."""

    # npx.c:fpusave, fpurstor: without REX.W the FPU's instruction pointer is cut to 32 bits.
    fxsave32: bool | None = None
    # npx.c:npxdna, npxpop: MXCSR is held against 0xFFBF, not npx_mxcsr_mask: DAZ is lost.
    mxcsr_mask_ffbf: bool | None = None
    # cpu_regs.c: cpu_feature2 keeps XSAVE, OSXSAVE, AVX, FMA and F16C.
    cpu_feature2_avx: bool | None = None
    # kern_timeout.c:softclock_handler holds a vkernel's address for no kernel's: a panic.
    callout_verifier_check: bool | None = None

    def on(self, tree: Tree) -> Quirks:
        """With what is left open as the tree has it."""
        was = tree in AS_IT_WAS
        own = {name: was for name in self.__struct_fields__ if getattr(self, name) is None}
        return msgspec.structs.replace(self, **own)


AS_PATCHED: Final = Quirks().on("patch")

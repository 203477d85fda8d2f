"""The VPTE: one entry of a guest's page table, a 64-bit word in its memory image.

DragonFly `sys/sys/vkernel.h`. The host tests V, RW and NX, stops at PS, sets A and M; U, G, WIRED
and MANAGED are the guest's own.
"""

from __future__ import annotations

from typing import Final

from vkprotocol.mman import PROT_EXEC, PROT_WRITE

VPTE_V: Final = 0x001
VPTE_RW: Final = 0x002
VPTE_U: Final = 0x004
VPTE_A: Final = 0x020
VPTE_M: Final = 0x040
VPTE_PS: Final = 0x080
VPTE_G: Final = 0x100
VPTE_WIRED: Final = 0x200
VPTE_MANAGED: Final = 0x400
VPTE_NX: Final = 0x800  # bit 11, where the hardware PTE has bit 63
VPTE_FRAME: Final = 0x000F_FFFF_FFFF_F000

VPTE_FRAME_END: Final = 48
VPTE_PAGE_BITS: Final = 9
VPTE_PAGE_ENTRIES: Final = 1 << VPTE_PAGE_BITS
VPTE_PAGE_MASK: Final = VPTE_PAGE_ENTRIES - 1
VPTE_PAGETABLE_SIZE: Final = VPTE_PAGE_ENTRIES * 8

# Index bits left before the first table: the walk enters the PML4 with 27 of them left.
VPTE_ROOT_SHIFT: Final = VPTE_FRAME_END - 12

VPTE_NAMES: Final = {
    "V": VPTE_V, "RW": VPTE_RW, "U": VPTE_U, "A": VPTE_A, "M": VPTE_M, "PS": VPTE_PS,
    "G": VPTE_G, "WIRED": VPTE_WIRED, "MANAGED": VPTE_MANAGED, "NX": VPTE_NX,
}  # fmt: skip


def vpte_frame(vpte: int) -> int:
    """The frame it names: a page index of the object the mapping maps."""
    return (vpte & VPTE_FRAME) >> 12


def vpte_permits(vpte: int, prot: int) -> bool:
    """Does a walk for an access of this PROT_* (VM_PROT_* is the same) go on by it?"""
    if not vpte & VPTE_V:
        return False
    if prot & PROT_WRITE and not vpte & VPTE_RW:
        return False
    return not (prot & PROT_EXEC and vpte & VPTE_NX)


def vpte_text(vpte: int) -> str:
    """`0x5003` as `frame 5 V|RW`."""
    bits = "|".join(name for name, bit in VPTE_NAMES.items() if vpte & bit)
    return f"frame {vpte_frame(vpte)} {bits or '0'}"

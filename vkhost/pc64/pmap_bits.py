"""Bits of a host PTE, and the PTE itself. DragonFly pc64 include/pmap.h."""

from __future__ import annotations

from typing import Final

from vkprotocol.param import PAGE_SHIFT

from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE

PTE_V: Final = 0x001
PTE_RW: Final = 0x002
PTE_U: Final = 0x004
PTE_A: Final = 0x020
PTE_M: Final = 0x040
PTE_W: Final = 0x200  # wired
PTE_MANAGED: Final = 0x400
PTE_NX: Final = 1 << 63
PTE_FRAME: Final = 0x000F_FFFF_FFFF_F000
PT_SHIFT: Final = 9


def pte_pfn(pte: int) -> int:
    return (pte & PTE_FRAME) >> PAGE_SHIFT


def pte_make(pfn: int, prot: int, bits: int = 0) -> int:
    """pmap.c:pte_prot: the bits of a protection, plus `bits`."""
    pte = pfn << PAGE_SHIFT | PTE_V | PTE_U | bits
    if prot & VM_PROT_WRITE:
        pte |= PTE_RW
    if not prot & VM_PROT_EXECUTE:
        pte |= PTE_NX
    return pte


def pte_prot(pte: int) -> int:
    """The accesses a PTE permits."""
    if not pte & PTE_V:
        return 0
    prot = VM_PROT_READ
    if pte & PTE_RW:
        prot |= VM_PROT_WRITE
    if not pte & PTE_NX:
        prot |= VM_PROT_EXECUTE
    return prot

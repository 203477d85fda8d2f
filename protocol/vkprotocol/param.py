"""Page size and address space. DragonFly pc64 `vmparam.h`, vkernel64 `param.h` and `init.c`."""

from __future__ import annotations

from typing import Final

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PAGE_MASK: Final = PAGE_SIZE - 1
SEG_SHIFT: Final = 21
SEG_SIZE: Final = 1 << SEG_SHIFT  # what one PDE spans
SEG_MASK: Final = SEG_SIZE - 1

VM_MIN_USER_ADDRESS: Final = 0
VM_MAX_USER_ADDRESS: Final = 0x0000_7FFF_FFE0_0000

# The vkernel's own user space: its kernel virtual addresses, and all of its memory once more.
KERNEL_KVA_START: Final = 512 << 30
KERNEL_KVA_SIZE: Final = 512 << 30
DMAP_SIZE: Final = 512 << 30


def trunc_page(va: int) -> int:
    return va & ~PAGE_MASK


def round_page(va: int) -> int:
    return (va + PAGE_MASK) & ~PAGE_MASK


def atop(size: int) -> int:
    """Bytes to pages."""
    return size >> PAGE_SHIFT


def ptoa(pages: int) -> int:
    """Pages to bytes."""
    return pages << PAGE_SHIFT

"""The virtual kernel's own layout. DragonFly vkernel64 `include/vmparam.h`, `platform/init.c`.

KERNEL_KVA_START  KVA: VPAGETABLE, offset = address, so the walk index is the VA page number
DMAP_MIN_ADDRESS  DMAP: NORMAL, offset 0, the whole image once more

frame 0           the kernel's PML4: what SETMAP of the KVA names
frames 1 to 3     its PDP, PD and the one PT of the first 2 MB of KVA
frames 4 ...      free memory, then the swap area
"""

from __future__ import annotations

from typing import Final

from vkprotocol.param import KERNEL_KVA_SIZE, KERNEL_KVA_START, PAGE_SHIFT, SEG_SHIFT, SEG_SIZE

DMAP_MIN_ADDRESS: Final = KERNEL_KVA_START + KERNEL_KVA_SIZE

KPML4_FRAME: Final = 0
KPDP_FRAME: Final = 1
KPD_FRAME: Final = 2
KPT_FRAME: Final = 3
FIRST_FREE_FRAME: Final = 4
KVA_PAGES: Final = SEG_SIZE >> PAGE_SHIFT  # what the one kernel PT maps

PDP_SHIFT: Final = 30  # what one PDPE spans
PML4_SHIFT: Final = 39  # what one PML4E spans

# pindexes of table pages in pm_pteobj: all PTs, then all PDs, then all PDPs.
NUPDE: Final = 1 << (48 - SEG_SHIFT)
NUPDPE: Final = 1 << (48 - PDP_SHIFT)

# One process: text, and from there on data, in one 2 MB segment; 4 table pages serve it all.
TEXT_ADDRESS: Final = 0x0040_0000
DATA_ADDRESS: Final = 0x0041_0000
MMAP_ADDRESS: Final = 0x0050_0000
DATA_PAGES_MAX: Final = (MMAP_ADDRESS - DATA_ADDRESS) >> PAGE_SHIFT
LARGE_ADDRESS: Final = 0x0080_0000  # 2 MB aligned, for PS entries
SPARSE_ADDRESS: Final = 0x0100_0000  # and upwards, a page in every 2 MB
LARGE_PAGES_MAX: Final = SEG_SIZE >> PAGE_SHIFT


def phys_to_dmap(frame: int) -> int:
    """Where the DMAP shows a frame."""
    return DMAP_MIN_ADDRESS + (frame << PAGE_SHIFT)

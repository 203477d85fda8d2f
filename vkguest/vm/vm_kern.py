"""Kernel virtual addresses, and the unmanaged mappings at them.

DragonFly `vm/vm_kern.c` and vkernel64 `platform/pmap.c`: pmap_kenter and its kin. KVA is mapped by
VPTEs like everything else, so a KVA that is used again is stale until the host was told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import Lock
from vkprotocol.guarded import guarded_by
from vkprotocol.insn import swap
from vkprotocol.param import KERNEL_KVA_START, PAGE_SHIFT, PAGE_SIZE
from vkprotocol.vpte import VPTE_RW, VPTE_U, VPTE_V

from vkguest.kern.errors import GuestPanic
from vkguest.kern.lockorder import KVA_LOCK
from vkguest.kern.param import KPT_FRAME, KVA_PAGES, phys_to_dmap
from vkguest.vkernel64.dmap import access, store
from vkguest.vkernel64.pmap_inval import pmap_inval_pte, pmap_invalidate_range

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vkernel64.pmap import Pmap


def vtopte(va: int) -> int:
    """Address of the VPTE of a KVA: all of them are in one page table, which never goes away."""
    index = (va - KERNEL_KVA_START) >> PAGE_SHIFT
    assert 0 <= index < KVA_PAGES, f"vtopte: {va:#x}"
    return phys_to_dmap(KPT_FRAME) + 8 * index


def kernel_pte(frame: int) -> int:
    return (frame << PAGE_SHIFT) | VPTE_RW | VPTE_V | VPTE_U


@guarded_by("lock", "used")
class Kva:
    """kernel_map, as far as it goes here: a first-fit list of pages. `lock` covers it.

    What was freed last is handed out first, so a missing INVAL shows.
    """

    def __init__(self, name: str, kernel_pmap: Pmap) -> None:
        self.lock = Lock((name, "kernel_map"), KVA_LOCK)
        self.pmap = kernel_pmap
        self.used = [False] * KVA_PAGES

    async def kmem_alloc_pageable(self, count: int) -> int:
        """`count` consecutive pages of address space, nothing behind them yet."""
        async with self.lock:
            for first in range(KVA_PAGES - count + 1):
                if not any(self.used[first : first + count]):
                    self.used[first : first + count] = [True] * count
                    return KERNEL_KVA_START + first * PAGE_SIZE
        raise GuestPanic("kmem_alloc_pageable: out of KVA")

    async def kmem_free(self, va: int, count: int) -> None:
        first = (va - KERNEL_KVA_START) >> PAGE_SHIFT
        async with self.lock:
            assert all(self.used[first : first + count]), "kmem_free: free already"
            self.used[first : first + count] = [False] * count

    async def pmap_kenter(self, gd: GlobalData, va: int, frame: int) -> None:
        """pmap.c:pmap_kenter and _quick: 0, INVAL - always, as the VA may have been removed
        without one - then the new VPTE."""
        ptep = vtopte(va)
        if "noinval-live" not in gd.mutants:
            await pmap_inval_pte(gd, ptep, self.pmap, va)
        await access(gd, swap(ptep, kernel_pte(frame)))

    async def pmap_kenter_noinval(self, gd: GlobalData, va: int, frame: int) -> None:
        """pmap.c:pmap_kenter_noinval. Only for a VA that no CPU can have a translation of (W05)."""
        await store(gd, vtopte(va), kernel_pte(frame))

    async def pmap_kremove(self, gd: GlobalData, va: int) -> None:
        """pmap.c:pmap_kremove and _quick."""
        ptep = vtopte(va)
        await access(gd, swap(ptep, 0))
        await pmap_inval_pte(gd, ptep, self.pmap, va)

    async def pmap_kremove_noinval(self, gd: GlobalData, va: int) -> None:
        await store(gd, vtopte(va), 0)

    async def pmap_qenter(self, gd: GlobalData, va: int, frames: list[int]) -> None:
        """pmap.c:pmap_qenter: all the VPTEs, then one INVAL of the range (W04 in between)."""
        for n, frame in enumerate(frames):
            await access(gd, swap(vtopte(va + n * PAGE_SIZE), kernel_pte(frame)))
        if "noinval-live" not in gd.mutants:
            await pmap_invalidate_range(gd, self.pmap, va, va + len(frames) * PAGE_SIZE)

    async def pmap_qenter_noinval(self, gd: GlobalData, va: int, frames: list[int]) -> None:
        for n, frame in enumerate(frames):
            await store(gd, vtopte(va + n * PAGE_SIZE), kernel_pte(frame))

    async def pmap_qremove(self, gd: GlobalData, va: int, count: int) -> None:
        """pmap.c:pmap_qremove: all to 0, then one INVAL. No frame may be reused before it."""
        for n in range(count):
            await access(gd, swap(vtopte(va + n * PAGE_SIZE), 0))
        if "noinval-live" not in gd.mutants:
            await pmap_invalidate_range(gd, self.pmap, va, va + count * PAGE_SIZE)

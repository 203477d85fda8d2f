"""Kernel virtual addresses, and the unmanaged mappings at them.

DragonFly `vm/vm_kern.c` and vkernel64 `platform/pmap.c`: pmap_kenter and its kin. KVA is mapped by
VPTEs like everything else, so a KVA that is used again is stale until the host was told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import Lock
from vkprotocol.guarded import guarded_by
from vkprotocol.insn import swap, zero_page
from vkprotocol.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from vkprotocol.param import KERNEL_KVA_START, PAGE_SHIFT, PAGE_SIZE
from vkprotocol.vpte import VPTE_RW, VPTE_U, VPTE_V

from vkguest.kern.errors import GuestPanic, VmWait
from vkguest.kern.lockorder import KVA_LOCK
from vkguest.kern.param import KPT_FRAME, KVA_PAGES, phys_to_dmap
from vkguest.vkernel64.dmap import access, store
from vkguest.vkernel64.pmap import pmap_enter
from vkguest.vkernel64.pmap_inval import pmap_inval_pte, pmap_invalidate_range
from vkguest.vm.vm_map import INHERIT_SHARE, VmMapEntry, vm_map_delete, vm_map_insert
from vkguest.vm.vm_object import VmObject
from vkguest.vm.vm_page import VM_ALLOC_NORMAL, vm_page_alloc, vm_page_wakeup, vm_page_wire

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vkernel64.pmap import Pmap

VM_PROT_ALL = PROT_READ | PROT_WRITE | PROT_EXEC


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


# With a kernel_map: address space that shows an object, so that a fault of the kernel on it can be
# resolved as one of a process is (trap.c:kern_trap).


async def vm_map_find(gd: GlobalData, count: int, obj: VmObject) -> int:
    """vm_map.c:vm_map_find in kernel_map: `count` pages of KVA for the pages of `obj`."""
    va = await gd.kernel.kva.kmem_alloc_pageable(count)
    end = va + count * PAGE_SIZE
    kernel_map = gd.kernel.kernel_map
    entry = VmMapEntry(va, end, obj, 0, VM_PROT_ALL, VM_PROT_ALL, INHERIT_SHARE)
    await kernel_map.lock.acquire_exclusive()
    vm_map_insert(kernel_map, entry)
    await kernel_map.lock.release()
    return va


async def kmem_alloc_stack(gd: GlobalData) -> int:
    """vm_kern.c:kmem_alloc3, of a kernel stack: one page, wired, and entered at once, so
    that a kernel does not fault on its own stack. Raises VmWait, with nothing done."""
    obj = VmObject()
    async with obj.lock:
        m = await vm_page_alloc(gd, obj, 0, VM_ALLOC_NORMAL, "kstack")
    if m is None:
        raise VmWait
    await vm_page_wire(gd, m)
    await access(gd, zero_page(phys_to_dmap(m.frame)))
    va = await vm_map_find(gd, 1, obj)
    await pmap_enter(gd, gd.kernel.kernel_pmap, va, m, VM_PROT_ALL, wired=True)
    await vm_page_wakeup(m)
    return va


async def kmem_free(gd: GlobalData, va: int, count: int) -> None:
    """vm_kern.c:kmem_free: translations, then pages, then the address space."""
    kernel_map = gd.kernel.kernel_map
    await kernel_map.lock.acquire_exclusive()
    await vm_map_delete(gd, kernel_map, va, va + count * PAGE_SIZE)
    await kernel_map.lock.release()
    await gd.kernel.kva.kmem_free(va, count)

"""Guest swap: the last frames of the memory image, reached through the DMAP only.

DragonFly `vm/swap_pager.c`, with memory in place of a disk. To the host these are pages of the
image that no VPTE maps: neighbours of mapped ones that are dirty and can be laundered (W07).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import Lock
from vkprotocol.guarded import guarded_by

from vkguest.kern.lockorder import SWAP_LOCK
from vkguest.vkernel64.dmap import pmap_copy_page

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vm.vm_object import VmObject
    from vkguest.vm.vm_page import VmPage


@guarded_by("lock", "free", "taken")
class SwapArea:
    """swapblist: the free slots, which are frame numbers, and how many were `taken` so far. `lock`
    covers both."""

    def __init__(self, name: str, first: int, end: int) -> None:
        self.lock = Lock((name, "swapblist"), SWAP_LOCK)
        self.free = list(range(end - 1, first - 1, -1))
        self.taken = 0

    async def getswapspace(self) -> int | None:
        async with self.lock:
            if not self.free:
                return None
            self.taken += 1
            return self.free.pop()

    async def freeswapspace(self, slot: int) -> None:
        async with self.lock:
            self.free.append(slot)

    async def full(self) -> bool:
        """swap_pager_full: nothing more can be paged out."""
        async with self.lock:
            return not self.free


async def swap_pager_putpage(gd: GlobalData, m: VmPage) -> bool:
    """Write a page out, to the slot it has or a new one; False when swap is full.

    The caller has `m` busied and holds the lock of its object, whose swap metadata this changes.
    """
    obj = m.object
    assert obj is not None
    slot = obj.swap.get(m.pindex)
    if slot is None:
        slot = await gd.kernel.swap.getswapspace()
        if slot is None:
            return "full-swap-is-written" in gd.mutants
        obj.swap[m.pindex] = slot
    await pmap_copy_page(gd, m.frame, slot)
    return True


async def swap_pager_getpage(gd: GlobalData, obj: VmObject, m: VmPage) -> None:
    """Read a page in. Its slot stays: a clean page can be thrown away again without a write."""
    await pmap_copy_page(gd, obj.swap[m.pindex], m.frame)


async def swap_pager_freespace(gd: GlobalData, obj: VmObject, pindex: int) -> None:
    """The object needs its copy no more. The caller holds the object's lock."""
    slot = obj.swap.pop(pindex, None)
    if slot is not None:
        await gd.kernel.swap.freeswapspace(slot)

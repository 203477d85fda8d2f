"""VmObject: what an entry of a guest map maps, and the shadow trees that fork makes of them.

DragonFly `vm/vm_object.c`. A shadow has the pages that were written since it was made; what it
lacks is at the same pindex of its backing object. All objects of a tree share one lock, since a
fault and a collapse go through several of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vkprotocol.effects import Lock, fresh_key
from vkprotocol.guarded import guarded_by
from vkprotocol.mman import MADV_FREE, MADV_WILLNEED

from vkguest.kern.lockorder import OBJECT_LOCK
from vkguest.vkernel64.pmap_page import pmap_clear_modify, pmap_remove_all
from vkguest.vm.swap_pager import swap_pager_freespace
from vkguest.vm.vm_page import (
    VmPage,
    vm_page_busy_try,
    vm_page_dontneed,
    vm_page_free,
    vm_page_sleep_busy,
    vm_page_unwire,
    vm_page_wakeup,
)

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData


@guarded_by("lock", "backing", "pages", "ref_count", "swap")
class VmObject:
    """Everything below `lock` belongs to it.

    A pindex is in `pages` (resident), in `swap`, in both (resident, and a copy that is valid while
    the page is clean), or in neither: then it is looked for in `backing`, and zero without one.
    `text`: words of a program, what its one page is filled with. `disk`: where the pages of a file
    are on the disk.
    """

    __slots__ = ("backing", "disk", "lock", "name", "pages", "ref_count", "swap", "text")

    def __init__(
        self,
        *,
        backing: VmObject | None = None,
        text: tuple[int, ...] = (),
        disk: range | None = None,
    ) -> None:
        self.name = "text" if text else "anon" if disk is None else "vnode"
        self.disk = disk
        self.lock: Lock = (
            Lock(fresh_key("vm_object"), OBJECT_LOCK) if backing is None else backing.lock
        )
        self.pages: dict[int, VmPage] = {}
        self.swap: dict[int, int] = {}
        self.ref_count = 1
        self.backing = backing
        self.text = text


async def vm_object_reference(obj: VmObject) -> None:
    async with obj.lock:
        obj.ref_count += 1


async def vm_object_deallocate(gd: GlobalData, obj: VmObject) -> None:
    """vm_object.c:vm_object_deallocate: one reference less; with the last go the pages."""
    await obj.lock.acquire()
    last: VmObject | None = obj
    while last is not None:
        last.ref_count -= 1
        if last.ref_count:
            break
        await _vm_object_terminate(gd, last)
        last = last.backing
    await obj.lock.release()


async def _vm_object_terminate(gd: GlobalData, obj: VmObject) -> None:
    for pindex in sorted(obj.pages):
        await vm_object_page_free(gd, obj, pindex)
    for pindex in sorted(obj.swap):
        await swap_pager_freespace(gd, obj, pindex)


async def vm_object_page_free(gd: GlobalData, obj: VmObject, pindex: int) -> None:
    """Free one page, whatever state it is in. The caller holds the lock; it is lost for a while
    if the page daemon has the page busied."""
    while (m := obj.pages.get(pindex)) is not None:
        if not await vm_page_busy_try(m):
            await obj.lock.release()
            await vm_page_sleep_busy(m)
            await obj.lock.acquire()
            continue
        await pmap_remove_all(gd, m)
        if m.wire_count:
            await vm_page_unwire(gd, m)
        await vm_page_free(gd, m)


async def vm_object_page_remove(
    gd: GlobalData, obj: VmObject, start: int, end: int, refs: int
) -> None:
    """vm_object.c:vm_object_page_remove: part of the object is unmapped for good.

    Nothing happens unless the caller's `refs` references are all there are, as another user may
    still want the pages.
    """
    async with obj.lock:
        if obj.ref_count == refs:
            for pindex in _scan(obj, start, end):
                await vm_object_page_free(gd, obj, pindex)
                await swap_pager_freespace(gd, obj, pindex)


def _scan(obj: VmObject, start: int, end: int) -> Iterator[int]:
    """What there is in [start, end), in memory or in swap, which
    may be far less than a program has mapped. Also what comes while the lock is lost."""
    while start < end:
        there = (n for n in (*obj.pages, *obj.swap) if start <= n < end)
        found = min(there, default=None)
        if found is None:
            return
        yield found
        start = found + 1


async def vm_object_madvise(
    gd: GlobalData, obj: VmObject, start: int, end: int, advise: int
) -> None:
    """vm_object.c:vm_object_madvise: DONTNEED and FREE; busy pages are passed by.

    FREE, of an object nobody shares (OBJ_ONEMAPPING): the page counts as clean, and what it held
    may go before it is written again. WILLNEED could only do what the next fault does.
    """
    if advise == MADV_WILLNEED:
        return
    async with obj.lock:
        free = advise == MADV_FREE
        shadows = obj.backing is not None and "madvise-frees-shadow" not in gd.mutants
        if free and (obj.ref_count > 1 or shadows):
            return
        for pindex in _scan(obj, start, end):
            m = obj.pages.get(pindex)
            if m is not None:
                if not await vm_page_busy_try(m):
                    continue
                if free:
                    await pmap_clear_modify(gd, m)
                await vm_page_dontneed(gd, m, undirty=free)
                await vm_page_wakeup(m)
            if free:
                await swap_pager_freespace(gd, obj, pindex)


async def vm_object_collapse(gd: GlobalData, obj: VmObject) -> None:
    """vm_object.c:vm_object_collapse: an object takes over its backing object when nobody else
    uses that any more, here and everywhere further down.

    Further down too: who forks again while a child lives adds a shadow over one that is shared, and
    what is below that would never be looked at. The caller holds the lock. Gives up on a busy page;
    the next copy-on-write tries again.
    """
    while (backing := obj.backing) is not None:
        if backing.ref_count > 1:
            obj = backing
        elif not await _take_over(gd, obj, backing):
            return


async def _take_over(gd: GlobalData, obj: VmObject, backing: VmObject) -> bool:
    """False at a busy page. The lock is kept all the time, as two may want to collapse."""
    for pindex, m in sorted(backing.pages.items()):
        if not await vm_page_busy_try(m):
            return False
        newer = pindex in obj.pages or pindex in obj.swap
        if newer and "older-page-wins" not in gd.mutants:
            await pmap_remove_all(gd, m)
            await vm_page_free(gd, m)
        else:
            del backing.pages[pindex]
            m.object = obj
            obj.pages[pindex] = m
            if pindex in backing.swap:
                obj.swap[pindex] = backing.swap.pop(pindex)
            await vm_page_wakeup(m)
    for pindex in sorted(backing.swap):
        if pindex in obj.pages or pindex in obj.swap:
            await swap_pager_freespace(gd, backing, pindex)
        else:
            obj.swap[pindex] = backing.swap.pop(pindex)
    obj.backing, backing.backing = backing.backing, None
    backing.ref_count = 0
    return True

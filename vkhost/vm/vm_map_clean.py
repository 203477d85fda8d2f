"""vm_map_clean: msync(2). Write what is dirty in a range, and drop it with MS_INVALIDATE.

The pages are found by arithmetic, start + (pindex - offset), which is wrong for a VPAGETABLE entry:
other frames than those mapped there are flushed, and with MS_INVALIDATE freed while mapped (W41).
To 2021 the whole object of such an entry was cleaned; [P] decided against it; [26] cleans nothing
of it. An entry that shows part of a file is written only if somebody else has marked its pages:
vm_object_page_clean marks those of whole objects.

DragonFly sys/vm/vm_map.c:vm_map_clean.
"""

from __future__ import annotations

from vkprotocol.param import atop

from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.vm.vm import KERN_INVALID_ADDRESS, KERN_SUCCESS, VM_MAPTYPE_VPAGETABLE, VM_PROT_WRITE
from vkhost.vm.vm_map import (
    VmMap,
    VmMapEntry,
    entries_in,
    vm_map_lock_read,
    vm_map_lookup_entry,
    vm_map_unlock,
)
from vkhost.vm.vm_object import OBJT_VNODE, VmObject
from vkhost.vm.vm_object_page import vm_object_page_clean, vm_object_page_remove
from vkhost.vm.vm_pageout_clean import OBJPC_INVAL, OBJPC_SYNC

Range = tuple[VmObject, int, int]  # pindex of the first page, and after the last


async def vm_map_clean(
    vm_map: VmMap, start: int, end: int, *, syncio: bool, invalidate: bool
) -> int:
    """KERN_INVALID_ADDRESS if any part of the range is not mapped."""
    await vm_map_lock_read(vm_map)
    if vm_map_lookup_entry(vm_map, start) is None or not _no_holes(vm_map, start, end):
        await vm_map_unlock(vm_map)
        return KERN_INVALID_ADDRESS
    if invalidate:
        await pmap_remove(vm_map.pmap, start, end)
    for entry in entries_in(vm_map, start, end):
        use_start = max(start, entry.start)
        size = min(end, entry.end) - use_start
        found = _clean_object(entry, use_start, size)
        pages = _pages_of(entry, vm_map.kernel.quirks.clean_vpagetable, found)
        if pages is not None:
            await _clean(entry, *pages, syncio, invalidate)
    await vm_map_unlock(vm_map)
    return KERN_SUCCESS


def _no_holes(vm_map: VmMap, start: int, end: int) -> bool:
    for entry in entries_in(vm_map, start, end):
        if entry.start > start:
            return False
        start = entry.end
    return start >= end


def _pages_of(entry: VmMapEntry, how: str | None, found: Range | None) -> Range | None:
    """What of the object found by arithmetic is to be cleaned; an end of 0 is all of it."""
    if found is None or entry.maptype != VM_MAPTYPE_VPAGETABLE or how == "range":
        return found
    return (found[0], 0, 0) if how == "object" else None


def _clean_object(entry: VmMapEntry, va: int, size: int) -> Range | None:
    """(object, first pindex, pindex after the last): anonymous memory is not worth writing, so one
    layer down is looked for a vnode - one only, as the kernel's own comment regrets."""
    ba = entry.ba
    offset = ba.offset + va - entry.start
    if ba.backing_ba is not None:
        offset += ba.backing_ba.offset - ba.offset
        ba = ba.backing_ba
    obj = ba.object
    if obj is None or obj.type != OBJT_VNODE:
        return None
    return obj, atop(offset), atop(offset + size)


async def _clean(
    entry: VmMapEntry, obj: VmObject, start: int, end: int, syncio: bool, invalidate: bool
) -> None:
    if entry.protection & VM_PROT_WRITE:
        flags = OBJPC_SYNC if syncio or invalidate else 0
        assert obj.handle is not None
        await obj.handle.lock.acquire_exclusive()
        await vm_object_page_clean(obj, start, end, flags | (OBJPC_INVAL if invalidate else 0))
        await obj.handle.lock.release()
    if invalidate:
        await vm_object_page_remove(obj, start, end, clean_only=True)

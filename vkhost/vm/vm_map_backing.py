"""vm_map_backing: the links between map entries and objects, and the shadows put between them.

DragonFly sys/vm/vm_map.c:vm_map_backing_replicated, vm_map_backing_adjust_start,
vm_map_backing_adjust_end, vm_map_entry_dispose, vm_map_entry_shadow, vm_map_entry_allocate_object.
All need the exclusive map lock.
"""

from __future__ import annotations

from vkprotocol.param import atop

from vkhost.vm.vm import MAP_ENTRY_NEEDS_COPY, VM_MAPTYPE_VPAGETABLE
from vkhost.vm.vm_map import (
    VmMap,
    VmMapBacking,
    VmMapEntry,
    vm_map_backing_attach,
    vm_map_backing_detach,
)
from vkhost.vm.vm_object import OBJT_DEFAULT, OBJT_SWAP, vm_object_allocate, vm_object_reference
from vkhost.vm.vm_object_page import vm_object_deallocate


def copy_backing(ba: VmMapBacking) -> VmMapBacking:
    """A C struct assignment: the same extent and links, not on any list."""
    new = VmMapBacking(ba.pmap, ba.maptype, ba.start, ba.end, ba.object, ba.offset)
    new.backing_ba = ba.backing_ba
    new.backing_count = ba.backing_count
    return new


def copy_entry(entry: VmMapEntry) -> VmMapEntry:
    new = VmMapEntry(copy_backing(entry.ba), entry.protection, entry.max_protection, entry.eflags)
    new.inheritance = entry.inheritance
    new.wired_count = entry.wired_count
    new.master_pde = entry.master_pde
    return new


async def vm_map_backing_replicated(
    vm_map: VmMap, entry: VmMapEntry, *, clipped: bool = False
) -> None:
    """Give a copied entry its own chain: new backings, referenced and attached. If it is not a part
    cut off another, the objects have more than one mapping from now on.

    The head's start, end and offset are right already; those below follow the head's start.
    """
    ba = entry.ba
    while True:
        ba.pmap = vm_map.pmap
        if ba.object is not None:
            await vm_object_reference(ba.object)
            await vm_map_backing_attach(ba)
            if not clipped and await ba.object.ref_count.load() > 1:
                await ba.object.onemapping.store(False)
        if ba.backing_ba is None:
            return
        below = copy_backing(ba.backing_ba)
        below.offset += ba.start - below.start
        below.start = ba.start
        below.end = ba.end
        ba.backing_ba = below
        ba = below


async def vm_map_backing_adjust_start(entry: VmMapEntry, start: int) -> None:
    for ba in entry.backings():
        if ba.object is None:
            ba.offset += start - ba.start
            ba.start = start
            continue
        async with ba.object.backing_lk:
            ba.offset += start - ba.start
            ba.start = start


async def vm_map_backing_adjust_end(entry: VmMapEntry, end: int) -> None:
    for ba in entry.backings():
        if ba.object is None:
            ba.end = end
            continue
        async with ba.object.backing_lk:
            ba.end = end


async def vm_map_entry_dispose(entry: VmMapEntry) -> None:
    """The entry is off the map: drop its objects."""
    for ba in entry.backings():
        if ba.object is not None:
            await vm_map_backing_detach(ba)
            await vm_object_deallocate(ba.object)


def _object_pages(vm_map: VmMap, entry: VmMapEntry) -> int:
    if entry.maptype == VM_MAPTYPE_VPAGETABLE and vm_map.kernel.quirks.unbounded_object:
        return 0x7FFFFFFF  # [20]: a VPTE may name any frame, so it has no end worth the name
    return atop(entry.end - entry.start)


async def vm_map_entry_allocate_object(vm_map: VmMap, entry: VmMapEntry) -> None:
    """The anonymous entry is about to be faulted, split or forked: it needs its object now."""
    obj = vm_object_allocate(vm_map.kernel, OBJT_DEFAULT, _object_pages(vm_map, entry))
    entry.ba.offset = 0
    entry.ba.object = obj
    await vm_map_backing_attach(entry.ba)
    vm_map.kernel.emit("map.object", vm_map.pmap.id, entry.start, entry.end, obj.id, 0)


async def vm_map_entry_shadow(vm_map: VmMap, entry: VmMapEntry) -> None:
    """Put an empty object in front of the entry's, which is then only read: copy-on-write."""
    source = entry.ba.object
    assert source is not None
    if (
        source.type in (OBJT_DEFAULT, OBJT_SWAP)
        and source.handle is None
        and await source.ref_count.load() == 1
    ):
        entry.eflags &= ~MAP_ENTRY_NEEDS_COPY  # nobody else sees it: no copy is needed
        return
    await source.onemapping.store(False)
    result = vm_object_allocate(vm_map.kernel, OBJT_DEFAULT, _object_pages(vm_map, entry))
    await vm_map_backing_detach(entry.ba)
    below = copy_backing(entry.ba)
    entry.ba.object = result
    entry.ba.backing_ba = below
    entry.ba.backing_count = below.backing_count + 1
    entry.ba.offset = 0
    await vm_map_backing_attach(entry.ba)
    await vm_map_backing_attach(below)
    entry.eflags &= ~MAP_ENTRY_NEEDS_COPY
    kernel = vm_map.kernel
    kernel.emit("map.object", vm_map.pmap.id, entry.start, entry.end, result.id, 0)
    kernel.emit("object.shadow", result.id, source.id, atop(below.offset))

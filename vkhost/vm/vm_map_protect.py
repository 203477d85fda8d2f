"""Changing what a range allows, and how a child inherits it.

DragonFly sys/vm/vm_map.c:vm_map_protect, vm_map_inherit.
"""

from __future__ import annotations

from vkhost.pc64.pmap_protect import pmap_protect
from vkhost.vm.vm import (
    KERN_INVALID_ARGUMENT,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    MAP_ENTRY_COW,
    VM_INHERIT_NONE,
    VM_INHERIT_SHARE,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_map import VmMap, entries_in, vm_map_lock, vm_map_unlock
from vkhost.vm.vm_map_clip import entries_clipped, is_linked, vm_map_clip_end, vm_map_simplify_entry


async def vm_map_protect(vm_map: VmMap, start: int, end: int, new_prot: int) -> int:
    """All or nothing: one entry whose maximum does not allow it fails the call.

    Of a VPAGETABLE entry this is the protection of the backing object, not of what the guest's
    page table maps. No interlock: the exclusive lock keeps faults out.
    """
    await vm_map_lock(vm_map)
    start, end = vm_map.range_check(start, end)
    for entry in entries_in(vm_map, start, end):
        if new_prot & ~entry.max_protection:
            await vm_map_unlock(vm_map)
            return KERN_PROTECTION_FAILURE
    for entry in await entries_clipped(vm_map, start, end):
        if not is_linked(vm_map, entry):
            continue
        await vm_map_clip_end(vm_map, entry, end)
        old_prot, entry.protection = entry.protection, new_prot
        if new_prot != old_prot:
            keep = new_prot & ~VM_PROT_WRITE if entry.eflags & MAP_ENTRY_COW else new_prot
            await vm_map.kernel.rmap.unroot(vm_map.pmap, entry.start, entry.end)
            await pmap_protect(vm_map.pmap, entry.start, entry.end, keep)
        await vm_map_simplify_entry(vm_map, entry)
    await vm_map_unlock(vm_map)
    return KERN_SUCCESS


async def vm_map_inherit(vm_map: VmMap, start: int, end: int, inheritance: int) -> int:
    if not VM_INHERIT_SHARE <= inheritance <= VM_INHERIT_NONE:
        return KERN_INVALID_ARGUMENT
    await vm_map_lock(vm_map)
    start, end = vm_map.range_check(start, end)
    for entry in await entries_clipped(vm_map, start, end):
        if is_linked(vm_map, entry):
            await vm_map_clip_end(vm_map, entry, end)
            entry.inheritance = inheritance
            await vm_map_simplify_entry(vm_map, entry)
    await vm_map_unlock(vm_map)
    return KERN_SUCCESS

"""vm_fault_collapse: fault all of an entry into its first object, so that the chain can be dropped.

fork does this to a chain that has become long, or whose first object has every page. It goes by the
entry's own range: of a VPAGETABLE entry, whose VPTEs name any page, those outside the range are
not looked for, and gone with the chain (decision 3 of the patch; W49).

DragonFly sys/vm/vm_fault.c:vm_fault_collapse; vm_map.c:vmspace_fork_normal_entry,
vm_map_entry_dispose_ba.
"""

from __future__ import annotations

from typing import Final

from vkprotocol.param import PAGE_SIZE, atop

from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.vm.vm import (
    KERN_SUCCESS,
    KERN_TRY_AGAIN,
    MAP_ENTRY_NEEDS_COPY,
    VM_FAULT_NORMAL,
    VM_MAPTYPE_VPAGETABLE,
    VM_PROT_OVERRIDE_WRITE,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault_object import vm_fault_object
from vkhost.vm.vm_fault_state import FaultState
from vkhost.vm.vm_map import VmMap, VmMapBacking, VmMapEntry, vm_map_backing_detach
from vkhost.vm.vm_map_backing import vm_map_entry_allocate_object, vm_map_entry_shadow
from vkhost.vm.vm_object import VmObject
from vkhost.vm.vm_object_page import vm_object_deallocate
from vkhost.vm.vm_page import PG_REFERENCED
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_flag_set
from vkhost.vm.vm_page_lru import vm_page_activate

VM_MAP_BACKING_LIMIT: Final = 5


async def collapse_before_fork(vm_map: VmMap, entry: VmMapEntry) -> None:
    """The first half of vmspace_fork_normal_entry. Precondition: exclusive lock.

    Whether the first object shadows all the others is tested by counting its pages, which is cheap
    "but probably not perfect".
    """
    obj = entry.ba.object
    if entry.ba.backing_ba is None:
        return
    kernel = vm_map.kernel
    if entry.maptype == VM_MAPTYPE_VPAGETABLE and not kernel.quirks.fork_collapses_vpagetable:
        return
    long = entry.ba.backing_count >= VM_MAP_BACKING_LIMIT
    if not long and not (obj is not None and await _all_resident(obj)):
        return
    await collapse(vm_map, entry)


async def collapse(vm_map: VmMap, entry: VmMapEntry) -> None:
    """Everything into the first object, and the others away. Precondition: exclusive lock."""
    if entry.eflags & MAP_ENTRY_NEEDS_COPY:
        await vm_map_entry_shadow(vm_map, entry)
    if entry.ba.object is None:
        await vm_map_entry_allocate_object(vm_map, entry)
    if await vm_fault_collapse(vm_map, entry) == KERN_SUCCESS:
        below, entry.ba.backing_ba = entry.ba.backing_ba, None
        entry.ba.backing_count = 0
        await _dispose_ba(below)


async def _all_resident(obj: VmObject) -> bool:
    await obj.token.acquire_shared()
    full = obj.size == obj.resident_page_count
    await obj.token.release()
    return full


async def _dispose_ba(ba: VmMapBacking | None) -> None:
    """vm_map_entry_dispose_ba: the chain below an entry."""
    while ba is not None:
        if ba.object is not None:
            await vm_map_backing_detach(ba)
            await vm_object_deallocate(ba.object)
        ba = ba.backing_ba


async def vm_fault_collapse(vm_map: VmMap, entry: VmMapEntry) -> int:
    """KERN_SUCCESS unless memory ran out for good. The map stays locked all the while."""
    obj = entry.ba.object
    assert obj is not None
    fs = FaultState(vm_map, entry.start, VM_FAULT_NORMAL)
    fs.collapsing = True
    fs.entry, fs.first_ba = entry, entry.ba
    fs.first_shared = fs.shared = False
    fs.first_ba_held = True
    fs.first_prot = entry.max_protection | VM_PROT_READ | VM_PROT_WRITE | VM_PROT_OVERRIDE_WRITE
    result = KERN_SUCCESS
    shadowed = True
    await obj.token.acquire()
    va = entry.start
    while va < entry.end:
        pindex = atop(entry.ba.offset + va - entry.start)
        if pindex not in obj.memq:
            shadowed = False
            fs.ba = fs.first_ba
            result = await vm_fault_object(fs, pindex, fs.first_prot)
            if result == KERN_TRY_AGAIN:
                continue
            if result != KERN_SUCCESS:
                break
            m = fs.m
            assert m is not None
            fs.m = None
            await vm_page_flag_set(m, PG_REFERENCED)
            await vm_page_activate(m)
            await vm_page_wakeup(m)
        va += PAGE_SIZE
    await obj.token.release()
    if not shadowed:
        await pmap_remove(vm_map.pmap, entry.start, entry.end)
    return result

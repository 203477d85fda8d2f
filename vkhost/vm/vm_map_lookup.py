"""vm_map_lookup: from an address and a kind of access to (entry, backing, page index).

DragonFly sys/vm/vm_map.c:vm_map_lookup. It may put a shadow object before a copy-on-write entry,
but copies no page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vkprotocol.param import atop

from vkhost.vm.vm import (
    FW_DIDCOW,
    FW_WIRED,
    KERN_INVALID_ADDRESS,
    KERN_PROTECTION_FAILURE,
    MAP_ENTRY_COW,
    MAP_ENTRY_NEEDS_COPY,
    MAP_ENTRY_USER_WIRED,
    MAP_ENTRY_VPAGETABLE_WIRED,
    VM_MAPTYPE_VPAGETABLE,
    VM_PROT_ALL,
    VM_PROT_OVERRIDE_WRITE,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_map import (
    VmMap,
    VmMapBacking,
    VmMapEntry,
    vm_map_lock,
    vm_map_lock_downgrade,
    vm_map_lock_read,
    vm_map_lock_upgrade,
    vm_map_lookup_entry,
    vm_map_unlock,
)
from vkhost.vm.vm_map_backing import vm_map_entry_allocate_object, vm_map_entry_shadow

if TYPE_CHECKING:
    from vkhost.kernel import Kernel


@dataclass(slots=True)
class Lookup:
    """What a lookup found. The map is read-locked, and stays so until vm_map_unlock."""

    entry: VmMapEntry
    first_ba: VmMapBacking
    first_pindex: int
    prot: int
    wflags: int


async def vm_map_lookup(vm_map: VmMap, va: int, fault_type: int) -> Lookup | int:
    """On success the map is left read-locked; on failure it is unlocked and KERN_* returned."""
    found = await _lookup_locked(vm_map, va, fault_type, exclusive=False)
    while found is None:  # RetryLookup: the upgrade lost the lock
        found = await _lookup_locked(vm_map, va, fault_type, exclusive=True)
    return found


async def _lookup_locked(
    vm_map: VmMap, va: int, fault_typea: int, *, exclusive: bool
) -> Lookup | int | None:
    """One try. None: the map had to be locked exclusively and was not; it is unlocked."""
    await (vm_map_lock(vm_map) if exclusive else vm_map_lock_read(vm_map))
    entry = vm_map_lookup_entry(vm_map, va)
    if entry is None:
        await vm_map_unlock(vm_map)
        return KERN_INVALID_ADDRESS
    prot = entry.max_protection if fault_typea & VM_PROT_OVERRIDE_WRITE else entry.protection
    fault_type = fault_typea & VM_PROT_ALL
    if not _permitted(vm_map, entry, prot, fault_typea):
        await vm_map_unlock(vm_map)
        return KERN_PROTECTION_FAILURE
    kernel = vm_map.kernel
    if entry.wired_count and wired_full_protection(entry, kernel):
        prot = fault_type = entry.protection
    if entry.maptype == VM_MAPTYPE_VPAGETABLE and (
        kernel.rmap.walks or (prot & VM_PROT_WRITE and kernel.quirks.lookup_vpagetable_as_write)
    ):
        # The walk will write A into the page tables, whatever the guest does: shadow them first.
        fault_type |= VM_PROT_WRITE

    wflags = FW_WIRED if entry.wired_count else 0
    shadow = False
    if entry.eflags & MAP_ENTRY_NEEDS_COPY:
        if fault_type & VM_PROT_WRITE:
            shadow = True
        else:
            prot &= ~VM_PROT_WRITE
    if shadow or entry.ba.object is None:
        if not exclusive and not await vm_map_lock_upgrade(vm_map):
            return None
        exclusive = True
        if shadow:
            await vm_map_entry_shadow(vm_map, entry)
            wflags |= FW_DIDCOW
        if entry.ba.object is None:
            await vm_map_entry_allocate_object(vm_map, entry)
    if exclusive:
        await vm_map_lock_downgrade(vm_map)
    pindex = atop(va - entry.start + entry.ba.offset)
    return Lookup(entry, entry.ba, pindex, prot, wflags)


def wired_full_protection(entry: VmMapEntry, kernel: Kernel) -> bool:
    """A page of a wired entry has to be there for every access the entry allows. Of an entry that
    wires what its VPTEs map this would ask RW of every VPTE."""
    if entry.eflags & MAP_ENTRY_VPAGETABLE_WIRED:
        return "wired-full-protection" in kernel.mutants
    return bool(kernel.quirks.wired_full_protection)


def _permitted(vm_map: VmMap, entry: VmMapEntry, prot: int, fault_typea: int) -> bool:
    fault_type = fault_typea & VM_PROT_ALL
    if fault_type & prot != fault_type:
        return False
    return not (
        vm_map.kernel.quirks.locked_copies_fault
        and entry.eflags & MAP_ENTRY_USER_WIRED
        and entry.eflags & MAP_ENTRY_COW
        and fault_type & VM_PROT_WRITE
        and not fault_typea & VM_PROT_OVERRIDE_WRITE
    )

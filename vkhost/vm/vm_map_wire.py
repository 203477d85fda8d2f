"""mlock and munlock: every page of a range is wired, or all of it is as it was.

The faults that wire are taken without the map lock. MAP_ENTRY_IN_TRANSITION keeps the entries from
being wired by another or deleted meanwhile, not from being clipped (mprotect): so what is ours is
found by its address. And fork looks at the flag nowhere.

DragonFly sys/vm/vm_map.c:vm_map_unwire, vm_map_clip_range, vm_map_unclip_range
"""

from __future__ import annotations

from vkhost.kern.panic import kkassert
from vkhost.vm.vm import (
    KERN_INVALID_ADDRESS,
    KERN_INVALID_ARGUMENT,
    KERN_SUCCESS,
    MAP_ENTRY_IN_TRANSITION,
    MAP_ENTRY_NEEDS_COPY,
    MAP_ENTRY_NEEDS_WAKEUP,
    MAP_ENTRY_USER_WIRED,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault_collapse import collapse
from vkhost.vm.vm_fault_wire import vm_fault_unwire, vm_fault_wire
from vkhost.vm.vm_map import (
    VmMap,
    VmMapEntry,
    entries_in,
    vm_map_lock,
    vm_map_lookup_entry,
    vm_map_transition_wait,
    vm_map_unlock,
)
from vkhost.vm.vm_map_backing import vm_map_entry_allocate_object, vm_map_entry_shadow
from vkhost.vm.vm_map_clip import (
    is_linked,
    vm_map_clip_end,
    vm_map_clip_start,
    vm_map_simplify_entry,
)


async def vm_map_unwire(vm_map: VmMap, start: int, end: int, *, new_pageable: bool) -> int:
    """mlock, or munlock if `new_pageable`. A hole in the range is KERN_INVALID_ADDRESS."""
    await vm_map_lock(vm_map)
    start, end = vm_map.range_check(start, end)
    if not await _clip_range(vm_map, start, end):
        await vm_map_unlock(vm_map)
        return KERN_INVALID_ADDRESS
    result, wired_to = KERN_SUCCESS, end
    if not new_pageable:
        result, wired_to = await _wire(vm_map, start, end)
    if new_pageable or result != KERN_SUCCESS:
        entries = entries_in(vm_map, start, wired_to)
        if all(entry.eflags & MAP_ENTRY_USER_WIRED for entry in entries):
            for entry in entries:
                entry.eflags &= ~MAP_ENTRY_USER_WIRED
                await vm_fault_unwire(vm_map, entry)
        else:
            result = KERN_INVALID_ARGUMENT
    await _unclip_range(vm_map, start, end)
    await vm_map_unlock(vm_map)
    return result


async def _wire(vm_map: VmMap, start: int, end: int) -> tuple[int, int]:
    """(KERN_*, how far it got)."""
    while start < end:
        entry = vm_map_lookup_entry(vm_map, start)
        assert entry is not None
        start, after = entry.start, entry.end
        if not entry.eflags & MAP_ENTRY_USER_WIRED:
            entry.eflags |= MAP_ENTRY_USER_WIRED
            entry.wired_count += 1
            if entry.wired_count == 1:
                await _instantiate(vm_map, entry)
                await vm_map_unlock(vm_map)
                result = await vm_fault_wire(vm_map, start, after, user_wire=True)
                await vm_map_lock(vm_map)
                if result != KERN_SUCCESS:
                    for part in entries_in(vm_map, start, after):
                        part.eflags &= ~MAP_ENTRY_USER_WIRED
                        part.wired_count = 0
                    return result, start
        start = after
    return KERN_SUCCESS, end


async def _instantiate(vm_map: VmMap, entry: VmMapEntry) -> None:
    """What a fault would make: whoever holds the map's lock may, a fault shares it. Pages that stay
    in lower layers are wired there, where fork does not look for them: it panics."""
    if not vm_map.kernel.quirks.locks_lower_layers and (
        entry.eflags & MAP_ENTRY_NEEDS_COPY or entry.ba.backing_ba
    ):
        await collapse(vm_map, entry)
    elif entry.eflags & MAP_ENTRY_NEEDS_COPY and entry.protection & VM_PROT_WRITE:
        await vm_map_entry_shadow(vm_map, entry)
    elif entry.ba.object is None:
        await vm_map_entry_allocate_object(vm_map, entry)


async def _clip_range(vm_map: VmMap, start: int, end: int) -> bool:
    """vm_map_clip_range, MAP_CLIP_NO_HOLES: the entries of exactly the range are in transition, by
    us. False, and nothing is, at a hole. The lock is lost while another has one of them."""
    va = start
    while va < end:
        entry = vm_map_lookup_entry(vm_map, va)
        if entry is None:
            await _unclip_range(vm_map, start, va)
            return False
        if entry.eflags & MAP_ENTRY_IN_TRANSITION:
            await vm_map_transition_wait(vm_map, entry)
            continue
        await vm_map_clip_start(vm_map, entry, va)
        await vm_map_clip_end(vm_map, entry, end)
        entry.eflags |= MAP_ENTRY_IN_TRANSITION
        va = entry.end
    return True


async def _unclip_range(vm_map: VmMap, start: int, end: int) -> None:
    """vm_map_unclip_range: out of transition, who waits is woken, and what can be merged is."""
    entries = entries_in(vm_map, start, end)
    for entry in entries:
        ours = entry.eflags & MAP_ENTRY_IN_TRANSITION and start <= entry.start
        kkassert(vm_map.kernel, ours, f"unclip_range: {entry!r} is not in transition")
        wanted = entry.eflags & MAP_ENTRY_NEEDS_WAKEUP
        entry.eflags &= ~(MAP_ENTRY_IN_TRANSITION | MAP_ENTRY_NEEDS_WAKEUP)
        if wanted:
            await vm_map.transition.wakeup()
    for entry in entries:
        if is_linked(vm_map, entry):
            await vm_map_simplify_entry(vm_map, entry)

"""Splitting entries at an address, and merging them again.

DragonFly sys/vm/vm_map.c:_vm_map_clip_start, _vm_map_clip_end, vm_map_simplify_entry.
All need the exclusive map lock.
"""

from __future__ import annotations

from vkhost.vm.vm_map import (
    VmMap,
    VmMapEntry,
    entries_in,
    vm_map_entry_link,
    vm_map_entry_unlink,
    vm_map_lookup_entry,
)
from vkhost.vm.vm_map_backing import (
    copy_entry,
    vm_map_backing_adjust_end,
    vm_map_backing_adjust_start,
    vm_map_backing_replicated,
    vm_map_entry_allocate_object,
    vm_map_entry_dispose,
)


async def vm_map_clip_start(vm_map: VmMap, entry: VmMapEntry, start: int) -> None:
    """Make `entry` begin at `start` or above; what was below becomes an entry of its own."""
    if start <= entry.start:
        return
    await vm_map_simplify_entry(vm_map, entry)
    if entry.ba.object is None:
        # Later there would be one for each part.
        await vm_map_entry_allocate_object(vm_map, entry)
    front = copy_entry(entry)
    front.ba.end = start
    # The new extent is on the backing_list before the old one is cut: no page is ever on neither.
    await vm_map_backing_replicated(vm_map, front)
    vm_map_entry_unlink(vm_map, entry)
    await vm_map_backing_adjust_start(entry, start)
    vm_map_entry_link(vm_map, front)
    vm_map_entry_link(vm_map, entry)


async def vm_map_clip_end(vm_map: VmMap, entry: VmMapEntry, end: int) -> None:
    """Make `entry` end at `end` or below; what was above becomes an entry of its own."""
    if end >= entry.end:
        return
    if entry.ba.object is None:
        await vm_map_entry_allocate_object(vm_map, entry)
    tail = copy_entry(entry)
    tail.ba.start = end
    tail.ba.offset += end - entry.start
    await vm_map_backing_replicated(vm_map, tail)
    await vm_map_backing_adjust_end(entry, end)
    vm_map_entry_link(vm_map, tail)


async def entries_clipped(vm_map: VmMap, start: int, end: int) -> list[VmMapEntry]:
    """The entries of [start, end), the first one clipped to it.

    The caller clips the end of each as it comes to it, and simplifies it when it is done with it.
    That may swallow entries further on in the list: see `is_linked`.
    """
    first = vm_map_lookup_entry(vm_map, start)
    if first is not None:
        await vm_map_clip_start(vm_map, first, start)
    return entries_in(vm_map, start, end)


def is_linked(vm_map: VmMap, entry: VmMapEntry) -> bool:
    """Whether the entry is still in the map, not swallowed by a neighbour's simplification."""
    return vm_map_lookup_entry(vm_map, entry.start) is entry


async def vm_map_simplify_entry(vm_map: VmMap, entry: VmMapEntry) -> None:
    """Merge `entry`, which stays, with the neighbours that are its continuation."""
    i = vm_map.entries.bisect_key_left(entry.start)
    assert vm_map.entries[i] is entry
    after = vm_map.entries[i + 1] if i + 1 < len(vm_map.entries) else None
    if i and _continues(vm_map, vm_map.entries[i - 1], entry):
        prev = vm_map.entries[i - 1]
        vm_map_entry_unlink(vm_map, prev)
        vm_map_entry_unlink(vm_map, entry)
        await vm_map_backing_adjust_start(entry, prev.start)
        vm_map_entry_link(vm_map, entry)
        if entry.ba.object is None:
            entry.ba.offset = 0
        await vm_map_entry_dispose(prev)
        await vm_map.kernel.rmap.unroot(vm_map.pmap, entry.start, entry.end)
    if after is not None and _continues(vm_map, entry, after):
        vm_map_entry_unlink(vm_map, after)
        await vm_map_backing_adjust_end(entry, after.end)
        await vm_map_entry_dispose(after)
        await vm_map.kernel.rmap.unroot(vm_map.pmap, entry.start, entry.end)


def _continues(vm_map: VmMap, a: VmMapEntry, b: VmMapEntry) -> bool:
    """Whether `b` is the continuation of `a`: one entry could say the same."""
    if a.master_pde != b.master_pde and not vm_map.kernel.quirks.simplify_ignores_master_pde:
        return False
    return (
        a.end == b.start
        and a.maptype == b.maptype
        and a.ba.object is b.ba.object
        and a.ba.backing_ba is b.ba.backing_ba
        and (a.ba.object is None or a.ba.offset + a.end - a.start == b.ba.offset)
        and a.eflags == b.eflags
        and a.protection == b.protection
        and a.max_protection == b.max_protection
        and a.inheritance == b.inheritance
        and a.wired_count == b.wired_count
    )

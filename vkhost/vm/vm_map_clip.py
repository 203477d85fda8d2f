"""Splitting entries at an address, and merging them again.

DragonFly sys/vm/vm_map.c:_vm_map_clip_start, _vm_map_clip_end, vm_map_simplify_entry.
All need the exclusive map lock.
"""

from __future__ import annotations

from typing import Any, Final

from vkhost.kern.panic import kkassert
from vkhost.vm.vm import MAP_ENTRY_IN_TRANSITION
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

NOTHING: Final = object()  # the backing of an entry that is not there


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
    await vm_map_backing_replicated(vm_map, front, clipped=True)
    vm_map.entries.remove(entry)  # which are by their starts; it may be in transition
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
    await vm_map_backing_replicated(vm_map, tail, clipped=True)
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
    """Merge `entry`, which stays, with the neighbours that are its continuation; unless it is in
    transition."""
    if entry.eflags & MAP_ENTRY_IN_TRANSITION:
        return
    i = vm_map.entries.bisect_key_left(entry.start)
    assert vm_map.entries[i] is entry
    after = vm_map.entries[i + 1] if i + 1 < len(vm_map.entries) else None
    prev = vm_map.entries[i - 1] if i else None
    before = prev.ba.backing_ba if prev is not None else NOTHING
    if prev is not None and _continues(vm_map, prev, entry, entry.ba.backing_ba):
        vm_map_entry_unlink(vm_map, prev)
        vm_map_entry_unlink(vm_map, entry)
        await vm_map_backing_adjust_start(entry, prev.start)
        vm_map_entry_link(vm_map, entry)
        if entry.ba.object is None:
            entry.ba.offset = 0
        await vm_map_entry_dispose(prev)
        before = None  # disposed of
        await vm_map.kernel.rmap.unroot(vm_map.pmap, entry.start, entry.end)
    backing = after.ba.backing_ba if after is not None else NOTHING
    if vm_map.kernel.quirks.simplify_compares_prev:
        backing = before
    if after is not None and _continues(vm_map, entry, after, backing):
        vm_map_entry_unlink(vm_map, after)
        await vm_map_backing_adjust_end(entry, after.end)
        await vm_map_entry_dispose(after)
        await vm_map.kernel.rmap.unroot(vm_map.pmap, entry.start, entry.end)


def _continues(vm_map: VmMap, a: VmMapEntry, b: VmMapEntry, backing: Any) -> bool:
    """Whether `b` is the continuation of `a`: one entry could say the same. `backing` is b's, or
    what [20] compares in its place: that of the entry before, there or not."""
    if a.master_pde != b.master_pde and not vm_map.kernel.quirks.simplify_ignores_master_pde:
        return False
    if a.end != b.start or a.maptype != b.maptype or a.ba.object is not b.ba.object:
        return False
    there = backing is not NOTHING
    kkassert(vm_map.kernel, there, f"vm_map_simplify_entry: {a!r} has no entry before it")
    return (
        backing is a.ba.backing_ba
        and (a.ba.object is None or a.ba.offset + a.end - a.start == b.ba.offset)
        and a.eflags == b.eflags
        and a.protection == b.protection
        and a.max_protection == b.max_protection
        and a.inheritance == b.inheritance
        and a.wired_count == b.wired_count
    )

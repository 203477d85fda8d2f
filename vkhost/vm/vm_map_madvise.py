"""vm_map_madvise: advice about a range, and the two calls a vkernel's page tables live by.

MADV_SETMAP gives VPAGETABLE entries their root; MADV_INVAL removes host PTEs because the guest has
changed VPTEs. SETMAP clips entries under the exclusive map lock. INVAL has only shared the lock
since 2017 (git 76f1911e60), so the range is interlocked against faults, entry by entry.

DragonFly sys/vm/vm_map.c:vm_map_madvise.
"""

from __future__ import annotations

from vkprotocol.errno import Errno
from vkprotocol.mman import (
    MADV_AUTOSYNC,
    MADV_CORE,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_INVAL,
    MADV_NOCORE,
    MADV_NORMAL,
    MADV_NOSYNC,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MADV_SETMAP,
    MADV_WILLNEED,
)
from vkprotocol.param import PAGE_SIZE, VM_MAX_USER_ADDRESS, VM_MIN_USER_ADDRESS, atop

from vkhost.kern.panic import kkassert
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.vm.vm import (
    MAP_ENTRY_BEHAV_MASK,
    MAP_ENTRY_BEHAV_RANDOM,
    MAP_ENTRY_BEHAV_SEQUENTIAL,
    MAP_ENTRY_NOCOREDUMP,
    MAP_ENTRY_NOSYNC,
    VM_MAPTYPE_NORMAL,
    VM_MAPTYPE_VPAGETABLE,
)
from vkhost.vm.vm_map import (
    VmMap,
    VmMapEntry,
    entries_in,
    vm_map_lock,
    vm_map_lock_read,
    vm_map_unlock,
)
from vkhost.vm.vm_map_clip import entries_clipped, is_linked, vm_map_clip_end, vm_map_simplify_entry
from vkhost.vm.vm_map_interlock import vm_map_deinterlock, vm_map_interlock
from vkhost.vm.vm_object_madvise import vm_object_madvise

# Behaviours kept in the entry: bits cleared, bits set.
ENTRY_FLAGS = {
    MADV_NORMAL: (MAP_ENTRY_BEHAV_MASK, 0),
    MADV_SEQUENTIAL: (MAP_ENTRY_BEHAV_MASK, MAP_ENTRY_BEHAV_SEQUENTIAL),
    MADV_RANDOM: (MAP_ENTRY_BEHAV_MASK, MAP_ENTRY_BEHAV_RANDOM),
    MADV_NOSYNC: (0, MAP_ENTRY_NOSYNC),
    MADV_AUTOSYNC: (MAP_ENTRY_NOSYNC, 0),
    MADV_NOCORE: (0, MAP_ENTRY_NOCOREDUMP),
    MADV_CORE: (MAP_ENTRY_NOCOREDUMP, 0),
}
OBJECT_ADVICE = frozenset({MADV_WILLNEED, MADV_DONTNEED, MADV_FREE})


async def vm_map_madvise(vm_map: VmMap, start: int, end: int, behav: int, value: int = 0) -> int:
    """0 or an errno. [start, end) is page-aligned."""
    if behav == MADV_SETMAP:
        return await _setmap(vm_map, start, end, value)
    if behav == MADV_INVAL:
        await _inval(vm_map, start, end)
        return 0
    if behav in ENTRY_FLAGS:
        await _set_entry_flags(vm_map, start, end, *ENTRY_FLAGS[behav])
        return 0
    if behav in OBJECT_ADVICE:
        await _advise_objects(vm_map, start, end, behav)
        return 0
    return Errno.EINVAL


async def _setmap(vm_map: VmMap, start: int, end: int, value: int) -> int:
    """Give the VPAGETABLE entries of the range the master pde `value`.

    An entry of another type is an error, reported at the end: what comes before and after it is
    switched all the same (W20).
    """
    kernel = vm_map.kernel
    shared = "setmap-shared-lock" in kernel.mutants
    await (vm_map_lock_read(vm_map) if shared else vm_map_lock(vm_map))
    start, end = vm_map.range_check(start, end)
    if not kernel.quirks.setmap_partial and any(
        entry.maptype != VM_MAPTYPE_VPAGETABLE for entry in entries_in(vm_map, start, end)
    ):
        await vm_map_unlock(vm_map)
        return Errno.EINVAL
    kernel.emit("setmap.begin", vm_map.pmap.id, start, end, value)
    error = 0
    for entry in await entries_clipped(vm_map, start, end):
        if not is_linked(vm_map, entry):
            continue
        await vm_map_clip_end(vm_map, entry, end)
        if entry.maptype == VM_MAPTYPE_VPAGETABLE:
            await _setmap_entry(vm_map, entry, value)
        else:
            error = Errno.EINVAL
        # Merges with a neighbour of another root, too (facts 2.8): one that has not had its turn is
        # then neither switched nor removed from the pmap.
        await vm_map_simplify_entry(vm_map, entry)
    kernel.emit("setmap.end", vm_map.pmap.id, start, end, value)
    await vm_map_unlock(vm_map)
    return error


async def _setmap_entry(vm_map: VmMap, entry: VmMapEntry, value: int) -> None:
    kernel = vm_map.kernel
    await kernel.vmmeter.count_vpagetable("vpagetable_setmap")
    if kernel.vmmeter.tunables["debug_vpagetable"]:
        kernel.emit(
            "console",
            f"MADV_SETMAP: start={entry.start:x} end={entry.end:x} pde={value:x} pid={vm_map.pid}",
        )
    await kernel.rmap.invalidate_begin(vm_map.pmap, entry.start, entry.end)
    entry.master_pde = value
    # No fault is between its walk and its pmap_enter: faults hold the map lock we have exclusively.
    if "setmap-without-remove" not in kernel.mutants:
        await kernel.rmap.unroot(vm_map.pmap, entry.start, entry.end)
        await pmap_remove(vm_map.pmap, entry.start, entry.end)
    await kernel.rmap.invalidate_end(vm_map.pmap, entry.start, entry.end)


async def _inval(vm_map: VmMap, start: int, end: int) -> None:
    """Remove the host PTEs of the range; on return no CPU has a translation older than the call."""
    kernel = vm_map.kernel
    exclusive = not kernel.config.inval_shared
    await (vm_map_lock(vm_map) if exclusive else vm_map_lock_read(vm_map))
    start, end = vm_map.range_check(start, end)
    kernel.emit("inval.begin", vm_map.pmap.id, start, end)
    for entry in entries_in(vm_map, start, end):
        use_start, use_end = max(start, entry.start), min(end, entry.end)
        if use_start >= use_end:
            continue
        if exclusive or not kernel.quirks.inval_counter_dead:
            # The counting was written into the branch for the exclusive lock only (facts 9).
            await _count_inval(vm_map, use_start, use_end)
        await kernel.rmap.invalidate_begin(vm_map.pmap, use_start, use_end)
        if exclusive or "inval-without-ilock" in kernel.mutants:
            await pmap_remove(vm_map.pmap, use_start, use_end)
        else:
            await _inval_interlocked(vm_map, use_start, use_end)
        await kernel.rmap.invalidate_end(vm_map.pmap, use_start, use_end)
    kernel.emit("inval.end", vm_map.pmap.id, start, end)
    await vm_map_unlock(vm_map)


async def _inval_interlocked(vm_map: VmMap, start: int, end: int) -> None:
    kkassert(
        vm_map.kernel,
        start >= VM_MIN_USER_ADDRESS and end <= VM_MAX_USER_ADDRESS,
        f"Bad range {start:016x}-{end:016x}",
    )
    if "inval-first-page-only" in vm_map.kernel.mutants:
        end = min(end, start + PAGE_SIZE)
    ilock = await vm_map_interlock(vm_map, start, end)
    await pmap_remove(vm_map.pmap, start, end)
    await vm_map_deinterlock(vm_map, ilock)


async def _count_inval(vm_map: VmMap, start: int, end: int) -> None:
    kernel = vm_map.kernel
    await kernel.vmmeter.count_vpagetable("vpagetable_inval")
    if kernel.vmmeter.tunables["debug_vpagetable"]:
        kernel.emit("console", f"MADV_INVAL: start={start:x} end={end:x} pid={vm_map.pid}")


async def _set_entry_flags(vm_map: VmMap, start: int, end: int, clear: int, put: int) -> None:
    await vm_map_lock(vm_map)
    start, end = vm_map.range_check(start, end)
    for entry in await entries_clipped(vm_map, start, end):
        if is_linked(vm_map, entry):
            await vm_map_clip_end(vm_map, entry, end)
            entry.eflags = entry.eflags & ~clear | put
            await vm_map_simplify_entry(vm_map, entry)
    await vm_map_unlock(vm_map)


async def _advise_objects(vm_map: VmMap, start: int, end: int, behav: int) -> None:
    """DONTNEED, FREE, WILLNEED: of NORMAL entries only, whose pages are where arithmetic says."""
    await vm_map_lock_read(vm_map)
    start, end = vm_map.range_check(start, end)
    for entry in entries_in(vm_map, start, end):
        use_start, use_end = max(start, entry.start), min(end, entry.end)
        if use_start >= use_end or entry.maptype != VM_MAPTYPE_NORMAL or entry.ba.object is None:
            continue
        pindex = atop(entry.ba.offset + use_start - entry.start)
        await vm_object_madvise(entry.ba.object, pindex, atop(use_end - use_start), behav)
    await vm_map_unlock(vm_map)

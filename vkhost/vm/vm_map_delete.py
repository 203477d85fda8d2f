"""Taking a range out of a map. DragonFly sys/vm/vm_map.c:vm_map_delete, vm_map_remove."""

from __future__ import annotations

from vkprotocol.param import atop

from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.vm.vm import (
    MAP_ENTRY_IN_TRANSITION,
    MAP_ENTRY_USER_WIRED,
    MAP_ENTRY_VPAGETABLE_WIRED,
)
from vkhost.vm.vm_fault_wire import vm_fault_unwire
from vkhost.vm.vm_map import (
    VmMap,
    VmMapEntry,
    vm_map_entry_unlink,
    vm_map_freehint_hole,
    vm_map_lock,
    vm_map_transition_wait,
    vm_map_unlock,
)
from vkhost.vm.vm_map_backing import vm_map_entry_dispose
from vkhost.vm.vm_map_clip import entries_clipped, vm_map_clip_end
from vkhost.vm.vm_object import OBJT_DEFAULT, OBJT_SWAP
from vkhost.vm.vm_object_page import vm_object_page_remove


async def vm_map_delete(vm_map: VmMap, start: int, end: int) -> None:
    """Unmap what there is in [start, end). Precondition: exclusive lock.

    The PTEs go first, everywhere: once the entry is gone its object may be too, and its frames with
    somebody else (W21). No interlock: the exclusive lock keeps faults out.
    """
    deleted = False
    while not deleted:
        deleted = True
        for entry in await entries_clipped(vm_map, start, end):
            if entry.eflags & MAP_ENTRY_IN_TRANSITION:
                # From here again, so as not to delete what somebody maps in front meanwhile.
                start, deleted = entry.start, False
                await vm_map_transition_wait(vm_map, entry)
                break
            await vm_map_clip_end(vm_map, entry, end)
            await _delete(vm_map, entry)


async def _delete(vm_map: VmMap, entry: VmMapEntry) -> None:
    kernel, start, end = vm_map.kernel, entry.start, entry.end
    if "munmap-entries-first" in kernel.mutants:
        await _delete_entry(vm_map, entry)
        await kernel.rmap.unroot(vm_map.pmap, start, end)
        await pmap_remove(vm_map.pmap, start, end)
        return
    if entry.wired_count:
        await _unwire_all(vm_map, entry)
    await kernel.rmap.unroot(vm_map.pmap, start, end)
    await pmap_remove(vm_map.pmap, start, end)
    await _free_pages(entry)
    await _delete_entry(vm_map, entry)


async def _free_pages(entry: VmMapEntry) -> None:
    """Part of anonymous memory that nobody shares goes, while another part stays: its pages are
    freed now. They are those where arithmetic puts them, also of a VPAGETABLE entry (W47)."""
    obj = entry.ba.object
    if obj is None or obj.type not in (OBJT_DEFAULT, OBJT_SWAP):
        return
    async with obj.token:
        if await obj.ref_count.load() == 1 or not await obj.onemapping.load():
            return
        start = atop(entry.ba.offset)
        end = start + atop(entry.end - entry.start)
        await vm_object_page_remove(obj, start, end, clean_only=False)
        await obj.kernel.swap.freespace(obj, start, end)
        if start < obj.size <= end:
            obj.size = start


async def _delete_entry(vm_map: VmMap, entry: VmMapEntry) -> None:
    vm_map_entry_unlink(vm_map, entry)
    vm_map_freehint_hole(vm_map, entry.start)
    vm_map.size -= entry.end - entry.start
    vm_map.kernel.emit("map.remove", vm_map.pmap.id, entry.start, entry.end)
    await vm_map_entry_dispose(entry)


async def _unwire_all(vm_map: VmMap, entry: VmMapEntry) -> None:
    """vm_map_entry_unwire_all. Before pmap_remove, which would lose sight of the pages."""
    entry.eflags &= ~(MAP_ENTRY_USER_WIRED | MAP_ENTRY_VPAGETABLE_WIRED)
    while entry.wired_count:
        await vm_fault_unwire(vm_map, entry)


async def vm_map_remove(vm_map: VmMap, start: int, end: int) -> None:
    await vm_map_lock(vm_map)
    start, end = vm_map.range_check(start, end)
    if start < end:
        await vm_map_delete(vm_map, start, end)
    await vm_map_unlock(vm_map)

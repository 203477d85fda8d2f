"""VmMap: the address space of a guest process. DragonFly `vm/vm_map.c`.

fork leaves the pages of a private entry where they are: both sides get NEEDS_COPY and lose write
permission, and the first write makes a shadow object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vkprotocol.effects import RWLock, Thread
from vkprotocol.guarded import guarded_by
from vkprotocol.mman import PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_SHIFT, VM_MAX_USER_ADDRESS

from vkguest.kern.lockorder import MAP_LOCK
from vkguest.vkernel64.pmap import pmap_protect, pmap_remove
from vkguest.vm.vm_object import (
    VmObject,
    vm_object_deallocate,
    vm_object_madvise,
    vm_object_page_remove,
    vm_object_reference,
)
from vkguest.vm.vnode_pager import vm_object_page_clean

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vkernel64.pmap import Pmap

INHERIT_SHARE = 0
INHERIT_COPY = 1


@dataclass(slots=True)
class VmMapEntry:
    """struct vm_map_entry. `offset` is the pindex of `start`; `large`: mapped by a PS entry."""

    start: int
    end: int
    object: VmObject
    offset: int
    protection: int
    max_protection: int
    inheritance: int
    needs_copy: bool = False
    large: bool = False

    def pindex(self, va: int) -> int:
        return self.offset + ((va - self.start) >> PAGE_SHIFT)


def locked_or_private(vm_map: VmMap, thread: Thread, writing: bool) -> bool:
    assert thread.held is not None
    if vm_map.private:
        return True
    held = any(lock is vm_map.lock for lock in thread.held)
    return held and (not writing or vm_map.lock.state[0] == thread.tid)


@guarded_by("lock", "entries", guard=locked_or_private)
class VmMap:
    """struct vm_map. `entries`, sorted by start, belongs to `lock`; a fault takes it shared."""

    __slots__ = ("entries", "lock", "pmap", "private")

    def __init__(self, name: str, pmap: Pmap) -> None:
        self.pmap = pmap
        self.private = False  # being filled by fork: nobody else knows it yet
        self.lock = RWLock((name, "vm_map", pmap.id), MAP_LOCK)
        self.entries: list[VmMapEntry] = []


def vm_map_lookup_entry(vm_map: VmMap, va: int) -> VmMapEntry | None:
    for entry in vm_map.entries:
        if entry.start <= va < entry.end:
            return entry
    return None


def vm_map_mapped(vm_map: VmMap, start: int, end: int) -> bool:
    """vm_map.c:vm_map_check_protection, of VM_PROT_NONE: there is no hole."""
    for entry in vm_map.entries:
        if entry.start <= start < entry.end:
            start = entry.end
    return start >= end


def vm_map_findspace(vm_map: VmMap, start: int, length: int) -> int | None:
    """The first hole of `length` bytes at or after `start`."""
    for entry in vm_map.entries:
        if entry.end <= start:
            continue
        if entry.start >= start + length:
            break
        start = entry.end
    return start if start + length <= VM_MAX_USER_ADDRESS else None


def vm_map_insert(vm_map: VmMap, entry: VmMapEntry) -> None:
    """The map is locked exclusively and the range is free."""
    assert not any(e.start < entry.end and entry.start < e.end for e in vm_map.entries)
    vm_map.entries.append(entry)
    vm_map.entries.sort(key=lambda e: e.start)


async def vm_map_clip(gd: GlobalData, vm_map: VmMap, start: int, end: int) -> list[VmMapEntry]:
    """vm_map_clip_start and _end: the entries of exactly [start, end), cut out of larger ones."""
    for at in (start, end):
        entry = vm_map_lookup_entry(vm_map, at)
        if entry is None or entry.start == at:
            continue
        await vm_object_reference(entry.object)
        kept = "clip-keeps-offset" in gd.mutants
        offset = entry.offset if kept else entry.pindex(at)
        upper = VmMapEntry(
            at, entry.end, entry.object, offset, entry.protection, entry.max_protection,
            entry.inheritance, entry.needs_copy, entry.large,
        )  # fmt: skip
        entry.end = at
        vm_map_insert(vm_map, upper)
    return [e for e in vm_map.entries if start <= e.start and e.end <= end]


async def vm_map_delete(gd: GlobalData, vm_map: VmMap, start: int, end: int) -> None:
    """vm_map.c:vm_map_delete: translations first, then the pages. Locked exclusively."""
    for entry in await vm_map_clip(gd, vm_map, start, end):
        if "munmap-keeps-vptes" not in gd.mutants:
            await pmap_remove(gd, vm_map.pmap, entry.start, entry.end)
        vm_map.entries.remove(entry)
        obj = entry.object
        if obj.disk is not None and entry.inheritance == INHERIT_SHARE:
            await vm_object_page_clean(gd, obj, entry.offset, entry.pindex(entry.end))
        clips = sum(e.object is obj for e in vm_map.entries)
        if clips:
            # Cut out of a larger entry: the object lives on, but these pages are not needed.
            end_pindex = entry.pindex(entry.end)
            await vm_object_page_remove(gd, obj, entry.offset, end_pindex, clips + 1)
        await vm_object_deallocate(gd, obj)


async def vm_map_protect(gd: GlobalData, vm_map: VmMap, start: int, end: int, prot: int) -> bool:
    """vm_map.c:vm_map_protect. False when an entry may not have `prot`. Locked exclusively.

    More permission needs no pmap work: the next access faults and finds it.
    """
    entries = await vm_map_clip(gd, vm_map, start, end)
    if any(prot & ~e.max_protection for e in entries):
        return False
    for entry in entries:
        lost = entry.protection & ~prot
        entry.protection = prot
        if lost:
            await pmap_protect(gd, vm_map.pmap, entry.start, entry.end, prot)
    return True


async def vm_map_madvise(gd: GlobalData, vm_map: VmMap, start: int, end: int, advise: int) -> None:
    """vm_map.c:vm_map_madvise, the half that tells the objects. Locked shared; holes are passed."""
    for entry in vm_map.entries:
        first, last = max(entry.start, start), min(entry.end, end)
        if first < last:
            obj = entry.object
            await vm_object_madvise(gd, obj, entry.pindex(first), entry.pindex(last), advise)


async def vm_map_frames(vm_map: VmMap, start: int, end: int) -> list[int] | None:
    """The frames of a range's own resident pages, None when it has a hole. Locked shared."""
    frames: list[int] = []
    for entry in vm_map.entries:
        if entry.start <= start < min(entry.end, end):
            last = min(entry.end, end)
            async with entry.object.lock:
                pages = entry.object.pages
                pindexes = range(entry.pindex(start), entry.pindex(last))
                frames += [m.frame for pindex, m in sorted(pages.items()) if pindex in pindexes]
            start = last
    return frames if start == end else None


async def vm_map_entry_shadow(entry: VmMapEntry) -> None:
    """vm_map.c:vm_map_entry_shadow: this entry's writes go into an object of its own.

    Not needed any more when the other side has gone. Locked exclusively.
    """
    obj = entry.object
    async with obj.lock:
        if obj.ref_count > 1:
            entry.object = VmObject(backing=obj)  # which takes over the entry's reference
        entry.needs_copy = False


async def vm_map_fork(gd: GlobalData, old: VmMap, new: VmMap) -> None:
    """vm_map.c:vmspace_fork: the child's entries. `old` is locked exclusively, `new` is ours."""
    for entry in old.entries:
        await vm_object_reference(entry.object)
        copied = entry.inheritance == INHERIT_COPY
        if copied and not entry.needs_copy:
            entry.needs_copy = True
            if entry.protection & PROT_WRITE and "fork-without-protect" not in gd.mutants:
                await pmap_protect(gd, old.pmap, entry.start, entry.end, PROT_READ)
        vm_map_insert(
            new,
            VmMapEntry(
                entry.start, entry.end, entry.object, entry.offset, entry.protection,
                entry.max_protection, entry.inheritance, copied, entry.large,
            ),
        )  # fmt: skip

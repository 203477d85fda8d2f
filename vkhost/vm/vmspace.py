"""vmspace: an address space, and the copy of one.

DragonFly sys/vm/vm_map.c:vmspace_alloc, vmspace_rel, vmspace_terminate, vmspace_fork.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.param import VM_MAX_USER_ADDRESS, VM_MIN_USER_ADDRESS

from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_protect import pmap_protect
from vkhost.pc64.pmap_remove import pmap_release, pmap_remove_pages
from vkhost.vm.vm import (
    MAP_ENTRY_COW,
    MAP_ENTRY_IN_TRANSITION,
    MAP_ENTRY_NEEDS_COPY,
    MAP_ENTRY_USER_WIRED,
    MAP_ENTRY_VPAGETABLE_WIRED,
    VM_INHERIT_NONE,
    VM_INHERIT_SHARE,
    VM_MAPTYPE_VPAGETABLE,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault_collapse import collapse_before_fork
from vkhost.vm.vm_fault_wire import vm_fault_copy_entry
from vkhost.vm.vm_map import (
    VmMap,
    VmMapEntry,
    emit_map_insert,
    vm_map_entry_link,
    vm_map_lock,
    vm_map_transition_wait,
    vm_map_unlock,
)
from vkhost.vm.vm_map_backing import (
    copy_entry,
    vm_map_backing_replicated,
    vm_map_entry_allocate_object,
    vm_map_entry_dispose,
    vm_map_entry_shadow,
)
from vkhost.vm.vm_map_delete import vm_map_remove

if TYPE_CHECKING:
    from vkhost.kern.lwp import Proc
    from vkhost.kernel import Kernel


class Vmspace:
    """struct vmspace: a map and its pmap."""

    __slots__ = ("kernel", "name", "pmap", "vm_map")

    def __init__(self, kernel: Kernel, name: str, pmap: Pmap, vm_map: VmMap) -> None:
        self.kernel = kernel
        self.name = name
        self.pmap = pmap
        self.vm_map = vm_map

    def __repr__(self) -> str:
        return f"<Vmspace {self.name}>"


def vmspace_alloc(
    kernel: Kernel, name: str, proc: Proc | None = None, pmap_id: int | str | None = None
) -> Vmspace:
    """An empty address space over the full user range."""
    pmap = Pmap(kernel, name, pmap_id)
    vm_map = VmMap(kernel, pmap, VM_MIN_USER_ADDRESS, VM_MAX_USER_ADDRESS, proc)
    return Vmspace(kernel, name, pmap, vm_map)


async def vmspace_rel(vmspace: Vmspace) -> None:
    """vmspace_terminate: nobody runs in it any more. Unmap everything, drop the objects. Where PTEs
    are wired the entries come first: unwiring finds the pages by their PTEs."""
    wired = vmspace.pmap.wired_count
    if not wired:
        await pmap_remove_pages(vmspace.pmap, VM_MIN_USER_ADDRESS, VM_MAX_USER_ADDRESS)
    await vm_map_remove(vmspace.vm_map, VM_MIN_USER_ADDRESS, VM_MAX_USER_ADDRESS)
    if wired:
        await pmap_remove_pages(vmspace.pmap, VM_MIN_USER_ADDRESS, VM_MAX_USER_ADDRESS)
    await pmap_release(vmspace.pmap)


async def vmspace_fork(vm1: Vmspace, name: str, proc: Proc | None = None) -> Vmspace:
    """A copy: entries shared, copied on write or left out, as their inheritance says (W27).

    The old map is locked exclusively, the new one known to nobody. The parent's PTEs are
    write-protected range by range, which needs no reverse map and is exact for VPAGETABLE entries.
    """
    old_map = vm1.vm_map
    await vm_map_lock(old_map)
    if not vm1.kernel.quirks.fork_copies_transition:
        while (entry := _in_transition(old_map)) is not None:
            await vm_map_transition_wait(old_map, entry)
    vm2 = vmspace_alloc(vm1.kernel, name, proc)
    vm2.vm_map.private = True
    for old_entry in list(old_map.entries):
        await collapse_before_fork(old_map, old_entry)
        if old_entry.inheritance != VM_INHERIT_NONE:
            await _fork_entry(old_map, vm2.vm_map, old_entry)
    vm2.vm_map.private = False
    await vm_map_unlock(old_map)
    return vm2


def _in_transition(vm_map: VmMap) -> VmMapEntry | None:
    return next((e for e in vm_map.entries if e.eflags & MAP_ENTRY_IN_TRANSITION), None)


async def _fork_entry(old_map: VmMap, new_map: VmMap, old_entry: VmMapEntry) -> None:
    """vmspace_fork_normal_entry. Nobody knows new_map yet, so it needs no lock."""
    share = old_entry.inheritance == VM_INHERIT_SHARE
    if share:
        if old_entry.ba.object is None:
            await vm_map_entry_allocate_object(old_map, old_entry)
        if old_entry.eflags & MAP_ENTRY_NEEDS_COPY:
            await vm_map_entry_shadow(old_map, old_entry)
    new_entry = copy_entry(old_entry)
    new_entry.eflags &= ~MAP_ENTRY_USER_WIRED
    new_entry.wired_count = int(bool(new_entry.eflags & MAP_ENTRY_VPAGETABLE_WIRED))
    await vm_map_backing_replicated(new_map, new_entry)
    vm_map_entry_link(new_map, new_entry)
    new_map.size += new_entry.end - new_entry.start
    emit_map_insert(new_map, new_entry)
    if new_entry.master_pde:
        new_map.kernel.emit(
            "map.root", new_map.pmap.id, new_entry.start, new_entry.end, new_entry.master_pde
        )
    if not share:
        await _copy_entry(old_map, new_map, old_entry, new_entry)


async def _copy_entry(
    src_map: VmMap, dst_map: VmMap, src_entry: VmMapEntry, dst_entry: VmMapEntry
) -> None:
    """vm_map_copy_entry: both entries become copy-on-write of what was the source's object."""
    copies = src_map.kernel.quirks.fork_copies_wired_vpagetable
    if src_entry.wired_count and (src_entry.maptype != VM_MAPTYPE_VPAGETABLE or copies):
        await vm_map_entry_dispose(dst_entry)
        dst_entry.ba.object = dst_entry.ba.backing_ba = None
        await vm_map_entry_allocate_object(dst_map, dst_entry)
        await vm_fault_copy_entry(dst_map, src_entry, dst_entry)
        return
    if not src_entry.eflags & MAP_ENTRY_NEEDS_COPY:
        await src_map.kernel.rmap.unroot(src_map.pmap, src_entry.start, src_entry.end)
        await pmap_protect(
            src_map.pmap, src_entry.start, src_entry.end, src_entry.protection & ~VM_PROT_WRITE
        )
    if src_entry.ba.object is None:
        dst_entry.ba.offset = 0
        return
    src_entry.eflags |= MAP_ENTRY_COW | MAP_ENTRY_NEEDS_COPY
    dst_entry.eflags |= MAP_ENTRY_COW | MAP_ENTRY_NEEDS_COPY

"""vm_mmap: the checked request becomes an entry. DragonFly sys/vm/vm_mmap.c:vm_mmap."""

from __future__ import annotations

from vkprotocol.errno import Errno
from vkprotocol.mman import (
    MAP_ANON,
    MAP_FIXED,
    MAP_NOCORE,
    MAP_NOSYNC,
    MAP_SHARED,
    MAP_SIZEALIGN,
    MAP_TRYFIXED,
    MAP_VPAGETABLE,
)
from vkprotocol.param import PAGE_SIZE, SEG_MASK, SEG_SIZE, round_page

from vkhost.kern.lwp import Proc
from vkhost.vm.vm import (
    COWF_COPY_ON_WRITE,
    COWF_DISABLE_COREDUMP,
    COWF_DISABLE_SYNCER,
    KERN_INVALID_ADDRESS,
    KERN_NO_SPACE,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    VM_INHERIT_SHARE,
    VM_MAPTYPE_NORMAL,
    VM_MAPTYPE_VPAGETABLE,
)
from vkhost.vm.vm_map import VmMap, vm_map_find, vm_map_lock_read, vm_map_unlock
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_protect import vm_map_inherit
from vkhost.vm.vm_object import VmObject
from vkhost.vm.vm_object_page import vm_object_deallocate
from vkhost.vm.vmspace import Vmspace
from vkhost.vm.vnode import Vnode
from vkhost.vm.vnode_pager import vnode_pager_alloc


async def vm_mmap(
    vmspace: Vmspace,
    proc: Proc,
    addr: int,
    size: int,
    prot: int,
    maxprot: int,
    flags: int,
    vp: Vnode | None,
    offset: int,
) -> tuple[int, int]:
    """(errno, address). `size` and `offset` are page-aligned; `vp` None: anonymous memory."""
    vm_map = vmspace.vm_map
    if await _over_limit(vm_map, proc, size):
        return Errno.ENOMEM, 0
    if flags & MAP_SIZEALIGN and size & (size - 1):
        return Errno.EINVAL, 0
    fitit = not flags & (MAP_FIXED | MAP_TRYFIXED)
    if fitit:
        addr = round_page(addr)
    elif not flags & MAP_TRYFIXED:
        await vm_map_remove(vm_map, addr, addr + size)
    obj: VmObject | None = None
    if vp is not None:
        if vp.unlinked:
            flags |= MAP_NOSYNC  # nobody will read it back from the disk
        obj = await vnode_pager_alloc(proc.kernel, vp)
    maptype = VM_MAPTYPE_NORMAL
    if flags & MAP_VPAGETABLE:
        maptype = VM_MAPTYPE_VPAGETABLE
        await _count_vpagetable(proc, addr, size)
    result, addr = await vm_map_find(
        vm_map, obj, offset, addr, size, _alignment(size, flags), fitit, maptype, prot, maxprot,
        _docow(flags),
    )  # fmt: skip
    if result != KERN_SUCCESS:
        if obj is not None:
            await vm_object_deallocate(obj)
        return vm_mmap_to_errno(result), 0
    if flags & MAP_SHARED:
        await vm_map_inherit(vm_map, addr, addr + size, VM_INHERIT_SHARE)
    return 0, addr


async def _over_limit(vm_map: VmMap, proc: Proc, size: int) -> bool:
    """Too many entries; or, in the process's own map, beyond RLIMIT_VMEM."""
    await vm_map_lock_read(vm_map)
    over = len(vm_map.entries) >= proc.max_proc_mmap
    if proc.rlimit_vmem is not None and vm_map is proc.p_vmspace.vm_map:
        over = over or vm_map.size + size > proc.rlimit_vmem
    await vm_map_unlock(vm_map)
    return over


def _alignment(size: int, flags: int) -> int:
    """What the MMU can map with large pages starts where it can."""
    if flags & MAP_SIZEALIGN:
        return size
    if not flags & MAP_FIXED and (not size & SEG_MASK or size > SEG_SIZE * 16):
        return SEG_SIZE
    return PAGE_SIZE


def _docow(flags: int) -> int:
    docow = 0
    if not flags & (MAP_ANON | MAP_SHARED):
        docow |= COWF_COPY_ON_WRITE
    if flags & MAP_NOSYNC:
        docow |= COWF_DISABLE_SYNCER
    if flags & MAP_NOCORE:
        docow |= COWF_DISABLE_COREDUMP
    return docow


async def _count_vpagetable(proc: Proc, addr: int, size: int) -> None:
    meter = proc.kernel.vmmeter
    await meter.count_vpagetable("vpagetable_mmap")
    if meter.tunables["debug_vpagetable"]:
        proc.kernel.emit("console", f"MAP_VPAGETABLE: addr={addr:x} size={size:x} pid={proc.pid}")


def vm_mmap_to_errno(result: int) -> int:
    if result == KERN_SUCCESS:
        return 0
    if result in (KERN_INVALID_ADDRESS, KERN_NO_SPACE):
        return Errno.ENOMEM
    return Errno.EACCES if result == KERN_PROTECTION_FAILURE else Errno.EINVAL

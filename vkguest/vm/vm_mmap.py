"""mmap, munmap, mprotect, madvise and msync of guest programs. DragonFly `vm/vm_mmap.c`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.errno import Errno
from vkprotocol.mman import (
    MADV_DONTNEED,
    MADV_FREE,
    MADV_WILLNEED,
    MAP_ANON,
    MAP_FIXED,
    MAP_SHARED,
    MAP_SIZEALIGN,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import (
    PAGE_MASK,
    PAGE_SHIFT,
    PAGE_SIZE,
    SEG_MASK,
    VM_MAX_USER_ADDRESS,
    round_page,
    trunc_page,
)

from vkguest.kern.errors import VmWait
from vkguest.kern.param import LARGE_PAGES_MAX, MMAP_ADDRESS, phys_to_dmap
from vkguest.kern.sys_shm import shm_open
from vkguest.vkernel64.dmap import pmap_zero_page
from vkguest.vkernel64.pmap import pmap_enter_large
from vkguest.vm.vm_map import (
    INHERIT_COPY,
    INHERIT_SHARE,
    VmMap,
    VmMapEntry,
    vm_map_delete,
    vm_map_findspace,
    vm_map_frames,
    vm_map_insert,
    vm_map_madvise,
    vm_map_mapped,
    vm_map_protect,
)
from vkguest.vm.vm_object import VmObject, vm_object_deallocate
from vkguest.vm.vm_page import vm_contig_alloc
from vkguest.vm.vnode_pager import vm_object_page_clean

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData


def _bad_range(addr: int, size: int) -> bool:
    return addr & PAGE_MASK != 0 or size == 0 or addr + size > VM_MAX_USER_ADDRESS


def _pages(addr: int, length: int) -> tuple[int, int] | None:
    """The pages that have some of these bytes; None when that is not all user memory."""
    end = round_page(addr + length)
    return None if end > VM_MAX_USER_ADDRESS else (trunc_page(addr), end)


async def sys_mmap(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """vm_mmap.c:kern_mmap(addr, length, prot, flags, shm): anonymous memory, or without MAP_ANON a
    shared memory object (sys_shm.py) from some page on.

    MAP_SIZEALIGN asks for a large page: at a 2 MB boundary, wired, by one PS entry.
    """
    addr, length, prot, flags, shm = args
    size = round_page(length)
    vm_map = lp.proc.vmspace.vm_map
    if _bad_range(addr, size) or (flags & MAP_SIZEALIGN and (
        addr & SEG_MASK or size >> PAGE_SHIFT > LARGE_PAGES_MAX or not flags & MAP_FIXED
    )):  # fmt: skip
        return -Errno.EINVAL
    named = not flags & MAP_ANON
    if named and flags & MAP_SIZEALIGN:
        return -Errno.EINVAL
    obj, pindex = await shm_open(gd, lp, shm) if named else (VmObject(), 0)
    await vm_map.lock.acquire_exclusive()
    if flags & MAP_FIXED:
        await vm_map_delete(gd, vm_map, addr, addr + size)
        where: int | None = addr
    else:
        where = vm_map_findspace(vm_map, addr or MMAP_ADDRESS, size)
    if where is not None:
        if flags & MAP_SIZEALIGN:
            try:
                where = await _mmap_large(gd, vm_map, where, size, prot)
            except VmWait:
                await vm_map.lock.release()
                raise
        else:
            shared = bool(flags & MAP_SHARED)
            entry = VmMapEntry(
                where, where + size, obj, pindex, prot, PROT_READ | PROT_WRITE | PROT_EXEC,
                INHERIT_SHARE if shared else INHERIT_COPY, needs_copy=named and not shared,
            )  # fmt: skip
            vm_map_insert(vm_map, entry)
    await vm_map.lock.release()
    if where is None and named:
        await vm_object_deallocate(gd, obj)
    return -Errno.ENOMEM if where is None else where


async def _mmap_large(gd: GlobalData, vm_map: VmMap, va: int, size: int, prot: int) -> int | None:
    """Consecutive frames behind one PDE. The PDE maps 2 MB, whatever the size of the entry."""
    obj = VmObject()
    count = size >> PAGE_SHIFT
    async with obj.lock:
        frame = await vm_contig_alloc(gd, obj, count, "large")
    if frame is None:
        await vm_object_deallocate(gd, obj)
        return None
    for n in range(count):
        await pmap_zero_page(gd, frame + n)
    try:
        await pmap_enter_large(gd, vm_map.pmap, va, frame, prot)
    except VmWait:
        await vm_object_deallocate(gd, obj)
        raise
    entry = VmMapEntry(va, va + size, obj, 0, prot, prot, INHERIT_SHARE, large=True)
    vm_map_insert(vm_map, entry)
    return va


async def sys_munmap(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """vm_mmap.c:sys_munmap: all of it is to be mapped."""
    pages = _pages(*args[:2])
    if pages is None:
        return -Errno.EINVAL
    vm_map = lp.proc.vmspace.vm_map
    await vm_map.lock.acquire_exclusive()
    mapped = vm_map_mapped(vm_map, *pages)
    if mapped:
        await vm_map_delete(gd, vm_map, *pages)
    await vm_map.lock.release()
    return 0 if mapped else -Errno.EINVAL


async def sys_mprotect(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    pages, prot = _pages(*args[:2]), args[2]
    if pages is None:
        return -Errno.EINVAL
    vm_map = lp.proc.vmspace.vm_map
    await vm_map.lock.acquire_exclusive()
    allowed = await vm_map_protect(gd, vm_map, *pages, prot)
    await vm_map.lock.release()
    return 0 if allowed else -Errno.EACCES


async def sys_madvise(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """Advice about pages; INVAL and SETMAP are of no use to programs of a vkernel."""
    pages, behav = _pages(*args[:2]), args[2]
    if pages is None or behav not in (MADV_WILLNEED, MADV_DONTNEED, MADV_FREE):
        return -Errno.EINVAL
    vm_map = lp.proc.vmspace.vm_map
    await vm_map.lock.acquire_shared()
    await vm_map_madvise(gd, vm_map, *pages, behav)
    await vm_map.lock.release()
    return 0


async def sys_msync(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """What a shared mapping has changed of a file goes to the disk. Then the host writes what is
    dirty of these pages, which it finds through the DMAP.

    That is ours: to DragonFly's msync anonymous memory has nowhere to be written. It stands for
    what a sync of the host does to the memory image at any time: writes pages of it while programs
    run (W12).
    """
    addr, length, flags = args[:3]
    size = round_page(length)
    if _bad_range(addr, size):
        return -Errno.EINVAL
    vm_map = lp.proc.vmspace.vm_map
    await vm_map.lock.acquire_shared()
    for entry in vm_map.entries:
        first, last = max(entry.start, addr), min(entry.end, addr + size)
        if first < last and entry.object.disk is not None and entry.inheritance == INHERIT_SHARE:
            await vm_object_page_clean(gd, entry.object, entry.pindex(first), entry.pindex(last))
    frames = await vm_map_frames(vm_map, addr, addr + size)
    await vm_map.lock.release()
    if frames is None:
        return -Errno.EINVAL
    for frame in frames:
        await gd.msync(phys_to_dmap(frame), PAGE_SIZE, flags)
    return 0

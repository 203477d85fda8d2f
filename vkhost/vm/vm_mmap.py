"""mmap, munmap, mprotect, madvise, mcontrol, msync, mlock: what is checked, in which order, with
which errno.

The vmspace_* calls of a vkernel are the same with another vmspace. Addresses and lengths are
unsigned 64-bit words that wrap. Everything returns an errno, 0 for success.

DragonFly sys/vm/vm_mmap.c:kern_mmap, vm_mmap, sys_mmap, sys_munmap, sys_mprotect, sys_madvise,
sys_mcontrol, sys_msync, sys_mlock, sys_munlock; vm_vmspace.c:sys_vmspace_munmap,
sys_vmspace_mcontrol.
"""

from __future__ import annotations

from vkprotocol.errno import Errno
from vkprotocol.limits import U64
from vkprotocol.mman import (
    MADV_CONTROL_END,
    MADV_SETMAP,
    MAP_ANON,
    MAP_FIXED,
    MAP_SHARED,
    MAP_STACK,
    MAP_TRYFIXED,
    MAP_VPAGETABLE,
    MS_ASYNC,
    MS_INVALIDATE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import PAGE_MASK, VM_MAX_USER_ADDRESS, atop, round_page, trunc_page

from vkhost.kern.lwp import Proc
from vkhost.vm.vm import (
    KERN_FAILURE,
    KERN_INVALID_ADDRESS,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    VM_PROT_NONE,
    add64,
    round_page64,
)
from vkhost.vm.vm_map import (
    vm_map_check_protection,
    vm_map_lock_read,
    vm_map_lookup_entry,
    vm_map_unlock,
)
from vkhost.vm.vm_map_clean import vm_map_clean
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_map_protect import vm_map_protect
from vkhost.vm.vm_map_wire import vm_map_unwire
from vkhost.vm.vm_mmap_map import vm_mmap
from vkhost.vm.vm_vmspace import vkernel_enabled
from vkhost.vm.vmspace import Vmspace

MMAP_BASE = 32 << 30  # where unhinted mappings start: past the heap's limit (vm_map_hint)
PROT_RW = PROT_READ | PROT_WRITE
PROT_ALL = PROT_RW | PROT_EXEC


async def kern_mmap(
    vmspace: Vmspace,
    proc: Proc,
    addr: int,
    length: int,
    prot: int,
    flags: int,
    fd: int,
    offset: int,
) -> tuple[int, int]:
    """(errno, address)."""
    prot &= PROT_ALL
    error = _check_flags(proc, length, prot, flags, fd, offset)
    if error:
        return error, 0
    if flags & MAP_STACK:
        flags |= MAP_ANON
    offset &= U64  # a negative one is beyond every object
    pageoff = offset & PAGE_MASK
    size = round_page64(add64(length, pageoff))
    if size < length:
        return Errno.EINVAL, 0
    if flags & (MAP_FIXED | MAP_TRYFIXED):
        addr = add64(addr, -pageoff)
        end = add64(addr, size)
        if addr & PAGE_MASK or end < addr or end > VM_MAX_USER_ADDRESS:
            return Errno.EINVAL, 0
    elif not addr:
        addr = MMAP_BASE
    vp = None
    maxprot = PROT_ALL
    if not flags & MAP_ANON:
        file = proc.files.get(fd)
        if file is None:
            return Errno.EBADF, 0
        error, maxprot = _file_maxprot(file.fread, file.fwrite, prot, flags)
        if error:
            return error, 0
        vp = file.vnode
    error, addr = await vm_mmap(
        vmspace, proc, addr, size, prot, maxprot, flags, vp, offset - pageoff
    )
    return error, addr + pageoff


def _check_flags(proc: Proc, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    if flags & MAP_ANON and (fd != -1 or offset != 0):
        return Errno.EINVAL
    if length == 0:
        return Errno.EINVAL
    if flags & MAP_VPAGETABLE:
        if not (vkernel_enabled(proc.kernel) and proc.kernel.rmap.mmap_vpagetable_allowed()):
            return Errno.EOPNOTSUPP
        # A stack's reserve and the master pde share a field of the entry.
        if flags & MAP_STACK:
            return Errno.EINVAL
        # The page table is in the object, and the kernel will write A and M there.
        if prot & PROT_RW != PROT_RW:
            return Errno.EINVAL
    if flags & MAP_STACK and (fd != -1 or prot & PROT_RW != PROT_RW):
        return Errno.EINVAL
    return 0


def _file_maxprot(fread: bool, fwrite: bool, prot: int, flags: int) -> tuple[int, int]:
    """(errno, maximum protection) by how the file was opened."""
    if prot & PROT_READ and not fread:
        return Errno.EACCES, 0
    if flags & MAP_SHARED and prot & PROT_WRITE and not fwrite:
        return Errno.EACCES, 0
    maxprot = PROT_EXEC | (PROT_READ if fread else 0)
    if fwrite or not flags & MAP_SHARED:
        maxprot |= PROT_WRITE
    return 0, maxprot


async def sys_mmap(
    proc: Proc, addr: int, length: int, prot: int, flags: int, fd: int, offset: int
) -> tuple[int, int]:
    """mmap(2). MAP_STACK is an ordinary mapping since user stacks are made by exec alone; with
    MAP_VPAGETABLE it is for kern_mmap to refuse."""
    if flags & MAP_STACK and not flags & MAP_VPAGETABLE:
        if fd != -1 or prot & PROT_RW != PROT_RW:
            return Errno.EINVAL, 0
        flags = flags & ~MAP_STACK | MAP_ANON
        offset = 0
    return await kern_mmap(proc.p_vmspace, proc, addr, length, prot, flags, fd, offset)


def _whole_pages(addr: int, length: int) -> tuple[int, int] | None:
    """[start, end) of the pages; None when it wraps."""
    pageoff = addr & PAGE_MASK
    addr -= pageoff
    size = round_page64(add64(length, pageoff))
    end = add64(addr, size)
    return None if size < length or end < addr else (addr, end)


async def kern_munmap(vmspace: Vmspace, addr: int, length: int) -> int:
    """A hole anywhere in the range is EINVAL, and nothing is unmapped."""
    pages = _whole_pages(addr, length)
    if pages is None:
        return Errno.EINVAL
    addr, end = pages
    if addr == end:
        return 0
    if end > VM_MAX_USER_ADDRESS:
        return Errno.EINVAL
    if not await vm_map_check_protection(vmspace.vm_map, addr, end, VM_PROT_NONE):
        return Errno.EINVAL
    await vm_map_remove(vmspace.vm_map, addr, end)
    return 0


async def sys_mprotect(proc: Proc, addr: int, length: int, prot: int) -> int:
    """A hole is passed over."""
    pages = _whole_pages(addr, length)
    if pages is None:
        return Errno.EINVAL
    result = await vm_map_protect(proc.p_vmspace.vm_map, *pages, prot & PROT_ALL)
    return Errno.EACCES if result == KERN_PROTECTION_FAILURE else 0


async def sys_mlock(proc: Proc, addr: int, length: int) -> int:
    """So much of memory may be wired, and no more; RLIMIT_MEMLOCK is not asked."""
    pages = _whole_pages(addr, length)
    if pages is None:
        return Errno.EINVAL
    meter = proc.kernel.vmmeter
    wired = await meter.vmstats.v_wire_count.load()
    if atop(pages[1] - pages[0]) + wired > meter.v_page_max_wired:
        return Errno.EAGAIN
    return await _wiring(proc, *pages, new_pageable=False)


async def sys_munlock(proc: Proc, addr: int, length: int) -> int:
    pages = _whole_pages(addr, length)
    return Errno.EINVAL if pages is None else await _wiring(proc, *pages, new_pageable=True)


async def _wiring(proc: Proc, start: int, end: int, *, new_pageable: bool) -> int:
    if start == end:
        return 0
    result = await vm_map_unwire(proc.p_vmspace.vm_map, start, end, new_pageable=new_pageable)
    return 0 if result == KERN_SUCCESS else Errno.ENOMEM


async def kern_mcontrol(
    vmspace: Vmspace, addr: int, length: int, behav: int, value: int, highest: int = MADV_SETMAP
) -> int:
    """Behaviours above `highest` are EINVAL. A length of 0 at an unaligned address is a page."""
    if not 0 <= behav <= highest:
        return Errno.EINVAL
    end = add64(addr, length)
    if end < addr or end > VM_MAX_USER_ADDRESS:
        return Errno.EINVAL
    if length == 0 and not vmspace.kernel.quirks.len0_unaligned_page:
        return 0
    return await vm_map_madvise(vmspace.vm_map, trunc_page(addr), round_page(end), behav, value)


async def sys_mcontrol(proc: Proc, addr: int, length: int, behav: int, value: int) -> int:
    return await kern_mcontrol(proc.p_vmspace, addr, length, behav, value)


async def sys_madvise(proc: Proc, addr: int, length: int, behav: int) -> int:
    """madvise(2) tests `behav >= MADV_CONTROL_END`: INVAL is allowed, SETMAP is not."""
    return await kern_mcontrol(proc.p_vmspace, addr, length, behav, 0, MADV_CONTROL_END - 1)


async def sys_msync(proc: Proc, addr: int, length: int, flags: int) -> int:
    """A length of 0 means the entry that contains addr."""
    vm_map = proc.p_vmspace.vm_map
    pages = _whole_pages(addr, length)
    if pages is None:
        return Errno.EINVAL
    addr, size = pages[0], pages[1] - pages[0]
    if flags & (MS_ASYNC | MS_INVALIDATE) == MS_ASYNC | MS_INVALIDATE:
        return Errno.EINVAL
    if size == 0:
        await vm_map_lock_read(vm_map)
        entry = vm_map_lookup_entry(vm_map, addr)
        if entry is not None:
            addr, size = entry.start, entry.end - entry.start
        await vm_map_unlock(vm_map)
        if entry is None:
            return Errno.EINVAL
    result = await vm_map_clean(
        vm_map,
        addr,
        addr + size,
        syncio=not flags & MS_ASYNC,
        invalidate=bool(flags & MS_INVALIDATE),
    )
    return {KERN_SUCCESS: 0, KERN_INVALID_ADDRESS: Errno.EINVAL, KERN_FAILURE: Errno.EIO}[result]

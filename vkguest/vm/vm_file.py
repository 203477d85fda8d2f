"""mmap and break of programs in machine code: files of the disk, and the heap.

DragonFly `vm/vm_mmap.c`, `vm/vm_unix.c`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.errno import Errno
from vkprotocol.mman import MAP_ANON, MAP_FIXED, MAP_SHARED, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_MASK, PAGE_SHIFT, VM_MAX_USER_ADDRESS, round_page

from vkguest.kern.exec_elf import RWX
from vkguest.kern.kern_descrip import fget
from vkguest.kern.kern_ktrace import ktrfile, ktrsyscall, ktrsysret
from vkguest.vkernel64.copyio import fuword64
from vkguest.vkernel64.md import RSP, ProcMd
from vkguest.vm.vm_map import (
    INHERIT_COPY,
    INHERIT_SHARE,
    VmMapEntry,
    vm_map_delete,
    vm_map_findspace,
    vm_map_insert,
)
from vkguest.vm.vm_object import VmObject, vm_object_reference

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData

RW: Final = PROT_READ | PROT_WRITE


async def sys_mmap(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """mmap(addr, length, prot, flags, fd, pad, pos): anonymous memory, or a file of the disk."""
    addr, length, prot, flags, fd = args[:5]
    size = round_page(length)
    vm_map = lp.proc.vmspace.vm_map
    pos = await fuword64(gd, vm_map, lp.regs[RSP] + 8)
    if pos is None:
        return -Errno.EFAULT
    fixed = bool(flags & MAP_FIXED)
    if not size or (fixed and addr & PAGE_MASK) or addr + size > VM_MAX_USER_ADDRESS:
        return -Errno.EINVAL
    vnode = None
    if not flags & MAP_ANON:
        file = await fget(gd, lp, fd)
        if file is None or pos & PAGE_MASK:
            return -Errno.EBADF if file is None else -Errno.EINVAL
        vnode = file.vnode
        if vnode is None or pos + size > round_page(vnode.size):
            return -Errno.EINVAL
        ktrfile(gd, lp, vnode.name, pos)
    await vm_map.lock.acquire_exclusive()
    if fixed:
        await vm_map_delete(gd, vm_map, addr, addr + size)
    mmap_base = 0x1000_0000
    where = addr if fixed else vm_map_findspace(vm_map, round_page(addr) or mmap_base, size)
    if where is not None:
        shared = bool(flags & MAP_SHARED)
        obj = VmObject() if vnode is None else vnode.object
        if vnode is not None:
            await vm_object_reference(obj)
        entry = VmMapEntry(
            where, where + size, obj, pos >> PAGE_SHIFT if vnode is not None else 0, prot, RWX,
            INHERIT_SHARE if shared else INHERIT_COPY,
            needs_copy=vnode is not None and not shared,
        )  # fmt: skip
        vm_map_insert(vm_map, entry)
    await vm_map.lock.release()
    return -Errno.ENOMEM if where is None else where


async def sys_obreak(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """vm_unix.c:sys_obreak: the heap ends there from now on."""
    md = lp.proc.md
    assert md is not None
    end = round_page(args[0])
    vm_map = lp.proc.vmspace.vm_map
    await vm_map.lock.acquire_exclusive()
    error = Errno.EINVAL if end < md.heap else await _break_at(gd, lp, md, end)
    if not error:
        md.brk = end
    await vm_map.lock.release()
    return -error if error else end


async def _break_at(gd: GlobalData, lp: Lwp, md: ProcMd, end: int) -> int:
    """An errno or 0. To who watches it is an mmap or a munmap."""
    vm_map = lp.proc.vmspace.vm_map
    error = 0
    if end > md.brk:
        ktrsyscall(gd, lp, "mmap", (md.brk, end - md.brk, RW, MAP_ANON | MAP_FIXED))
        if vm_map_findspace(vm_map, md.brk, end - md.brk) == md.brk:
            heap = VmMapEntry(md.brk, end, VmObject(), 0, RW, RWX, INHERIT_COPY)
            vm_map_insert(vm_map, heap)
        else:
            error = Errno.ENOMEM
        ktrsysret(gd, lp, "mmap", -error if error else md.brk)
    elif end < md.brk:
        ktrsyscall(gd, lp, "munmap", (end, md.brk - end))
        await vm_map_delete(gd, vm_map, end, md.brk)
        ktrsysret(gd, lp, "munmap", 0)
    return error

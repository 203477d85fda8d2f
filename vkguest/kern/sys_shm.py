"""Shared memory objects: memory with a number, which any process maps at any address, from any page
on. What shm_open(3) of DragonFly's libc makes by way of a file in memory; the numbers are ours.

An object is made by the first mapping and lives until it is unlinked and nobody maps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.errno import Errno
from vkprotocol.param import PAGE_SHIFT

from vkguest.kern.kern_ktrace import ktrcontent, ktrfile
from vkguest.vm.vm_object import VmObject, vm_object_deallocate, vm_object_reference

if TYPE_CHECKING:
    from vkguest.kern.proc import Lwp
    from vkguest.vkernel64.globaldata import GlobalData

SHM_PAGE_SHIFT = 48  # in the word that names an object and its first page


async def shm_open(gd: GlobalData, lp: Lwp, word: int) -> tuple[VmObject, int]:
    """The object, with a reference for the mapping, and the page it begins at."""
    number, pindex = word & (1 << SHM_PAGE_SHIFT) - 1, word >> SHM_PAGE_SHIFT
    kernel = gd.kernel
    async with kernel.proc_token:
        obj = kernel.shm.get(number)
        if obj is None:
            obj = kernel.shm[number] = VmObject()
            ktrcontent(gd, f"shm{number}")
        await vm_object_reference(obj)
    ktrfile(gd, lp, f"shm{number}", pindex << PAGE_SHIFT)
    return obj, pindex


async def sys_shm_unlink(gd: GlobalData, lp: Lwp, args: tuple[int, ...]) -> int:
    """Its number is free; the memory is there as long as it is mapped."""
    async with gd.kernel.proc_token:
        obj = gd.kernel.shm.pop(args[0], None)
    if obj is None:
        return -Errno.ENOENT
    await vm_object_deallocate(gd, obj)
    return 0

"""Vmspace: a guest process's address space, and the host vmspace that mirrors it.

DragonFly `vm/vm_map.c` (vmspace_alloc, vmspace_fork, vmspace_terminate) and vkernel64 `pmap.c`
(cpu_vmspace_alloc, cpu_vmspace_free). The host knows it by the address of its pmap, and the zone
hands out the same addresses again: ids are recycled (W44).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import Lock
from vkprotocol.errno import errno_name
from vkprotocol.guarded import guarded_by
from vkprotocol.messages import Reply
from vkprotocol.mman import (
    MADV_NOSYNC,
    MADV_SETMAP,
    MAP_FILE,
    MAP_FIXED,
    MAP_SHARED,
    MAP_VPAGETABLE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from vkprotocol.param import PAGE_SHIFT, VM_MAX_USER_ADDRESS, VM_MIN_USER_ADDRESS
from vkprotocol.vpte import VPTE_RW, VPTE_U, VPTE_V

from vkguest.kern.errors import GuestPanic
from vkguest.kern.lockorder import KVA_LOCK
from vkguest.vkernel64.pmap import Pmap, pmap_remove_pages
from vkguest.vkernel64.pmap_table import pmap_pinit, pmap_release
from vkguest.vm.vm_map import VmMap, vm_map_delete, vm_map_fork

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData

USER_SIZE = VM_MAX_USER_ADDRESS - VM_MIN_USER_ADDRESS


class Vmspace:
    """struct vmspace. Its pmap keeps the root table while it is cached in the zone.

    `refs`: the processes that have it, more than one after vfork; proc_token covers it.
    """

    __slots__ = ("pmap", "refs", "vm_map")

    def __init__(self, name: str, number: int) -> None:
        vmspace_address = 0xFFFF_8000  # where the zone begins: an opaque number to the host
        vmspace_size = 0x200
        self.pmap = Pmap(name, vmspace_address + number * vmspace_size)
        self.vm_map = VmMap(name, self.pmap)
        self.refs = 1


@guarded_by("lock", "free", "made")
class VmspaceZone:
    """vmspace_cache: an objcache, so the vmspace freed last is used next. `lock` covers it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = Lock((name, "vmspace_cache"), KVA_LOCK)
        self.free: list[Vmspace] = []
        self.made = 0

    async def get(self) -> Vmspace:
        async with self.lock:
            if self.free:
                return self.free.pop()
            self.made += 1
            return Vmspace(self.name, self.made)

    async def put(self, vm: Vmspace) -> None:
        async with self.lock:
            self.free.append(vm)


async def vmspace_alloc(gd: GlobalData) -> Vmspace:
    """vm_map.c:vmspace_alloc. Raises VmWait, with nothing done."""
    vm = await gd.kernel.vmspaces.get()
    vm.refs = 1  # as nobody else knows it
    try:
        await pmap_pinit(gd, vm.pmap)
    except BaseException:
        await gd.kernel.vmspaces.put(vm)
        raise
    await cpu_vmspace_alloc(gd, vm)
    return vm


def _must(gd: GlobalData, reply: Reply, what: str) -> None:
    if reply.errno:
        raise GuestPanic(f"{gd.kernel.name}: {what} failed: {errno_name(reply.errno)}")


async def cpu_vmspace_alloc(gd: GlobalData, vm: Vmspace) -> None:
    """pmap.c:cpu_vmspace_alloc: create, map all of user space, NOSYNC, SETMAP."""
    ident = vm.pmap.id
    _must(gd, await gd.vmspace_create(ident), "vmspace_create()")
    prot = PROT_READ | PROT_WRITE | PROT_EXEC
    flags = MAP_FILE | MAP_SHARED | MAP_VPAGETABLE | MAP_FIXED
    _must(
        gd,
        await gd.vmspace_mmap(ident, VM_MIN_USER_ADDRESS, USER_SIZE, prot, flags, 0),
        "vmspace_mmap()",
    )
    await gd.vmspace_mcontrol(ident, VM_MIN_USER_ADDRESS, USER_SIZE, MADV_NOSYNC, 0)
    assert vm.pmap.pm_pdirm is not None
    vpte = (vm.pmap.pm_pdirm.frame << PAGE_SHIFT) | VPTE_RW | VPTE_V | VPTE_U
    _must(
        gd,
        await gd.vmspace_mcontrol(ident, VM_MIN_USER_ADDRESS, USER_SIZE, MADV_SETMAP, vpte),
        "vmspace_mcontrol()",
    )


async def cpu_vmspace_free(gd: GlobalData, vm: Vmspace) -> None:
    """pmap.c:cpu_vmspace_free. An EBUSY here is a panic: nobody may be using the vmspace."""
    _must(gd, await gd.vmspace_destroy(vm.pmap.id), "vmspace_destroy()")


async def vmspace_fork(gd: GlobalData, old: Vmspace) -> Vmspace:
    """vm_map.c:vmspace_fork. The new vmspace comes first, since that can fail."""
    new = await vmspace_alloc(gd)
    await old.vm_map.lock.acquire_exclusive()
    new.vm_map.private = True
    await vm_map_fork(gd, old.vm_map, new.vm_map)
    new.vm_map.private = False
    await old.vm_map.lock.release()
    return new


async def vmspace_terminate(gd: GlobalData, vm: Vmspace) -> None:
    """vm_map.c:vmspace_terminate, both stages; no lwp runs in it any more.

    The translations go before the vmspace does: that takes the pages off the pv lists, so the page
    daemon on another vCPU has no INVAL in flight when vmspace_destroy comes (W22).
    """
    if "destroy-while-mapped" not in gd.mutants:
        await pmap_remove_pages(gd, vm.pmap)
    vm_map = vm.vm_map
    await vm_map.lock.acquire_exclusive()
    await cpu_vmspace_free(gd, vm)
    await vm_map_delete(gd, vm_map, VM_MIN_USER_ADDRESS, VM_MAX_USER_ADDRESS)
    await vm_map.lock.release()
    await pmap_release(gd, vm.pmap)
    await gd.kernel.vmspaces.put(vm)

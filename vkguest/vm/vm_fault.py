"""Guest page faults: what T_PAGEFLT of a user program, and copyin and copyout, come to.

DragonFly `vm/vm_fault.c`, the guest's copy of it: demand zero, copy-on-write, swap. The host's
vm_fault is another one, below; it only walks what pmap_enter here has built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vkprotocol.insn import store
from vkprotocol.mman import PROT_WRITE
from vkprotocol.param import PAGE_SIZE, trunc_page

from vkguest.kern.errors import VmWait
from vkguest.kern.param import phys_to_dmap
from vkguest.kern.vkdisk import vkdisk_read
from vkguest.vkernel64.dmap import access, pmap_copy_page, pmap_zero_page
from vkguest.vkernel64.pmap import pmap_enter, pmap_remove
from vkguest.vm.swap_pager import swap_pager_freespace, swap_pager_getpage
from vkguest.vm.vm_map import VmMap, VmMapEntry, vm_map_entry_shadow, vm_map_lookup_entry
from vkguest.vm.vm_object import VmObject, vm_object_collapse
from vkguest.vm.vm_page import (
    PQ_ACTIVE,
    PQ_INACTIVE,
    VM_ALLOC_NORMAL,
    VmPage,
    vm_page_alloc,
    vm_page_busy_try,
    vm_page_deficit,
    vm_page_dirty,
    vm_page_hold,
    vm_page_requeue,
    vm_page_sleep_busy,
    vm_page_wakeup,
)

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData

KERN_SUCCESS: Final = 0
KERN_INVALID_ADDRESS: Final = 1
KERN_PROTECTION_FAILURE: Final = 2


@dataclass(slots=True)
class FaultState:
    """struct faultstate: one attempt to make `va` accessible for `prot`."""

    vm_map: VmMap
    va: int
    prot: int
    enter_prot: int = 0  # with which the page may be entered
    didcow: bool = False
    busy: VmPage | None = None  # what to wait for before the next attempt


async def vm_fault(gd: GlobalData, vm_map: VmMap, va: int, prot: int) -> int:
    """vm_fault.c:vm_fault: make `va` accessible for `prot`. Raises VmWait when memory is short.

    A VPTE that is good already is entered again: another vCPU was faster, or was in between
    clearing and installing it (W31).
    """
    fs = FaultState(vm_map, trunc_page(va), prot)
    m = await _resolve(gd, fs)
    if isinstance(m, int):
        return m
    try:
        await pmap_enter(gd, vm_map.pmap, fs.va, m, fs.enter_prot)
    except VmWait:
        await _done(gd, fs, m)
        raise
    await _done(gd, fs, m)
    return KERN_SUCCESS


async def vm_fault_page_quick(gd: GlobalData, vm_map: VmMap, va: int, prot: int) -> VmPage | None:
    """vm_fault.c:vm_fault_page_quick: the page at `va`, held, for the kernel's own access.

    Nothing is mapped, unless a copy was made: then the VPTE still names the original, so it goes,
    and under _KERNEL_VIRTUAL the copy is entered at once, since the kernel writes through the DMAP
    while the process reads through the VPTE.
    """
    fs = FaultState(vm_map, trunc_page(va), prot)
    m = await _resolve(gd, fs)
    if isinstance(m, int):
        return None
    if fs.didcow and "no-cow-vpte" not in gd.mutants:
        await pmap_remove(gd, vm_map.pmap, fs.va, fs.va + PAGE_SIZE)
        try:
            await pmap_enter(gd, vm_map.pmap, fs.va, m, fs.enter_prot)
        except VmWait:
            await _done(gd, fs, m)
            raise
    await vm_page_hold(gd, m)
    await _done(gd, fs, m)
    return m


async def _done(gd: GlobalData, fs: FaultState, m: VmPage) -> None:
    await fs.vm_map.lock.release()
    await vm_page_requeue(gd, m, PQ_ACTIVE)
    await vm_page_wakeup(m)


async def _resolve(gd: GlobalData, fs: FaultState) -> VmPage | int:
    """The page, busied, and the map still locked shared; or why not, and nothing is locked."""
    while True:
        entry = await _lookup(fs)
        if isinstance(entry, int):
            return entry
        try:
            m = await vm_fault_object(gd, fs, entry)
        except VmWait:
            await fs.vm_map.lock.release()
            raise
        if m is not None:
            # Writable also after a read: the host finds M clear, so it will notice the write.
            fs.enter_prot = entry.protection
            if entry.needs_copy or m.object is not entry.object:
                fs.enter_prot &= ~PROT_WRITE
            return m
        # TRY_AGAIN: nothing may be locked while asleep.
        await fs.vm_map.lock.release()
        assert fs.busy is not None
        await vm_page_sleep_busy(fs.busy)


async def _lookup(fs: FaultState) -> VmMapEntry | int:
    """vm_map.c:vm_map_lookup: the entry, with the map locked shared; a write makes its shadow."""
    vm_map = fs.vm_map
    await vm_map.lock.acquire_shared()
    entry = vm_map_lookup_entry(vm_map, fs.va)
    if entry is not None and fs.prot & PROT_WRITE and entry.needs_copy:
        await vm_map.lock.release()
        await vm_map.lock.acquire_exclusive()
        entry = vm_map_lookup_entry(vm_map, fs.va)
        if entry is not None and entry.needs_copy and entry.protection & PROT_WRITE:
            await vm_map_entry_shadow(entry)
        await vm_map.lock.downgrade()
    if entry is None:
        await vm_map.lock.release()
        return KERN_INVALID_ADDRESS
    if fs.prot & ~entry.protection:
        await vm_map.lock.release()
        return KERN_PROTECTION_FAILURE
    return entry


async def vm_fault_object(gd: GlobalData, fs: FaultState, entry: VmMapEntry) -> VmPage | None:
    """vm_fault.c:vm_fault_object: find the page down the shadow chain, or make it; busied.

    None: it is somebody else's (fs.busy), look everything up again after that. Raises VmWait.
    """
    first = entry.object
    pindex = entry.pindex(fs.va)
    async with first.lock:
        obj: VmObject | None = first
        while obj is not None and pindex not in obj.pages and pindex not in obj.swap:
            if obj.disk is not None and pindex < len(obj.disk):
                break
            obj = obj.backing
        if obj is not None and "cow-of-the-bottom" in gd.mutants:
            while (below := obj.backing) is not None and pindex in below.pages:
                obj = below
        if obj is None:
            return await _fill(gd, first, pindex, fs.prot)
        m = obj.pages.get(pindex)
        if m is None:
            m = await _alloc(gd, obj, pindex)
            if pindex in obj.swap:
                await swap_pager_getpage(gd, obj, m)
            else:
                await vkdisk_read(gd, obj, m)
            # release_page: whoever copies it or reads the file lets go of it as it is.
            await vm_page_requeue(gd, m, PQ_INACTIVE)
            busied = True
        else:
            busied = await vm_page_busy_try(m)
        if busied:
            if not fs.prot & PROT_WRITE:
                return m
            if obj is first:
                # VM_FAULT_DIRTY: about to be written, so its copy on swap is of no use.
                await vm_page_dirty(m)
                await swap_pager_freespace(gd, first, pindex)
                return m
            fs.didcow = True
            return await _cow(gd, first, m, pindex)
        fs.busy = m
        return None


async def _alloc(gd: GlobalData, obj: VmObject, pindex: int) -> VmPage:
    m = await vm_page_alloc(gd, obj, pindex, VM_ALLOC_NORMAL, obj.name)
    if m is None:
        raise VmWait
    return m


async def _fill(gd: GlobalData, obj: VmObject, pindex: int, prot: int) -> VmPage:
    """vm_page_zero_fill; or the words of a program."""
    m = await _alloc(gd, obj, pindex)
    await pmap_zero_page(gd, m.frame)
    if obj.text:
        base = phys_to_dmap(m.frame)
        await access(gd, *(store(base + 8 * n, word) for n, word in enumerate(obj.text)))
        await vm_page_dirty(m)
    elif prot & PROT_WRITE:
        await vm_page_dirty(m)
    return m


async def _cow(gd: GlobalData, first: VmObject, old: VmPage, pindex: int) -> VmPage:
    """Copy a page of a backing object into the first one. `old` stays busied meanwhile."""
    try:
        m = await _alloc(gd, first, pindex)
    except VmWait:
        await vm_page_wakeup(old)
        await vm_page_deficit(gd, 1)  # both have to be there at once
        raise
    if "cow-source-released" in gd.mutants:
        await vm_page_wakeup(old)
        await first.lock.release()
        await pmap_copy_page(gd, old.frame, m.frame)
        await first.lock.acquire()
    else:
        await pmap_copy_page(gd, old.frame, m.frame)
        await vm_page_wakeup(old)
    await vm_page_dirty(m)
    await vm_object_collapse(gd, first)
    return m

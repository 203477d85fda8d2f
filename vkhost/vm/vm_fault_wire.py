"""Wiring the pages of an entry, and copying an entry whose pages are wired.

DragonFly sys/vm/vm_fault.c:vm_fault_wire, vm_fault_unwire, vm_fault_copy_entry; pmap.c:pmap_unwire.
"""

from __future__ import annotations

from vkprotocol.param import PAGE_SIZE, atop

from vkhost.kern.panic import panic
from vkhost.kern.token import tsleep
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_V, PTE_W, pte_pfn
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.pc64.pmap_inval import pte_cmpset
from vkhost.vm.vm import (
    KERN_SUCCESS,
    VM_FAULT_CHANGE_WIRING,
    VM_FAULT_USER_WIRE,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_map import VmMap, VmMapEntry
from vkhost.vm.vm_object import VmObject
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_alloc import VM_ALLOC_NORMAL, vm_page_alloc
from vkhost.vm.vm_page_busy import vm_page_busy_wait, vm_page_wakeup
from vkhost.vm.vm_page_fill import vm_page_copy
from vkhost.vm.vm_page_lru import vm_page_activate
from vkhost.vm.vm_page_wire import vm_page_unwire
from vkhost.vm.vm_pageout_wakeup import NS_PER_SECOND


async def vm_fault_wire(vm_map: VmMap, start: int, end: int, *, user_wire: bool) -> int:
    """Fault in and wire every page of an entry whose wired_count has just become 1.

    The map is not locked: each page takes vm_fault's own way, interlock included.
    """
    for va in range(start, end, PAGE_SIZE):
        if user_wire:
            result = await vm_fault(vm_map, va, VM_PROT_READ, VM_FAULT_USER_WIRE)
        else:
            result = await vm_fault(
                vm_map, va, VM_PROT_READ | VM_PROT_WRITE, VM_FAULT_CHANGE_WIRING
            )
        if result != KERN_SUCCESS:
            await _unwire(vm_map.pmap, start, va)
            return result
    return KERN_SUCCESS


async def vm_fault_unwire(vm_map: VmMap, entry: VmMapEntry) -> None:
    """One wiring of the entry less; the last unwires the pages. Precondition: exclusive lock."""
    entry.wired_count -= 1
    if entry.wired_count == 0:
        await _unwire(vm_map.pmap, entry.start, entry.end)


async def _unwire(pmap: Pmap, start: int, end: int) -> None:
    """A page whose PTE has no W is unwired, too: the source asks itself whether it should be."""
    for pte in await pmap.valid_ptes(start, end):
        async with pte.table.lock:  # pmap_unwire takes no placemark
            old = await pte.load()
            while old & PTE_W and not await pte_cmpset(pmap, pte, old, old & ~PTE_W, "unwire"):
                old = await pte.load()
            if not old & PTE_V:
                continue
            pmap.wired_count -= bool(old & PTE_W)
        m: VmPage = pmap.kernel.pages[pte_pfn(old)]  # wired: it cannot have changed hands
        await vm_page_busy_wait(m, "pgunwr")
        await vm_page_unwire(m, True)
        await vm_page_wakeup(m)


async def vm_fault_copy_entry(dst_map: VmMap, src_entry: VmMapEntry, dst_entry: VmMapEntry) -> None:
    """fork of a wired entry: its pages cannot become copy-on-write, so they are copied now.

    Every page has to be resident in the first object, and the object index is taken to be linear:
    of an entry with virtual page tables neither is true (W27). One that is wired as it is mapped,
    and not as it is faulted, may have no object yet. The kernel enters them with all that the entry
    might permit: the child writes what its parent was forbidden to.
    """
    src, dst = src_entry.ba.object, dst_entry.ba.object
    assert dst is not None
    if src is None:
        panic(dst_map.kernel, "vm_object_hold: no object")
    prot = dst_entry.protection
    if dst_map.kernel.quirks.fork_enters_max_protection:
        prot = dst_entry.max_protection
    for va in range(dst_entry.start, dst_entry.end, PAGE_SIZE):
        offset = va - dst_entry.start
        async with dst.token:
            dst_m = await _alloc(dst, atop(dst_entry.ba.offset + offset))
            async with src.token:
                src_m = src.memq.get(atop(src_entry.ba.offset + offset))
                if src_m is None:
                    panic(dst_map.kernel, "vm_fault_copy_wired: page missing")
                await vm_page_copy(src_m, dst_m)
        if prot:
            await pmap_enter(dst_map.pmap, va, dst_m, prot, False, dst_entry)
        await vm_page_activate(dst_m)
        await vm_page_wakeup(dst_m)


async def _alloc(obj: VmObject, pindex: int) -> VmPage:
    while (m := await vm_page_alloc(obj, pindex, VM_ALLOC_NORMAL)) is None:
        await tsleep(obj.kernel.pagedaemon.v_free_count_chan, NS_PER_SECOND)  # vm_wait
    return m

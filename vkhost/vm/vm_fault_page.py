"""vm_fault_page: the kernel's own access to a user page (umtx, physical I/O, ptrace, copyin).

It walks as vm_fault does, but takes no interlock and installs no PTE: what it returns is the page,
held or busied. The frame is therefore safe on the host; whether the guest has meanwhile given it to
somebody else inside is not known to anybody (W25).

DragonFly sys/vm/vm_fault.c:vm_fault_page, pmap.c:pmap_fault_page_quick.
"""

from __future__ import annotations

from types import coroutine

from vkprotocol.effects import Effect, Step
from vkprotocol.param import PAGE_SIZE, trunc_page

from vkhost.kern.panic import panic
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_RW, PTE_V, pte_pfn
from vkhost.pc64.pmap_pte import Pte
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.vm.vm import (
    FW_DIDCOW,
    FW_WIRED,
    KERN_FAILURE,
    KERN_INVALID_ADDRESS,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    KERN_TRY_AGAIN,
    MAP_ENTRY_NOFAULT,
    VM_FAULT_NORMAL,
    VM_FAULT_UNSWAP,
    VM_MAPTYPE_VPAGETABLE,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault_object import vm_fault_object
from vkhost.vm.vm_fault_state import FaultState, hold_first_object, unlock_things, vnode_pager_lock
from vkhost.vm.vm_fault_vpagetable import vm_fault_vpagetable
from vkhost.vm.vm_map import VmMap
from vkhost.vm.vm_map_lookup import Lookup, vm_map_lookup, wired_full_protection
from vkhost.vm.vm_page import PG_REFERENCED, VmPage
from vkhost.vm.vm_page_busy import vm_page_busy_try, vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_flag_set
from vkhost.vm.vm_page_lru import vm_page_activate
from vkhost.vm.vm_page_wire import vm_page_hold, vm_page_unhold

Found = tuple[VmPage | None, int, bool]  # page, KERN_* result, whether it is busied (else held)


async def vm_fault_page(
    vm_map: VmMap,
    va: int,
    fault_type: int,
    fault_flags: int = VM_FAULT_NORMAL,
    *,
    busy: bool = False,
) -> Found:
    """`busy`: a page to be written is returned busied rather than held."""
    va = trunc_page(va)
    quick = await pmap_fault_page_quick(vm_map.pmap, va, fault_type, busy=busy)
    if quick is not None:
        return quick, KERN_SUCCESS, busy and bool(fault_type & VM_PROT_WRITE)
    fs = FaultState(vm_map, va, fault_flags)
    if fault_flags & VM_FAULT_UNSWAP:
        fs.first_shared = False
    didcow = 0
    result, widened = await _try(fs, fault_type)
    while result == KERN_TRY_AGAIN:
        didcow |= fs.wflags & FW_DIDCOW
        fs.retry += 1
        vm_map.kernel.emit("fault.retry", vm_map.pmap.id, va, fs.why)
        fs.reset()
        result, widened = await _try(fs, fault_type)
    if result != KERN_SUCCESS:
        return None, result, False
    return await _finish(fs, fault_type, widened, didcow, busy=busy)


async def _try(fs: FaultState, fault_type: int) -> tuple[int, int]:
    """(KERN_*, the fault type that it went by)."""
    found = await vm_map_lookup(fs.vm_map, fs.va, fault_type)
    if not isinstance(found, Lookup):
        return KERN_FAILURE if found == KERN_INVALID_ADDRESS else found, fault_type
    fs.lookup_still_valid = True
    fs.entry = found.entry
    fs.ba = fs.first_ba = found.first_ba
    fs.first_prot = fs.prot = found.prot
    fs.wflags = found.wflags
    if fs.entry.eflags & MAP_ENTRY_NOFAULT:
        panic(fs.kernel, f"vm_fault: fault on nofault entry, addr: {fs.va:x}")
    if fs.wflags & FW_WIRED and wired_full_protection(fs.entry, fs.kernel):
        fault_type = fs.first_prot
    await hold_first_object(fs)
    await vnode_pager_lock(fs)
    pindex = found.first_pindex
    if fs.entry.maptype == VM_MAPTYPE_VPAGETABLE:
        await fs.kernel.rmap.walk_begin(fs)
        result, pindex = await vm_fault_vpagetable(fs, pindex, fs.entry.master_pde, fault_type)
        if result != KERN_SUCCESS:
            fs.wflags &= ~FW_DIDCOW  # of a walk that starts again nobody remembers it
            return result, fault_type
    return await vm_fault_object(fs, pindex, fault_type), fault_type


async def _finish(
    fs: FaultState, fault_type: int, widened: int, didcow: int, *, busy: bool
) -> Found:
    """The page has been found and busied; everything is locked. Whoever reads a page of a wired
    entry that may be written is taken for a writer: `widened`."""
    kernel = fs.kernel
    m = fs.m
    assert m is not None
    writing = bool(widened & VM_PROT_WRITE)
    if fault_type & VM_PROT_WRITE and not fs.prot & VM_PROT_WRITE:
        await unlock_things(fs)
        if not kernel.quirks.fault_page_leaves_busy:
            await vm_page_wakeup(m)
        return None, KERN_PROTECTION_FAILURE, False
    await vm_page_flag_set(m, PG_REFERENCED)
    if fs.entry.maptype == VM_MAPTYPE_VPAGETABLE:
        await kernel.rmap.mapped_through_vpte(m)
    if writing:
        await kernel.rmap.kernel_writes(m)
    # After a copy whoever has the old page mapped must fault again to see the new one (W26). The
    # kernel wrote `|` for `&`, so it removes the PTE every time (facts 0.1).
    copied = kernel.quirks.didcow_or or (fs.wflags | didcow) & FW_DIDCOW
    if copied and "copied-page-kept-mapped" not in kernel.mutants:
        await pmap_remove(fs.vm_map.pmap, fs.va, fs.va + PAGE_SIZE, m)
        if kernel.rmap.walks:
            await kernel.rmap.copied(m)
    await unlock_things(fs)
    if writing:
        await vm_page_dirty(m)
    await vm_page_activate(m)
    if busy and writing:
        return m, KERN_SUCCESS, True
    await vm_page_hold(m)
    await vm_page_wakeup(m)
    await kernel.rmap.settle()
    return m, KERN_SUCCESS, False


async def pmap_fault_page_quick(
    pmap: Pmap, va: int, fault_type: int, *, busy: bool
) -> VmPage | None:
    """The page of an existing PTE that permits the access, which is trusted; held, or busied.

    To 5.4 the PTE's pv_entry, locked, keeps it from going away; since 2019 there is no such
    pv_entry, and so never an answer.
    """
    if pmap.kernel.quirks.quick_finds_nothing:
        return None
    pte = pmap.pte(va)
    pte_pv = pmap.placemark(pte.vpn)
    await pte.table.lock.acquire()
    m = None
    if await _permits(pte, fault_type) and await pte_pv.try_acquire():
        m = await _terminal_page(pmap, pte, fault_type, busy=busy)
        await pte_pv.release()
    await pte.table.lock.release()
    return m


async def _permits(pte: Pte, fault_type: int) -> bool:
    need = PTE_V | (PTE_RW if fault_type & VM_PROT_WRITE else 0)
    return bool(await pte.load() & need == need)


async def _terminal_page(pmap: Pmap, pte: Pte, fault_type: int, *, busy: bool) -> VmPage | None:
    """Both locks are held. Only a reverse map without pv_entries takes the PTE away all the same,
    so that it is looked at again in the step that takes the hold."""
    old: int = await pte.load()
    m: VmPage = pmap.kernel.pages[pte_pfn(old)]
    if not await _hold_if(pte, old, m):
        return None
    if not fault_type & VM_PROT_WRITE:
        return m
    await vm_page_dirty(m)
    if busy:
        busied: bool = await vm_page_busy_try(m)
        await vm_page_unhold(m)
        return m if busied else None
    return m


@coroutine
def _hold_if(pte: Pte, old: int, m: VmPage) -> Step:
    """vm_page_hold, if the PTE still maps the same frame."""
    yield Effect(m.hold_count, "hold", write=True, also=((pte, False),))
    if pte_pfn(pte.state) != pte_pfn(old) or not pte.state & PTE_V:
        return False
    m.hold_count.state += 1
    return True

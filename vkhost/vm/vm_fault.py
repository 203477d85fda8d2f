"""vm_fault: resolve a page fault and install the translation. Steps F1-F21 of the facts.

The order of things held: map lock (shared), first object's token, vnode lock (shared), interlock,
page busy. A try that has to wait gives up all but the interlock, waits, and starts again from F1;
the interlock goes before the map lock is asked for again. Keep it, and an INVAL that holds the map
lock and wants the interlock, with an exclusive locker between the two, is a deadlock (W43).

DragonFly sys/vm/vm_fault.c:vm_fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.param import PAGE_SIZE, atop, trunc_page

from vkhost.kern.panic import panic
from vkhost.pc64.pmap import pmap_resident_tlnw_count
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.vm.vm import (
    FW_WIRED,
    KERN_FAILURE,
    KERN_INVALID_ADDRESS,
    KERN_SUCCESS,
    KERN_TRY_AGAIN,
    MAP_ENTRY_NOFAULT,
    MAP_ENTRY_VPAGETABLE_WIRED,
    VM_FAULT_BURST,
    VM_FAULT_NORMAL,
    VM_FAULT_UNSWAP,
    VM_FAULT_USERMODE,
    VM_FAULT_WIRE_MASK,
    VM_MAPTYPE_VPAGETABLE,
    VM_PROT_EXECUTE,
    VM_PROT_WRITE,
    kern_name,
)
from vkhost.vm.vm_fault_bypass import vm_fault_bypass, vm_page_sbusy_drop
from vkhost.vm.vm_fault_object import vm_fault_object
from vkhost.vm.vm_fault_prefault import vm_prefault
from vkhost.vm.vm_fault_state import (
    FaultState,
    hold_first_object,
    release_page,
    unlock_things,
    vnode_pager_lock,
)
from vkhost.vm.vm_fault_vpagetable import vm_fault_vpagetable
from vkhost.vm.vm_map import VmMap
from vkhost.vm.vm_map_interlock import vm_map_deinterlock, vm_map_interlock
from vkhost.vm.vm_map_lookup import Lookup, vm_map_lookup, wired_full_protection
from vkhost.vm.vm_page import PG_REFERENCED, VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_flag_set
from vkhost.vm.vm_page_lru import vm_page_activate
from vkhost.vm.vm_page_wire import vm_page_unwire, vm_page_wire
from vkhost.vm.vm_pageout_rss import vm_pageout_map_deactivate_pages

if TYPE_CHECKING:
    from vkhost.pc64.cpu_access import Write


def fault_name(fault_type: int) -> str:
    """`read`, `write` or `execute`, for the log."""
    if fault_type & VM_PROT_WRITE:
        return "write"
    return "execute" if fault_type & VM_PROT_EXECUTE else "read"


async def vm_fault(
    vm_map: VmMap,
    va: int,
    fault_type: int,
    fault_flags: int = VM_FAULT_NORMAL,
    write: Write | None = None,
) -> int:
    """KERN_SUCCESS once a translation that permits the access has been installed, or `write`, which
    the CPU could not do, has been done.

    The caller holds no lock. That the translation is still there when the access is repeated is
    nobody's promise.
    """
    kernel = vm_map.kernel
    va = trunc_page(va)
    kernel.emit("fault.begin", vm_map.pmap.id, va, fault_name(fault_type))
    fs = FaultState(vm_map, va, fault_flags)
    fs.write = write
    if fault_flags & VM_FAULT_UNSWAP:
        fs.first_shared = False
    result = await _try(fs, fault_type)
    while result == KERN_TRY_AGAIN:
        if fs.ilock is not None and "ilock-kept-over-retry" not in kernel.mutants:
            await vm_map_deinterlock(vm_map, fs.ilock)
            fs.ilock = None
        fs.retry += 1
        kernel.emit("fault.retry", vm_map.pmap.id, va, fs.why)
        fs.reset()  # F1
        result = await _try(fs, fault_type)
    if fs.ilock is not None:
        await vm_map_deinterlock(vm_map, fs.ilock)
    if result == KERN_SUCCESS:
        kernel.vmmeter.count("v_vm_faults")
    kernel.emit("fault.end", vm_map.pmap.id, va, kern_name(result))
    _debug_fault(fs, fault_type, result)
    if fault_flags & VM_FAULT_USERMODE:
        await _check_rss(vm_map)
    return result


async def _try(fs: FaultState, fault_type: int) -> int:
    """F2-F21, once. On success the interlock is released too; else vm_fault does that."""
    # F2
    found = await vm_map_lookup(fs.vm_map, fs.va, fault_type)
    if not isinstance(found, Lookup):
        return KERN_FAILURE if found == KERN_INVALID_ADDRESS else found
    pindex = found.first_pindex
    # F3
    fault_type = _check_entry(fs, found, fault_type)
    if fs.entry.maptype == VM_MAPTYPE_VPAGETABLE and fs.kernel.rmap.walks:
        return await fs.kernel.rmap.enter_root(fs)
    # F4
    if await vm_fault_bypass(fs, pindex):
        return await _install(fs)
    # F5
    await hold_first_object(fs)
    walk = fs.entry.maptype == VM_MAPTYPE_VPAGETABLE
    if fs.kernel.quirks.vnode_first or not walk:
        await vnode_pager_lock(fs)
    # F6 - F14
    if walk:
        result, pindex = await _walk(fs, pindex, fault_type)
        if result != KERN_SUCCESS:
            return result
    # F15
    result = await vm_fault_object(fs, pindex, fault_type)
    if result != KERN_SUCCESS:
        return result
    return await _install(fs)


def _check_entry(fs: FaultState, found: Lookup, fault_type: int) -> int:
    """F3. The fault type to go on with."""
    fs.lookup_still_valid = True
    fs.entry = found.entry
    fs.ba = fs.first_ba = found.first_ba
    fs.first_prot = fs.prot = found.prot
    fs.wflags = found.wflags
    if fs.entry.eflags & MAP_ENTRY_NOFAULT:
        panic(fs.kernel, f"vm_fault: fault on nofault entry, addr: {fs.va:x}")
    full = fs.wflags & FW_WIRED and wired_full_protection(fs.entry, fs.kernel)
    return fs.first_prot if full else fault_type


async def _walk(fs: FaultState, pindex: int, fault_type: int) -> tuple[int, int]:
    """F6-F14: interlock the page, and translate its index by the guest's page table."""
    kernel = fs.kernel
    if fs.ilock is None:
        await kernel.vmmeter.count_vpagetable("vpagetable_faults")
        if kernel.vmmeter.tunables["debug_vpagetable"]:
            kernel.emit(
                "console",
                f"VPAGETABLE fault: vaddr={fs.va:x} pde={fs.entry.master_pde:x} "
                f"type={fault_type:02x} pid={fs.vm_map.pid}",
            )
        fs.ilock = await vm_map_interlock(fs.vm_map, fs.va, fs.va + PAGE_SIZE)
    await vnode_pager_lock(fs)
    await kernel.rmap.walk_begin(fs)
    # F7
    return await vm_fault_vpagetable(fs, pindex, fs.entry.master_pde, fault_type)


async def _install(fs: FaultState) -> int:
    """F16-F21. fs.m is busied: hard, or soft after the bypass."""
    kernel = fs.kernel
    m = fs.m
    assert m is not None
    # F16
    await vm_page_flag_set(m, PG_REFERENCED)
    if fs.entry.maptype == VM_MAPTYPE_VPAGETABLE:
        await kernel.rmap.mapped_through_vpte(m)
    if "ilock-released-before-enter" in kernel.mutants and fs.ilock is not None:
        await vm_map_deinterlock(fs.vm_map, fs.ilock)
        fs.ilock = None
    wired = bool(fs.wflags & FW_WIRED)
    # F17
    entered = await kernel.rmap.emulate(fs, m)
    emulated = entered is not None
    if not emulated:
        prot = await kernel.rmap.protection(fs, m)
        entered = await pmap_enter(fs.vm_map.pmap, fs.va, m, prot, wired, fs.entry, fs)
    if not entered:
        fs.why = "invalidated"
        await unlock_things(fs)
        await release_page(fs)
        return KERN_TRY_AGAIN
    # F18
    if fs.ilock is not None:
        await vm_map_deinterlock(fs.vm_map, fs.ilock)
        fs.ilock = None
    # F19
    if fs.msoftonly:
        await vm_page_sbusy_drop(m)
    else:
        await _release(fs, m, wired=wired)
    fs.m = None
    await kernel.rmap.settle()
    # F20
    if fs.fault_flags & VM_FAULT_BURST and not (fs.msoftonly or wired or emulated):
        await vm_prefault(fs)
    # F21
    await unlock_things(fs)
    return KERN_SUCCESS


async def _release(fs: FaultState, m: VmPage, *, wired: bool) -> None:
    """F19: to a queue, unless it is being wired; and unbusy it."""
    if not fs.fault_flags & VM_FAULT_WIRE_MASK:
        await vm_page_activate(m)
    elif not fs.entry.eflags & MAP_ENTRY_VPAGETABLE_WIRED:  # those are wired by pmap_enter
        await (vm_page_wire(m) if wired else vm_page_unwire(m, True))
    await vm_page_wakeup(m)


def _debug_fault(fs: FaultState, fault_type: int, result: int) -> None:
    """vm.debug_fault: positive, that many results are printed; negative, every failure."""
    tunables = fs.kernel.vmmeter.tunables
    debug = tunables["debug_fault"]
    if debug > 0:
        tunables["debug_fault"] = debug - 1
    elif debug == 0 or result == KERN_SUCCESS:
        return
    fs.kernel.emit(
        "console",
        f"VM_FAULT result {result} addr={fs.va:x} type={fault_type:02x} "
        f"flags={fs.fault_flags:02x} prot={fs.prot:02x} wflags={fs.wflags:02x}",
    )


async def _check_rss(vm_map: VmMap) -> None:
    """RLIMIT_RSS, with a hysteresis: deactivate pages of a process that has too many (W36)."""
    proc = vm_map.proc
    if proc is None or proc.rlimit_rss is None:
        return
    limit = atop(proc.rlimit_rss)
    pmap = await vm_map.kernel.rmap.resident_pmap(vm_map.pmap)
    if await pmap_resident_tlnw_count(pmap) - proc.rss_hysteresis >= limit:
        await vm_pageout_map_deactivate_pages(vm_map.kernel, pmap, limit)

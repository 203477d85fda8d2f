"""The core of the fault code: a busied, valid page for (object, pindex), from wherever it is.

Resident, on its pager, in a deeper layer to be copied, or nowhere and to be zeroed. Whatever has to
be waited for is waited for with nothing held but the interlock, and then everything starts again:
KERN_TRY_AGAIN. The blocks are numbered as in facts 3.4.

Left out: read-ahead; paging_in_progress, since the map
lock and the entry's reference already keep the object from being taken apart.

DragonFly sys/vm/vm_fault.c:vm_fault_object.
"""

from __future__ import annotations

from vkprotocol.param import atop

from vkhost.kern.panic import kkassert
from vkhost.vm.swap_pager import swap_pager_haspage, swap_pager_unswapped
from vkhost.vm.vm import (
    FW_DIDCOW,
    KERN_FAILURE,
    KERN_PROTECTION_FAILURE,
    KERN_SUCCESS,
    KERN_TRY_AGAIN,
    MAP_ENTRY_NOSYNC,
    VM_FAULT_DIRTY,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault_state import FaultState, release_page, unlock_things
from vkhost.vm.vm_map import VmMapEntry
from vkhost.vm.vm_object import OBJT_SWAP, VmObject
from vkhost.vm.vm_page import PG_NOSYNC, PG_SWAPPED, VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_alloc import VM_ALLOC_NORMAL, VM_ALLOC_NULL_OK, vm_page_alloc, vm_page_free
from vkhost.vm.vm_page_busy import vm_page_lookup_busy_try, vm_page_sleep_busy, vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_flag_clear, vm_page_flag_set
from vkhost.vm.vm_page_fill import vm_page_copy, vm_page_zero_fill
from vkhost.vm.vm_page_lru import vm_page_activate, vm_page_deactivate, vm_page_unqueue_nowakeup
from vkhost.vm.vm_page_queue import PQ_CACHE
from vkhost.vm.vm_pager import VM_PAGER_ERROR, VM_PAGER_FAIL, VM_PAGER_OK, vm_pager_get_page
from vkhost.vm.vm_wait import vm_page_count_severe, vm_wait_pfault

_NEXT_LAYER = -1  # the layer does not have the page


async def vm_fault_object(fs: FaultState, first_pindex: int, fault_type: int) -> int:
    """KERN_SUCCESS: fs.m is the busied page, everything is still locked. Else all but the
    interlock is unlocked. Precondition: the map lock and the first object's token."""
    fs.prot = fs.first_prot
    result = await _find_page(fs, first_pindex)
    if result != KERN_SUCCESS:
        return result
    if fs.ba is not fs.first_ba:
        if fault_type & VM_PROT_WRITE:
            await _copy_page(fs)
        else:
            fs.prot &= ~VM_PROT_WRITE  # shared with whoever else has this layer
    if fs.prot & VM_PROT_WRITE:
        assert fs.m is not None
        await vm_set_nosync(fs.m, fs.entry)
        if fs.fault_flags & VM_FAULT_DIRTY:
            return await _dirty_page(fs)
    return KERN_SUCCESS


async def vm_set_nosync(m: VmPage, entry: VmMapEntry) -> None:
    """What becomes writable through a NOSYNC entry is not for the syncer, unless it is dirty."""
    if not entry.eflags & MAP_ENTRY_NOSYNC:
        await vm_page_flag_clear(m, PG_NOSYNC)
    elif not await m.dirty.load():
        await vm_page_flag_set(m, PG_NOSYNC)


async def _find_page(fs: FaultState, first_pindex: int) -> int:
    """Go down the layers. On success fs.ba is the one the page was found in, its token held."""
    pindex = first_pindex
    while True:
        obj = fs.ba.object
        assert obj is not None
        result = await _look_in_layer(fs, obj, pindex)
        if result != _NEXT_LAYER:
            return result
        if fs.ba is fs.first_ba:
            fs.first_m = fs.m
            fs.m = None
        if fs.ba.backing_ba is None:
            await _zero_first_page(fs, obj)
            return KERN_SUCCESS
        pindex += atop(fs.ba.backing_ba.offset) - atop(fs.ba.offset)
        await _descend(fs, obj)


async def _look_in_layer(fs: FaultState, obj: VmObject, pindex: int) -> int:
    if obj.dead:  # 1
        await unlock_things(fs)
        return KERN_PROTECTION_FAILURE
    m, busy = await vm_page_lookup_busy_try(obj, pindex)
    if busy:  # 2
        assert m is not None
        await unlock_things(fs)
        await vm_page_sleep_busy(m, "vmpfw")
        fs.kernel.vmmeter.count("v_intrans")
        return _try_again(fs, "busy")
    if m is not None:
        fs.m = m
        result = await _take_resident(fs, m)
    elif fs.trypager or fs.ba is fs.first_ba:
        result = await _allocate(fs, obj, pindex)
    else:
        return _NEXT_LAYER
    if result != _NEXT_LAYER or not fs.trypager:
        return result
    return await _page_in(fs, obj, pindex)


def _try_again(fs: FaultState, why: str) -> int:
    fs.why = why
    return KERN_TRY_AGAIN


async def _take_resident(fs: FaultState, m: VmPage) -> int:
    """The page is busied. _NEXT_LAYER: it is not valid, its content has to be had."""
    cached = m.queue == PQ_CACHE
    await vm_page_unqueue_nowakeup(m)
    if cached and await vm_page_count_severe(fs.kernel):  # 3
        await vm_page_activate(m)
        await vm_page_wakeup(m)
        fs.m = None
        return await _wait_for_memory(fs)
    if m.valid != VM_PAGE_BITS_ALL:
        return _NEXT_LAYER
    if fs.excl_heur:
        fs.excl_heur = False
        await fs.first_ba.excl_heur.store(False)
    return KERN_SUCCESS


async def _allocate(fs: FaultState, obj: VmObject, pindex: int) -> int:
    """A new, invalid page for the layer. _NEXT_LAYER: fs.m is it (or swap has no use for one)."""
    if fs.ba is not fs.first_ba and obj.type == OBJT_SWAP and not swap_pager_haspage(obj, pindex):
        return _NEXT_LAYER
    if not fs.excl_heur:
        fs.excl_heur = True
        await fs.first_ba.excl_heur.store(True)
    if not await _exclusive(fs):  # 4
        return _try_again(fs, "exclusive")
    if pindex >= obj.size:  # 5
        await unlock_things(fs)
        return KERN_PROTECTION_FAILURE
    if not await vm_page_count_severe(fs.kernel):
        fs.m = await vm_page_alloc(obj, pindex, VM_ALLOC_NORMAL | VM_ALLOC_NULL_OK)
    if fs.m is None:  # 6
        return await _wait_for_memory(fs)
    return _NEXT_LAYER


async def _exclusive(fs: FaultState) -> bool:
    """Is the layer's token exclusive? If not, all is unlocked, and the next try's will be."""
    if not (fs.first_shared if fs.ba is fs.first_ba else fs.shared):
        return True
    if fs.ba is not fs.first_ba:
        fs.shared = False
    fs.first_shared = False
    if fs.m is not None:
        await vm_page_deactivate(fs.m)
        await vm_page_wakeup(fs.m)
        fs.m = None
    await unlock_things(fs)
    return False


async def _wait_for_memory(fs: FaultState) -> int:
    """vm_wait_pfault, holding the interlock only; a process chosen by the OOM killer fails here."""
    await unlock_things(fs)
    proc = fs.vm_map.proc
    await vm_wait_pfault(fs.kernel, proc)
    if proc is not None and await proc.lowmemkill.load():
        return KERN_PROTECTION_FAILURE
    return _try_again(fs, "memory")


async def _page_in(fs: FaultState, obj: VmObject, pindex: int) -> int:
    """7: pager I/O, with map lock, object and interlock held, and always a new start after it."""
    m = fs.m
    if m is None:
        return _NEXT_LAYER  # a swap layer without a block
    if not await _exclusive(fs):
        return _try_again(fs, "exclusive")
    rv = await vm_pager_get_page(obj, pindex, m)
    if rv == VM_PAGER_OK:
        fs.hardfault += 1
        fs.m = None
        await vm_page_activate(m)
        await vm_page_wakeup(m)
        await unlock_things(fs)
        return _try_again(fs, "pagein")
    if rv == VM_PAGER_FAIL:
        if fs.ba is not fs.first_ba:
            await vm_page_free(m)
            fs.m = None
        return _NEXT_LAYER
    fs.m = None
    await vm_page_free(m)
    await unlock_things(fs)
    return KERN_FAILURE if rv == VM_PAGER_ERROR else KERN_PROTECTION_FAILURE


async def _descend(fs: FaultState, obj: VmObject) -> None:
    """Take the next layer's token before leaving this one's."""
    below = fs.ba.backing_ba
    assert below is not None
    assert below.object is not None
    if fs.shared:
        await below.object.token.acquire_shared()
    else:
        await below.object.token.acquire()
    if fs.ba is not fs.first_ba:
        await obj.token.release()
    fs.ba = below


async def _zero_first_page(fs: FaultState, obj: VmObject) -> None:
    """9: no layer has it: the page allocated in the first one becomes zeroes."""
    if fs.ba is not fs.first_ba:
        await obj.token.release()
        fs.ba = fs.first_ba
    m = fs.first_m
    assert m is not None
    fs.m, fs.first_m = m, None
    await vm_page_zero_fill(m)
    fs.kernel.vmmeter.count("v_zfod")
    m.valid = VM_PAGE_BITS_ALL


async def _copy_page(fs: FaultState) -> None:
    """8: copy-on-write, from a deeper layer into the page allocated in the first."""
    kkassert(fs.kernel, not fs.first_shared, "vm_fault_object: COW with a shared token")
    assert fs.m is not None
    assert fs.first_m is not None
    assert fs.ba.object is not None
    await vm_page_copy(fs.m, fs.first_m)
    await release_page(fs)
    await fs.ba.object.token.release()
    fs.ba = fs.first_ba
    fs.m, fs.first_m = fs.first_m, None
    if not fs.kernel.quirks.didcow_of_lookup_only:
        fs.wflags |= FW_DIDCOW
    fs.kernel.vmmeter.count("v_cow_faults")


async def _dirty_page(fs: FaultState) -> int:
    """It is being written now: dirty it at once, and drop the copy on swap, which is old news."""
    m = fs.m
    assert m is not None
    await vm_page_dirty(m)
    if await m.flags.load() & PG_SWAPPED:
        if not await _exclusive(fs):
            return _try_again(fs, "exclusive")
        await swap_pager_unswapped(m)
    return KERN_SUCCESS

"""vm_fault_bypass: F4, the shortcut that takes neither object nor vnode lock.

The page is looked up by its linear index and only soft-busied. That index means nothing in a
VPAGETABLE entry, so those are refused: mapping it all the same would show the guest the frame whose
number happens to be its address (W42).

DragonFly sys/vm/vm_fault.c:vm_fault_bypass; vm_page.c:vm_page_hash_get;
vm_page2.h:vm_page_sbusy_drop.
"""

from __future__ import annotations

from types import coroutine

from vkprotocol.effects import Effect, Step

from vkhost.vm.vm import VM_FAULT_WIRE_MASK, VM_MAPTYPE_VPAGETABLE, VM_PROT_WRITE
from vkhost.vm.vm_fault_state import FaultState
from vkhost.vm.vm_object import VmObject
from vkhost.vm.vm_page import PBUSY_LOCKED, PG_SWAPPED, VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_busy import vm_page_io_finish
from vkhost.vm.vm_page_queue import PQ_ACTIVE


async def vm_fault_bypass(fs: FaultState, first_pindex: int) -> bool:
    """True: fs.m is the page, soft-busied, and may be entered with fs.prot."""
    kernel = fs.kernel
    if not kernel.vmmeter.tunables["fault_bypass"] or fs.fault_flags & VM_FAULT_WIRE_MASK:
        return False
    if fs.entry.maptype == VM_MAPTYPE_VPAGETABLE and "linear-shortcut" not in kernel.mutants:
        return False
    obj = fs.first_ba.object
    assert obj is not None
    m = await vm_page_hash_get(obj, first_pindex)
    if m is None:
        return False
    if not await _usable(m, fs.prot) or (fs.write is not None and await kernel.rmap.intercepts(m)):
        await vm_page_sbusy_drop(m)
        return False
    fs.m = m
    fs.msoftonly = True
    return True


async def _usable(m: VmPage, prot: int) -> bool:
    """Only what needs no change to page or object: active, valid, and dirty if writable."""
    if m.valid != VM_PAGE_BITS_ALL or m.queue != PQ_ACTIVE:
        return False
    if await m.flags.load() & PG_SWAPPED:
        return False
    return not prot & VM_PROT_WRITE or await m.dirty.load() == VM_PAGE_BITS_ALL


async def vm_page_hash_get(obj: VmObject, pindex: int) -> VmPage | None:
    """The page soft-busied, or None, which proves nothing: the lookup is a heuristic."""
    m: VmPage | None = await _look_up(obj, pindex)
    if m is None or not await _sbusy_try(m):
        return None
    # Only now it can no longer change hands.
    if m.object is not obj or m.pindex != pindex:
        await vm_page_sbusy_drop(m)
        return None
    return m


@coroutine
def _look_up(obj: VmObject, pindex: int) -> Step:
    """The token is shared for this one step, if nobody owns it: memq is still then."""
    me = yield Effect(obj.token, "hash_get", write=False)
    owner, _ = obj.token.state
    if owner is not None:
        return None
    if me.held is not None:
        me.held.append(obj.token)
    m = None if obj.dead else obj.memq.get(pindex)
    if me.held is not None:
        me.held.remove(obj.token)
    return m


@coroutine
def _sbusy_try(m: VmPage) -> Step:
    """vm_page_sbusy_try: fails on a hard-busied page only."""
    yield m.busy_count._write
    if m.busy_count.state & PBUSY_LOCKED:
        return False
    m.busy_count.state += 1
    m.kernel.emit("page.busy", m.pfn, "soft")
    return True


async def vm_page_sbusy_drop(m: VmPage) -> None:
    await vm_page_io_finish(m)

"""vm_prefault: F20, map a few resident neighbours while everything is still locked.

Neighbours by address are neighbours in the object only in a NORMAL entry (W42). Only the first
object is looked at, as vm_prefault_quick does.

DragonFly sys/vm/vm_fault.c:vm_prefault, vm_prefault_quick; pmap.c:pmap_prefault_ok.
"""

from __future__ import annotations

from vkprotocol.param import PAGE_SIZE, atop

from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.vm.vm import VM_MAPTYPE_NORMAL
from vkhost.vm.vm_fault_state import FaultState
from vkhost.vm.vm_page import VM_PAGE_BITS_ALL
from vkhost.vm.vm_page_busy import vm_page_lookup_busy_try, vm_page_wakeup
from vkhost.vm.vm_page_queue import PQ_CACHE


async def vm_prefault(fs: FaultState) -> None:
    """Forward, then backward, vm.prefault_pages in all; each way up to the first page missing."""
    pages = fs.kernel.vmmeter.tunables["prefault_pages"]
    if not pages or fs.entry.maptype != VM_MAPTYPE_NORMAL or fs.first_ba.backing_ba is not None:
        return
    for step in (PAGE_SIZE, -PAGE_SIZE):
        va = fs.va + step
        for _ in range(pages // 2):
            if not fs.entry.start <= va < fs.entry.end or not await _prefault(fs, va):
                break
            va += step


async def _prefault(fs: FaultState, va: int) -> bool:
    """Map the page at va if it is at hand. False: no use going on in this direction."""
    if await fs.vm_map.pmap.pte(va).load():
        return True  # pmap_prefault_ok: there is one already
    obj = fs.first_ba.object
    assert obj is not None
    pindex = atop(va - fs.entry.start + fs.first_ba.offset)
    m, busy = await vm_page_lookup_busy_try(obj, pindex)
    if m is None or busy:
        return False
    if m.valid == VM_PAGE_BITS_ALL and m.queue != PQ_CACHE:
        prot = await fs.kernel.rmap.protection(fs, m)
        await pmap_enter(fs.vm_map.pmap, va, m, prot, False, fs.entry)
    await vm_page_wakeup(m)
    return True

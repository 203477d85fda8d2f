"""The active scan: who has not been used lately. DragonFly vm_pageout.c:vm_pageout_scan_active.

`ts_referenced` is all it goes by. A reverse map that answers "referenced" for ever keeps the page
for ever (W11); one that does not see the mapping gives it away (W06).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vkhost.vm.vm import VM_PROT_NONE
from vkhost.vm.vm_object import OBJT_VNODE
from vkhost.vm.vm_page import ACT_ADVANCE, ACT_MAX, PG_NEED_COMMIT, PG_REFERENCED, VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_cache import vm_page_cache
from vkhost.vm.vm_page_dirty import vm_page_flag_clear, vm_page_protect
from vkhost.vm.vm_page_lru import vm_page_deactivate, vm_page_requeue, vm_page_unqueue_nowakeup
from vkhost.vm.vm_page_queue import PQ_ACTIVE
from vkhost.vm.vm_pageout_scan import PageScan

if TYPE_CHECKING:
    from vkhost.kernel import Kernel


@dataclass(slots=True)
class Ageing:
    """One active scan of a sub-queue. Both shortages may go negative."""

    kernel: Kernel
    passes: int
    avail_shortage: int
    inactive_shortage: int
    isep: bool
    delta: int = 0
    recycle_count: int = 0  # pages taken from the active queue out of need: a measure of thrashing

    @property
    def short(self) -> bool:
        return self.avail_shortage - self.delta > 0


async def vm_pageout_scan_active(
    kernel: Kernel,
    passes: int,
    color: int,
    avail_shortage: int,
    inactive_shortage: int,
    *,
    isep: bool,
) -> Ageing:
    """Deactivate what has gone unused; when memory is short, cache it straight away."""
    age = Ageing(kernel, passes, avail_shortage, inactive_shortage, isep)
    scan = PageScan(kernel, PQ_ACTIVE, color)
    await scan.start()
    while (age.short or age.inactive_shortage > 0) and (m := await scan.busy_next()) is not None:
        if await m.wire_count.load():
            await vm_page_unqueue_nowakeup(m)
            await vm_page_wakeup(m)
        elif isep and m.object is not None and m.object.type == OBJT_VNODE:
            await _requeue(m, "skip")
        else:
            kernel.vmmeter.count("v_pdpages")
            await _age(age, m)
    await scan.finish()
    return age


async def _requeue(m: VmPage, action: str) -> None:
    if m.queue == PQ_ACTIVE:
        await vm_page_requeue(m)
    m.kernel.emit("pageout.page", m.pfn, action)
    await vm_page_wakeup(m)


async def _age(age: Ageing, m: VmPage) -> None:
    obj = m.object
    unused = obj is None or await obj.ref_count.load() == 0
    actcount = 0
    if not unused:
        if await m.flags.load() & PG_REFERENCED:
            actcount = 1
        actcount += await age.kernel.rmap.ts_referenced(m)
    await vm_page_flag_clear(m, PG_REFERENCED)
    if actcount:
        m.act_count = min(m.act_count + ACT_ADVANCE + actcount, ACT_MAX)
        await _requeue(m, "referenced")
        return
    tunables = age.kernel.vmmeter.tunables
    file = obj is not None and obj.type == OBJT_VNODE
    decline = tunables["filemem_decline" if file else "anonmem_decline"]
    m.act_count -= min(m.act_count, decline)
    if unused or m.act_count < age.passes + 1:
        await _deactivate(age, m, unused=unused)
    else:
        await _requeue(m, "decline")


async def _deactivate(age: Ageing, m: VmPage, *, unused: bool) -> None:
    """Out of the active queue. With no shortage the mappings stay: the page may yet be used."""
    age.inactive_shortage -= 1
    cache = False
    if age.short or unused:
        age.recycle_count += age.short
        await vm_page_protect(m, VM_PROT_NONE)
        clean = await m.dirty.load() == 0 and not await m.flags.load() & PG_NEED_COMMIT
        cache = clean and age.short
    age.kernel.emit("pageout.page", m.pfn, "cache" if cache else "deactivate")
    if cache:
        await vm_page_cache(m)
    else:
        await vm_page_deactivate(m)
        await vm_page_wakeup(m)
    age.delta += 1

"""Holding an address space to its resident set limit.

DragonFly vm_pageout.c:vm_pageout_map_deactivate_pages, vm_pageout_mdp_callback.

The scan walks real PTEs and so meets pages that no reverse map knows; what it then does to them it
does by the reverse map (W36).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vkprotocol.param import VM_MAX_USER_ADDRESS, VM_MIN_USER_ADDRESS

from vkhost.pc64.pmap import Pmap, pmap_resident_tlnw_count
from vkhost.pc64.pmap_pgscan import pmap_pgscan
from vkhost.vm.vm_page import ACT_MAX, PG_MAPPED, PG_REFERENCED, PG_UNQUEUED, PG_WINATCFLS, VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_flag_clear, vm_page_flag_set
from vkhost.vm.vm_page_lru import vm_page_activate, vm_page_deactivate
from vkhost.vm.vm_page_queue import PQ_ACTIVE, PQ_INACTIVE
from vkhost.vm.vm_pageout_clean import OBJPC_ALLOW_ACTIVE, OBJPC_SYNC, OBJPC_TRY_TO_CACHE
from vkhost.vm.vm_pageout_page import Laundry, vm_pageout_page

if TYPE_CHECKING:
    from vkhost.kernel import Kernel


@dataclass(slots=True)
class Pgscan:
    """struct pmap_pgscan_info: one scan of a pmap down to `limit` resident pages."""

    kernel: Kernel
    pmap: Pmap
    limit: int
    actioncount: int = 0
    cleancount: int = 0


async def vm_pageout_map_deactivate_pages(kernel: Kernel, pmap: Pmap, limit: int) -> None:
    """Take pages out of the pmap until `limit` are left, in at most four rounds."""
    scan = Pgscan(kernel, pmap, limit)
    retries = 3
    for _ in range(1 + retries):
        await pmap_pgscan(
            pmap,
            VM_MIN_USER_ADDRESS,
            VM_MAX_USER_ADDRESS,
            lambda va, m: vm_pageout_mdp_callback(scan, m),
        )
        if await pmap_resident_tlnw_count(pmap) <= limit:
            break
    kernel.emit("pageout.rss", pmap.id, scan.cleancount)


async def vm_pageout_mdp_callback(scan: Pgscan, m: VmPage) -> bool:
    """One page the pmap maps, hard-busied, which is eaten. False ends the scan."""
    if await pmap_resident_tlnw_count(scan.pmap) <= scan.limit:
        await vm_page_wakeup(m)
        return False
    scan.kernel.vmmeter.count("v_pdpages")
    flags = await m.flags.load()
    if flags & PG_UNQUEUED or await m.wire_count.load() or await m.hold_count.load():
        await vm_page_wakeup(m)
        return True
    scan.actioncount += 1
    if await _referenced(scan, m):
        await vm_page_wakeup(m)
        return True
    # The page leaves this pmap, as far as the reverse map can see, and the scan will not meet it
    # again: so it is dealt with here.
    await scan.kernel.rmap.remove_specific(scan.pmap, m)
    if not await m.flags.load() & PG_MAPPED:
        if m.queue == PQ_ACTIVE:
            await vm_page_deactivate(m)
        if m.queue == PQ_INACTIVE:
            await _clean(scan, m)
            return True
    await vm_page_wakeup(m)
    return True


async def _referenced(scan: Pgscan, m: VmPage) -> bool:
    actcount = await scan.kernel.rmap.ts_referenced(m)
    if not actcount and await m.flags.load() & PG_REFERENCED:
        actcount = 1
    if not actcount:
        return False
    if m.queue != PQ_ACTIVE:
        await vm_page_activate(m)
    else:
        m.act_count = min(m.act_count + actcount, ACT_MAX)
    await vm_page_flag_clear(m, PG_REFERENCED)
    return True


async def _clean(scan: Pgscan, m: VmPage) -> None:
    """Write and cache it at once, or a runaway process outgrows its limit on the queues."""
    if scan.kernel.vmmeter.tunables["pageout_memuse_mode"] < 2:
        await vm_page_wakeup(m)
        scan.cleancount += 1
        return
    await vm_page_flag_set(m, PG_WINATCFLS)
    how = OBJPC_TRY_TO_CACHE | OBJPC_ALLOW_ACTIVE | OBJPC_SYNC
    launder_max = 0x7FFF
    laundry = Laundry(max_launder=launder_max)
    scan.cleancount += await vm_pageout_page(scan.kernel, m, laundry, 1, how)

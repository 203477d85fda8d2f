"""The inactive scan. DragonFly vm_pageout.c:vm_pageout_scan_inactive.

It looks at a tenth of each sub-queue a pass, and leaves vnode-backed pages alone when it is the
emergency pager, since that one runs when the primary is stuck on exactly such a page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkhost.vm.vm_object import OBJT_VNODE
from vkhost.vm.vm_page import PG_WINATCFLS, VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_flag_set
from vkhost.vm.vm_page_queue import PQ_INACTIVE
from vkhost.vm.vm_pageout_clean import OBJPC_ALLOW_ACTIVE, OBJPC_TRY_TO_CACHE
from vkhost.vm.vm_pageout_page import Laundry, vm_pageout_page
from vkhost.vm.vm_pageout_scan import MAXSCAN_DIVIDER, PageScan

if TYPE_CHECKING:
    from vkhost.kernel import Kernel


def max_launder(kernel: Kernel, passes: int) -> int:
    """How many pages one sub-queue may write: its share of vm.max_launder, growing by the pass."""
    whole = kernel.vmmeter.tunables["max_launder"]
    share = whole * (passes + 1) // kernel.config.pqcolors // MAXSCAN_DIVIDER
    return min(max(share, 1), whole // 16 + 1)


async def vm_pageout_scan_inactive(
    kernel: Kernel, passes: int, color: int, avail_shortage: int, laundry: Laundry, *, isep: bool
) -> int:
    """Returns how many pages of the shortage were made up for."""
    passes_max = 1000
    passes = min(passes, passes_max)
    laundry.max_launder = max_launder(kernel, passes)
    laundry.vpfailed = None
    scan = PageScan(kernel, PQ_INACTIVE, color)
    delta = 0
    await scan.start()
    while avail_shortage - delta > 0 and (m := await scan.busy_next()) is not None:
        kernel.vmmeter.count("v_pdpages")
        if isep and m.object is not None and m.object.type == OBJT_VNODE:
            await vm_page_wakeup(m)
            continue
        delta += await vm_pageout_page(kernel, m, laundry, passes, await _flush_flags(kernel, m))
        # So much has become free that going on would only evict: report the work as done, or the
        # caller takes the rest for a shortage.
        counts = await kernel.vmmeter.vmstats.free_and_cache()
        if kernel.vmmeter.paging_target(*counts) < -kernel.vmmeter.tunables["max_launder"]:
            delta = max(delta, avail_shortage)
            break
    await scan.finish()
    return delta


async def _flush_flags(kernel: Kernel, m: VmPage) -> int:
    """How to write the page. On its second round (WINATCFLS) it is meant to leave memory."""
    tunables = kernel.vmmeter.tunables
    if tunables["pageout_memuse_mode"] >= 3:
        await vm_page_flag_set(m, PG_WINATCFLS)
    flags = OBJPC_ALLOW_ACTIVE if tunables["pageout_allow_active"] else 0
    if await m.flags.load() & PG_WINATCFLS:
        flags |= OBJPC_TRY_TO_CACHE
    return flags

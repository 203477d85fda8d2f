"""What happens to one page of the inactive queue. DragonFly vm_pageout.c:vm_pageout_page.

Entered with the page hard-busied, which is eaten on every path. A page dies in this order:
referenced? - dirty? - (second round) laundered - (third round) cached - freed by the cache scan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vkhost.pc64.pmap_bits import PTE_A
from vkhost.vm.vm import VM_PROT_NONE
from vkhost.vm.vm_map import vm_map_lock_read, vm_map_unlock
from vkhost.vm.vm_object import OBJT_VNODE, VmObject
from vkhost.vm.vm_page import ACT_ADVANCE, PG_NEED_COMMIT, PG_REFERENCED, PG_WINATCFLS, VmPage
from vkhost.vm.vm_page_alloc import vm_page_free
from vkhost.vm.vm_page_busy import vm_page_busy_try, vm_page_wakeup
from vkhost.vm.vm_page_cache import vm_page_cache
from vkhost.vm.vm_page_dirty import (
    vm_page_dirty,
    vm_page_flag_clear,
    vm_page_flag_set,
    vm_page_protect,
    vm_page_test_dirty,
)
from vkhost.vm.vm_page_lru import vm_page_activate, vm_page_requeue, vm_page_unqueue_nowakeup
from vkhost.vm.vm_page_queue import PQ_INACTIVE
from vkhost.vm.vm_page_wire import vm_page_hold, vm_page_unhold
from vkhost.vm.vm_pageout_clean import vm_pageout_clean_helper
from vkhost.vm.vm_pageout_wakeup import NS_PER_SECOND

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.vm.vnode_pager import Vnode


@dataclass(slots=True)
class Laundry:
    """What a scan may still write, and what it has met so far. Belongs to the scanning thread."""

    max_launder: int
    vnodes_skipped: int = 0
    vpfailed: Vnode | None = None  # the last vnode whose lock was not to be had
    flushed: int = 0
    cleaned: int = 0
    lru2: int = 0
    reactivated: int = 0


async def vm_pageout_page_free(m: VmPage) -> None:
    await vm_page_protect(m, VM_PROT_NONE)
    await vm_page_free(m)


async def vm_pageout_page(
    kernel: Kernel, m: VmPage, laundry: Laundry, passes: int, vmflush_flags: int
) -> int:
    """Returns how many pages were freed, cached or written."""
    if await m.wire_count.load():
        # The last unwiring will queue it again.
        await vm_page_unqueue_nowakeup(m)
        return await _leave(m, "unqueue")
    if await m.hold_count.load():
        return await _recycle(m, "held")
    if await _referenced(m, laundry):
        return 0
    if await m.dirty.load() == 0:
        await vm_page_test_dirty(m)
    else:
        await vm_page_dirty(m)  # partly dirty is dirty
    flags = await m.flags.load()
    commit = bool(flags & PG_NEED_COMMIT)
    if m.valid == 0 and not commit:
        kernel.emit("pageout.page", m.pfn, "free")
        await vm_pageout_page_free(m)
        kernel.vmmeter.count("v_dfree")
        laundry.cleaned += 1
        return 1
    if await m.dirty.load() == 0 and not commit:
        kernel.emit("pageout.page", m.pfn, "cache")
        await vm_page_cache(m)
        laundry.cleaned += 1
        return 1
    if not flags & PG_WINATCFLS and passes == 0:
        # Writing is expensive: a dirty page goes round the queue twice before it is written.
        laundry.lru2 += 1
        await vm_page_flag_set(m, PG_WINATCFLS)
        return await _recycle(m, "lru2")
    if laundry.max_launder <= 0:
        return await _leave(m, "later")
    await vm_page_flag_set(m, PG_WINATCFLS)
    return await _launder(kernel, m, laundry, vmflush_flags)


async def _leave(m: VmPage, action: str) -> int:
    m.kernel.emit("pageout.page", m.pfn, action)
    await vm_page_wakeup(m)
    return 0


async def _recycle(m: VmPage, action: str) -> int:
    """To the tail: the scan will not see it again this time round."""
    if m.queue == PQ_INACTIVE:
        await vm_page_requeue(m)
    return await _leave(m, action)


async def _referenced(m: VmPage, laundry: Laundry) -> bool:
    """Used since it became inactive? Then back to the active queue, with a head start."""
    rmap = m.kernel.rmap
    if m.object is None or await m.object.ref_count.load() == 0:
        await vm_page_flag_clear(m, PG_REFERENCED)
        await rmap.clearbit(m, PTE_A)
        return False
    if await m.flags.load() & PG_REFERENCED:
        await vm_page_flag_clear(m, PG_REFERENCED)
        actcount = 1 + await rmap.ts_referenced(m)
    else:
        actcount = await rmap.ts_referenced(m)
    if not actcount:
        return False
    laundry.reactivated += 1
    await vm_page_activate(m)
    m.act_count += actcount + ACT_ADVANCE
    m.kernel.vmmeter.count("v_reactivated")
    await _leave(m, "activate")
    return True


async def _launder(kernel: Kernel, m: VmPage, laundry: Laundry, vmflush_flags: int) -> int:
    obj = m.object
    if obj is None or await _is_dead(obj):
        return await _recycle(m, "dead")
    vp = None
    if obj.type == OBJT_VNODE:
        vp = obj.handle
        assert vp is not None
        if not await _vget_unbusied(kernel, m, obj, vp, laundry):
            return 0
    if "pageout-locks-map" in kernel.mutants:
        await vm_map_lock_read(kernel.procs[0].p_vmspace.vm_map)
        await vm_map_unlock(kernel.procs[0].p_vmspace.vm_map)
    kernel.emit("pageout.page", m.pfn, "launder")
    count = await vm_pageout_clean_helper(kernel, m, vmflush_flags)
    laundry.flushed += count
    laundry.max_launder -= count
    if vp is not None:
        await vp.lock.release()
    return count


async def _is_dead(obj: VmObject) -> bool:
    """An object being torn down: its pages go without our help."""
    await obj.token.acquire_shared()
    dead = obj.dead
    await obj.token.release()
    return dead


async def _vget_unbusied(
    kernel: Kernel, m: VmPage, obj: VmObject, vp: Vnode, laundry: Laundry
) -> bool:
    """Lock the vnode with m unbusied, then have m again; False: m is not ours and vp not locked.

    A fault may hold the vnode while it waits for this page, so the vnode is never waited for with
    the page busy. The hold keeps the frame, not its identity: everything is looked at again.
    (The kernel takes a first, unlocked look before it busies the page; here that look is the one
    after it, since an unlocked read is no step of anything.)
    """
    await vm_page_hold(m)
    await vm_page_wakeup(m)
    tick = NS_PER_SECOND // kernel.config.hz
    patience = 0 if vp is laundry.vpfailed else NS_PER_SECOND // 20 + tick
    if not await vp.lock.try_exclusive(patience):
        laundry.vpfailed = vp
        laundry.vnodes_skipped += 1
        await vm_page_unhold(m)
        return False
    busied = await vm_page_busy_try(m)
    await vm_page_unhold(m)
    if busied and await _still_dirty(kernel, m, obj, vp, laundry):
        return True
    await vp.lock.release()
    return False


async def _still_dirty(
    kernel: Kernel, m: VmPage, obj: VmObject, vp: Vnode, laundry: Laundry
) -> bool:
    """The rebusied page is still what was to be written. If not, it is given up here."""
    if m.queue != PQ_INACTIVE or m.object is not obj or obj.handle is not vp:
        laundry.vnodes_skipped += 1
        await _leave(m, "moved")
        return False
    if await m.wire_count.load():
        await vm_page_unqueue_nowakeup(m)
        await _leave(m, "unqueue")
        return False
    commit = await m.flags.load() & PG_NEED_COMMIT
    complaint = None
    if await m.hold_count.load():
        complaint = ""  # perhaps under I/O: no news
    elif m.valid == 0 and not commit:
        complaint = "B"
    elif await m.dirty.load() == 0 and not commit:
        complaint = "C"
    if complaint is None:
        return True
    if complaint:
        kernel.emit("console", f"vm_pageout_page: rebusy {m.pfn} failed({complaint})")
    laundry.vnodes_skipped += 1
    await _recycle(m, "rebusy")
    return False

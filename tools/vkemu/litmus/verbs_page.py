"""What the host does to pages: scans, laundering, truncation, and the next owner of a frame."""

from __future__ import annotations

from types import coroutine
from typing import Annotated, Any, Final

from vkprotocol.effects import Effect, Step
from vkprotocol.param import PAGE_SIZE

from vkemu.litmus.actor import FAULT_TYPES, NO_PAGE, Actor, FaultKind, verb
from vkemu.litmus.machine import OTHER, OTHER_PAGES, Machine
from vkemu.litmus.operand import Index, Limit, Page, Pages, Passes, Va, Word, choice
from vkhost.pc64.pmap import pmap_resident_count
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.rmap.nested import Nested
from vkhost.vm.vm import VM_PROT_NONE, VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_fault_page import vm_fault_page
from vkhost.vm.vm_map_clean import vm_map_clean
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_object_page import (
    vm_object_deallocate,
    vm_object_page_clean,
    vm_object_page_remove,
)
from vkhost.vm.vm_page import PG_MAPPED, VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_alloc import VM_ALLOC_NORMAL, vm_page_alloc
from vkhost.vm.vm_page_busy import vm_page_busy_try, vm_page_wakeup
from vkhost.vm.vm_page_cache import vm_page_cache, vm_page_try_to_cache, vm_page_try_to_free
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_protect, vm_page_test_dirty
from vkhost.vm.vm_page_lru import vm_page_activate, vm_page_deactivate
from vkhost.vm.vm_page_queue import PQ_ACTIVE, PQ_CACHE, PQ_INACTIVE
from vkhost.vm.vm_page_wire import vm_page_unhold
from vkhost.vm.vm_pageout import Pageout, vm_pageout_pass
from vkhost.vm.vm_pageout_active import Ageing
from vkhost.vm.vm_pageout_active import _age as vm_pageout_age
from vkhost.vm.vm_pageout_clean import (
    OBJPC_ALLOW_ACTIVE,
    OBJPC_SYNC,
    OBJPC_TRY_TO_CACHE,
    vm_pageout_clean_helper,
)
from vkhost.vm.vm_pageout_inactive import _flush_flags as vm_pageout_flush_flags
from vkhost.vm.vm_pageout_page import Laundry, vm_pageout_page
from vkhost.vm.vm_pageout_rss import vm_pageout_map_deactivate_pages

PROTS: Final = {"none": VM_PROT_NONE, "r": VM_PROT_READ}


def _unowned(state: Any) -> bool:
    """Of a token: nobody has it exclusively."""
    return state[0] is None


@coroutine
def _lookup(machine: Machine, page: Any) -> Step:
    """A scan finds pages by its queue; here by their place, in a step in which nobody moves them.
    What it found is looked at again once it is busied."""
    obj = machine.image
    me = yield Effect(obj.token, "lookup", write=False, guard=_unowned)
    if me.held is not None:
        me.held.append(obj.token)
    m = machine.page(page)
    if me.held is not None:
        me.held.remove(obj.token)
    return m


async def _busied(me: Actor, page: Any) -> VmPage | None:
    m: VmPage | None = await _lookup(me.machine, page)
    if m is None or not await vm_page_busy_try(m):
        return None
    if me.machine.page(page) is m:  # it stays that now
        return m
    await vm_page_wakeup(m)
    return None


@verb("host pageout")
async def deactivate(me: Actor, page: Page) -> int:
    """What the active scan does to a page that has declined: to PQ_INACTIVE, mappings and
    PG_REFERENCED in place. 0."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    await vm_page_deactivate(m)
    await vm_page_wakeup(m)
    return 0


@verb("host pageout")
async def scan_active(me: Actor, page: Page, short: Limit = 1) -> int:
    """The active scan meets the page when there is a shortage (0: none). 0 if it was used since it
    was last met: that is forgotten, and it stays. 1 if not: it is unmapped and cached, or inactive
    if it is dirty or there is no shortage. -2 on another queue."""
    m = await _busied(me, page)
    if m is None or m.queue != PQ_ACTIVE:
        return await _give_up(m)
    age = Ageing(me.machine.kernel, 0, short, 1, isep=False)
    m.act_count = 0
    await vm_pageout_age(age, m)
    return age.delta


@verb("host pageout")
async def scan_inactive(me: Actor, page: Page, passes: Passes = 0) -> int:
    """The inactive scan meets the page (vm_pageout_page); how many pages it freed, cached or wrote.
    0 if it was used (it is active again) or is dirty and met for the first time, unless `passes`
    are behind it; the next writes it. -2 on another queue."""
    m = await _busied(me, page)
    if m is None or m.queue != PQ_INACTIVE:
        return await _give_up(m)
    kernel = me.machine.kernel
    flags = await vm_pageout_flush_flags(kernel, m)
    return await vm_pageout_page(kernel, m, Laundry(max_launder=16), passes, flags)


async def _give_up(m: VmPage | None) -> int:
    """The page is busy, gone, or on another queue: a scan passes it by."""
    if m is not None:
        await vm_page_wakeup(m)
    return NO_PAGE


@verb("host pageout")
async def launder(me: Actor, page: Page) -> int:
    """What the inactive scan does to a page that is idle and dirty: the vnode is locked, the page
    written and cached; how many pages were written."""
    lock = me.machine.vnode.lock
    await lock.acquire_exclusive()
    m = await _busied(me, page)
    written = NO_PAGE
    if m is not None:
        how = OBJPC_TRY_TO_CACHE | OBJPC_ALLOW_ACTIVE
        written = await vm_pageout_clean_helper(m.kernel, m, how)
    await lock.release()
    return written


@verb("host pageout")
async def protect(me: Actor, page: Page, prot: Annotated[str, choice(*PROTS)]) -> int:
    """vm_page_protect, of all PTEs that the reverse map knows; 0."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    await vm_page_protect(m, PROTS[prot])
    await vm_page_wakeup(m)
    return 0


@verb("host pageout")
async def test_dirty(me: Actor, page: Page) -> int:
    """vm_page_test_dirty; whether the page is dirty."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    await vm_page_test_dirty(m)
    dirty = int(await m.dirty.load() != 0)
    await vm_page_wakeup(m)
    return dirty


@verb("host pageout")
async def referenced(me: Actor, page: Page) -> int:
    """pmap_ts_referenced: how many PTEs had A, which it takes. PG_REFERENCED it leaves."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    count = await me.machine.kernel.rmap.ts_referenced(m)
    await vm_page_wakeup(m)
    return count


@verb("host pageout")
async def cache(me: Actor, page: Page) -> int:
    """vm_page_cache, which unmaps and looks again; 0, also of a page that turns out dirty."""
    m = await _busied(me, page)
    if m is None:
        return NO_PAGE
    await vm_page_cache(m)
    return 0


@verb("host pageout")
async def try_to_cache(me: Actor, page: Page) -> bool:
    """vm_page_try_to_cache, as buffers are released: 1 if it was, 0 if it is in use or dirty."""
    m = await _busied(me, page)
    return m is not None and await vm_page_try_to_cache(m)


@verb("host pageout")
async def try_to_free(me: Actor, page: Page) -> bool:
    """vm_page_try_to_free: unmap, and free what is still clean then; whether it was."""
    m = await _busied(me, page)
    return m is not None and await vm_page_try_to_free(m)


@verb("host pageout")
async def free(me: Actor, page: Page) -> int:
    """Truncation of one page: unmap and free."""
    pindex = me.machine.pindex(page)
    await vm_object_page_remove(me.machine.image, pindex, pindex + 1, clean_only=False)
    return 0


@verb("host pageout")
async def free_table(me: Actor, page: Page) -> bool:
    """With nested paging: what the page table maps that the page has in the second stage goes,
    then the table; whether it did. Without, or if it is in use again: it did not."""
    machine = me.machine
    rmap, m = machine.kernel.rmap, machine.page(page)
    return isinstance(rmap, Nested) and m is not None and await rmap.free_table(m)


@verb("host pageout")
async def reuse(me: Actor, value: Word) -> int:
    """Another process gets a page, maps it and writes `value` to it: the next owner of a frame; the
    number of that, -2 if there is none to be had. A free one comes first (see `spare`), then one
    whose page is cached. What vm_fault does for it, without the steps that are another window's
    business."""
    machine = me.machine
    if not machine.other_lives:
        raise me.misused("the other process has exited, expected before `exit_other`")
    made = machine.other_object
    pindex = made.resident_page_count
    async with made.token:
        m = await vm_page_alloc(made, pindex, VM_ALLOC_NORMAL)
    if m is None:
        return NO_PAGE
    await m.frame.zero()
    m.valid = VM_PAGE_BITS_ALL
    va = OTHER + pindex * PAGE_SIZE
    await pmap_enter(
        machine.other.pmap, va, m, VM_PROT_READ | VM_PROT_WRITE, False,
        machine.other.vm_map.entries[0],
    )  # fmt: skip
    await vm_page_dirty(m)
    await m.frame.store(0, value)
    me.machine.kernel.emit("page.write", m.pfn, m.frame.words.tobytes())
    await vm_page_activate(m)
    await vm_page_wakeup(m)
    return m.pfn


@verb("host pageout")
async def owner_mapped(me: Actor) -> bool:
    """Whether the pages of the other process, got by `reuse` and mapped, are all PG_MAPPED; 1 if it
    has none. No other verb asks about them."""
    for _, m in sorted(me.machine.other_object.memq.items()):
        if not await m.flags.load() & PG_MAPPED:
            return False
    return True


@verb("host pageout")
async def exit_other(me: Actor) -> int:
    """The other process exits: what it had is free again."""
    machine = me.machine
    machine.other_lives = False
    end = OTHER + OTHER_PAGES * PAGE_SIZE
    await vm_map_remove(machine.other.vm_map, OTHER, end)
    await vm_object_deallocate(machine.other_object)
    return 0


@verb("host pageout")
async def reclaimed(me: Actor, page: Page) -> bool:
    """Whether the memory of the page is there for others: cached, or free already."""
    m = me.machine.page(page)
    return m is None or m.queue == PQ_CACHE


@verb("host pageout")
async def wires(me: Actor, page: Page) -> int:
    """wire_count of the page; -2 where there is none."""
    m = me.machine.page(page)
    return NO_PAGE if m is None else int(await m.wire_count.load())


@verb("pageout")
async def passes(me: Actor, times: Passes = 1) -> int:
    """Passes of the pageout daemon, with the sleeps between them; how many in a row left a
    shortage, 0 if the last left none. There is one while free and cached pages (`spare`) are fewer
    than host.free_target; active pages are looked at only up to host.inactive_target."""
    daemon = Pageout(me.machine.kernel, isep=False)
    for _ in range(times):
        await vm_pageout_pass(daemon)
    return daemon.passes


@verb("host pageout")
async def rss(me: Actor, limit: Limit) -> int:
    """RLIMIT_RSS is enforced on the guest process; how many pages it is left with."""
    pmap = await me.machine.kernel.rmap.resident_pmap(me.machine.guest.pmap)
    await vm_pageout_map_deactivate_pages(pmap.kernel, pmap, limit)
    return await pmap_resident_count(pmap)


@verb("host")
async def fsync(me: Actor) -> int:
    """Of the memory file: vm_object_page_clean of all of it, with the vnode locked."""
    lock = me.machine.vnode.lock
    await lock.acquire_exclusive()
    await vm_object_page_clean(me.machine.image, 0, 0, OBJPC_SYNC)
    await lock.release()
    return 0


@verb("host")
async def msync(
    me: Actor, va: Va, how: Annotated[str, choice("sync", "invalidate")], pages: Pages = 1
) -> int:
    """vm_map_clean of a range of the guest process; its KERN_* result."""
    start = me.va(va)
    return await vm_map_clean(
        me.machine.guest.vm_map, start, start + pages * PAGE_SIZE,
        syncio=True, invalidate=how == "invalidate",
    )  # fmt: skip


@verb("host")
async def ondisk(me: Actor, page: Page, idx: Index) -> int:
    """A word of the memory file, as it is on the disk."""
    offset = me.machine.pindex(page) * PAGE_SIZE + idx * 8
    return int.from_bytes(me.machine.vnode.pread(offset, 8), "little")


@verb("host")
async def hold(me: Actor, va: Va, kind: FaultKind) -> int:
    """vm_fault_page: the host gets at a user's page without a PTE; KERN_*. To write (`w`) it copies
    the page where a fault would: after `fork` or `private`, otherwise not."""
    m, result, _ = await vm_fault_page(me.machine.guest.vm_map, me.va(va), FAULT_TYPES[kind])
    me.held = m
    return result


@verb("host")
async def hstore(me: Actor, value: Word) -> int:
    """The host, or its DMA, writes the first word of the page it holds; -2 if it holds none."""
    m = me.held
    if m is None:
        return NO_PAGE
    await m.frame.store(0, value)
    m.kernel.emit("page.write", m.pfn, m.frame.words.tobytes())
    return 0


@verb("host")
async def unhold(me: Actor) -> int:
    """vm_page_unhold of the page that it holds; -2 if it holds none."""
    m, me.held = me.held, None
    if m is None:
        return NO_PAGE
    await vm_page_unhold(m)
    return 0


@verb("host")
async def count_fault(me: Actor) -> int:
    """++vm.vpagetable_faults, as vm_fault does it."""
    await me.machine.kernel.vmmeter.count_vpagetable("vpagetable_faults")
    return 0


@verb("host")
async def counted_faults(me: Actor) -> int:
    """vm.vpagetable_faults, as a sysctl reads it."""
    return int(await me.machine.kernel.vmmeter.vpagetable["vpagetable_faults"].load())


@verb("host")
async def counted_invals(me: Actor) -> int:
    """vm.vpagetable_inval, as a sysctl reads it."""
    return int(await me.machine.kernel.vmmeter.vpagetable["vpagetable_inval"].load())

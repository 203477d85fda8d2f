"""Guest frames: who owns each, who is using it, and where the page daemon finds it.

DragonFly `vm/vm_page.c` as a vkernel runs it: `m.frame` is a page of the memory image. A page is
hard-busied (PBUSY_LOCKED) by whoever changes its identity, contents or mappings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkprotocol.effects import Effect, Lock, Thread, is_none, perform
from vkprotocol.guarded import guarded_by

from vkguest.kern.errors import GuestPanic
from vkguest.kern.lockorder import OBJECT_LOCK, PAGE_QUEUE, PAGE_SPIN, PTEOBJ_LOCK
from vkguest.vkernel64.globaldata import GlobalData

if TYPE_CHECKING:
    from vkguest.vkernel64.pv import PvEntry
    from vkguest.vm.vm_object import VmObject

PG_WRITEABLE: Final = 0x10
PG_MAPPED: Final = 0x20
PG_REFERENCED: Final = 0x80

PQ_NONE: Final = "none"
PQ_FREE: Final = "free"
PQ_HOLD: Final = "hold"  # freed while held: goes to the free list when it is let go
PQ_INACTIVE: Final = "inactive"
PQ_ACTIVE: Final = "active"

ACT_DECLINE: Final = 1
ACT_ADVANCE: Final = 3
ACT_INIT: Final = 5
ACT_MAX: Final = 64

# How deep into the free list an allocation may go: page tables must not wait for the daemon.
VM_ALLOC_NORMAL: Final = "normal"
VM_ALLOC_SYSTEM: Final = "system"


def spinlocked(m: VmPage, thread: Thread, writing: bool) -> bool:
    """By its spinlock; or it is nobody's page, and whoever has it busied is alone with it."""
    assert thread.held is not None
    nobodys = m.busy.state == thread.tid and m.object is None
    return nobodys or any(lock is m.spin for lock in thread.held)


def spinlocked_or_busied(m: VmPage, thread: Thread, writing: bool) -> bool:
    """Nothing is added to the list of a page that somebody else has busied."""
    return spinlocked(m, thread, writing) or (not writing and m.busy.state == thread.tid)


def counted(m: VmPage, thread: Thread, writing: bool) -> bool:
    """By the lock of the queues; the hold count of a page table says how many VPTEs are in it, and
    belongs to its pmap."""
    assert thread.held is not None
    return any(lock is m.queue_lock or lock.rank == PTEOBJ_LOCK for lock in thread.held)


def identified(m: VmPage, thread: Thread, writing: bool) -> bool:
    """By its busy bit, or by the lock of its object, of which a tree has but one."""
    assert thread.held is not None
    return m.busy.state == thread.tid or any(lock.rank == OBJECT_LOCK for lock in thread.held)


def queued_or_busied(m: VmPage, thread: Thread, writing: bool) -> bool:
    """Nobody wires or unwires a page that somebody else has busied."""
    assert thread.held is not None
    mine = not writing and m.busy.state == thread.tid
    return mine or any(lock is m.queue_lock for lock in thread.held)


@guarded_by("queue_lock", "act_count", "queue")
@guarded_by("queue_lock", "wire_count", guard=queued_or_busied)
@guarded_by("queue_lock or pm_pteobj", "hold_count", guard=counted)
@guarded_by("busy or object lock", "object", "pindex", guard=identified)
@guarded_by("spin", "dirty", "flags", guard=spinlocked)
@guarded_by("spin", "pv_list", guard=spinlocked_or_busied)
class VmPage:
    """One frame.

    spin: pv_list, flags, dirty. PAGE_QUEUE: queue, wire_count, hold_count, act_count.
    busy: object, pindex (with the object lock), and whether it may be freed.
    """

    __slots__ = (
        "act_count", "busy", "dirty", "flags", "frame", "hold_count", "object", "pindex",
        "pv_list", "queue", "queue_lock", "spin", "unbusied", "wire_count",
    )  # fmt: skip

    def __init__(self, name: str, frame: int, queue_lock: Lock) -> None:
        self.frame = frame
        self.queue_lock = queue_lock
        self.spin = Lock((name, "page", frame, "spin"), PAGE_SPIN)
        self.busy = Lock((name, "page", frame, "busy"))
        self.unbusied = Effect(self.busy, "sleep_busy", write=False, guard=is_none)
        self.object: VmObject | None = None
        self.pindex = 0
        self.queue = PQ_FREE
        self.flags = 0
        self.dirty = False
        self.wire_count = 0
        self.hold_count = 0
        self.act_count = 0
        self.pv_list: list[PvEntry] = []

    def __repr__(self) -> str:
        return f"<VmPage {self.frame}>"


@guarded_by("lock", "deficit", "free", "pageout_wanted", "queues")
class VmPageQueues:
    """vm_page_queues and vmstats. `lock` covers all of it and every page's counts."""

    def __init__(
        self, name: str, first: int, end: int, ncpus: int, free_target: int | None = None
    ) -> None:
        self.lock = Lock((name, "vm_page_queues"), PAGE_QUEUE)
        self.pages = {frame: VmPage(name, frame, self.lock) for frame in range(first, end)}
        # A stack: the frame freed last is reused first, as the colour queues' heads are.
        self.free = list(range(end - 1, first - 1, -1))
        self.queues: dict[str, dict[int, VmPage]] = {PQ_ACTIVE: {}, PQ_INACTIVE: {}}
        # Every vCPU may be inside one pmap_enter, which takes up to three table pages.
        self.free_reserved = 4 * ncpus
        if free_target is None:
            free_target = self.free_reserved + max(4, (end - first) // 16)
        self.free_target = free_target
        self.pageout_wanted = False  # the daemon is running or queued to run
        # vm_pageout_deficit: frames that somebody had, and gave back as there was not one more.
        self.deficit = 0

    def count_min(self) -> bool:
        """vm_page_count_min: time to start the daemon."""
        return len(self.free) < (self.free_reserved + self.free_target) // 2


async def vm_page_alloc(
    gd: GlobalData, obj: VmObject | None, pindex: int, kind: str, owner: str
) -> VmPage | None:
    """A frame, hard-busied, contents undefined; None when the reserve is all that is left.

    The caller holds the lock of `obj`, into which the page is inserted.
    """
    vpq = gd.kernel.vm_page_queues
    m = None
    async with vpq.lock:
        if len(vpq.free) > (vpq.free_reserved if kind == VM_ALLOC_NORMAL else 0):
            m = vpq.pages[vpq.free.pop()]
            m.queue = PQ_NONE
            m.act_count = 0
            gd.kernel.emit("guest.alloc", gd.kernel.proc, m.frame, owner)
        wakeup = vpq.count_min() and not vpq.pageout_wanted
        vpq.pageout_wanted |= wakeup
    if wakeup:  # vm_page.c:pagedaemon_wakeup
        await gd.kernel.sched.setrunqueue(gd.kernel.pagedaemon)
    if m is None:
        return None
    await _identify(m, obj, pindex)
    return m


async def vm_page_deficit(gd: GlobalData, count: int) -> None:
    """Whoever needs several frames at once, and could not get the last, gives back `count`.

    Else they would look like enough to the daemon, for ever.
    """
    vpq = gd.kernel.vm_page_queues
    async with vpq.lock:
        vpq.deficit = max(vpq.deficit, count)


async def vm_contig_alloc(gd: GlobalData, obj: VmObject, count: int, owner: str) -> int | None:
    """vm_contig.c: `count` consecutive frames as pages 0 ... of `obj`, wired; the first frame.

    The caller holds the lock of `obj`. The frames are handed out one by one while the lock of the
    queues is held, so nobody takes one from the middle.
    """
    vpq = gd.kernel.vm_page_queues
    async with vpq.lock:
        free = set(vpq.free)
        spare = len(vpq.free) - vpq.free_reserved
        starts = (f for f in sorted(free) if all(f + n in free for n in range(count)))
        first = next(starts, None) if spare >= count else None
        if first is None:
            return None
        pages = [vpq.pages[first + n] for n in range(count)]
        for m in pages:
            vpq.free.remove(m.frame)
            m.queue = PQ_NONE
            m.wire_count = 1
            gd.kernel.emit("guest.alloc", gd.kernel.proc, m.frame, owner)
    for pindex, m in enumerate(pages):
        await _identify(m, obj, pindex)
        await m.busy.release()
    return first


async def _identify(m: VmPage, obj: VmObject | None, pindex: int) -> None:
    """A frame off the free list becomes a page, busied."""
    # Whoever freed it may not have let go of the busy bit yet.
    await m.busy.acquire()
    m.flags = 0
    m.dirty = False
    m.pindex = pindex
    m.object = obj
    if obj is not None:
        obj.pages[pindex] = m


async def vm_page_free(gd: GlobalData, m: VmPage) -> None:
    """Give the frame back. The caller has it busied and unmapped and holds its object's lock."""
    assert not m.pv_list, "vm_page_free: mapped"
    if m.object is not None:
        if m.object.pages.pop(m.pindex, None) is not m:
            raise GuestPanic(f"{gd.kernel.name}: vm_page_free: {m} is not in its object")
        m.object = None
    vpq = gd.kernel.vm_page_queues
    async with vpq.lock:
        assert m.wire_count == 0, "vm_page_free: wired"
        vpq.queues.get(m.queue, {}).pop(m.frame, None)
        if m.hold_count:
            m.queue = PQ_HOLD
        else:
            _free(gd, m)
    await m.busy.release()


def _free(gd: GlobalData, m: VmPage) -> None:
    """Precondition: the queue lock."""
    m.queue = PQ_FREE
    gd.kernel.vm_page_queues.free.append(m.frame)
    gd.kernel.emit("guest.free", gd.kernel.proc, m.frame)


async def vm_page_busy_try(m: VmPage) -> bool:
    """True: the page is now ours. (DragonFly's returns the opposite.)"""
    return bool(await m.busy.try_acquire())


async def vm_page_sleep_busy(m: VmPage) -> None:
    """Wait until nobody has the page busied; whose page it then is must be looked up again."""
    await perform(m.unbusied)


async def vm_page_wakeup(m: VmPage) -> None:
    """No longer busied."""
    await m.busy.release()


async def vm_page_wire(gd: GlobalData, m: VmPage) -> None:
    """The page daemon is to leave it alone."""
    vpq = gd.kernel.vm_page_queues
    async with vpq.lock:
        vpq.queues.get(m.queue, {}).pop(m.frame, None)
        m.queue = PQ_NONE
        m.wire_count += 1


async def vm_page_unwire(gd: GlobalData, m: VmPage) -> None:
    async with gd.kernel.vm_page_queues.lock:
        assert m.wire_count > 0, "vm_page_unwire: not wired"
        m.wire_count -= 1


async def vm_page_hold(gd: GlobalData, m: VmPage) -> None:
    """Keep the frame from being used again while the kernel reads or writes it (copyin, copyout).

    The page may well be freed meanwhile, by another lwp that unmaps it.
    """
    if "copyio-unheld" in gd.mutants:
        return
    async with gd.kernel.vm_page_queues.lock:
        m.hold_count += 1


async def vm_page_unhold(gd: GlobalData, m: VmPage) -> None:
    if "copyio-unheld" in gd.mutants:
        return
    async with gd.kernel.vm_page_queues.lock:
        assert m.hold_count > 0, "vm_page_unhold: not held"
        m.hold_count -= 1
        if m.hold_count == 0 and m.queue == PQ_HOLD:
            _free(gd, m)


async def vm_page_requeue(gd: GlobalData, m: VmPage, queue: str) -> None:
    """vm_page_activate and vm_page_deactivate: to the tail of `queue`, unless wired."""
    vpq = gd.kernel.vm_page_queues
    async with vpq.lock:
        if m.wire_count == 0 and m.queue not in {PQ_FREE, PQ_HOLD}:
            vpq.queues.get(m.queue, {}).pop(m.frame, None)
            m.queue = queue
            vpq.queues[queue][m.frame] = m
            if queue == PQ_ACTIVE:
                m.act_count = max(m.act_count, ACT_INIT)


async def vm_page_dontneed(gd: GlobalData, m: VmPage, *, undirty: bool) -> None:
    """vm_page.c:vm_page_dontneed: a candidate for reuse. The caller has it busied; with `undirty`
    it has made it read-only, so that from now on a write is noticed (MADV_FREE)."""
    async with m.spin:
        m.flags &= ~PG_REFERENCED
        m.dirty = m.dirty and not undirty
    await vm_page_requeue(gd, m, PQ_INACTIVE)


async def vm_page_dirty(m: VmPage) -> None:
    """The caller has the page busied; the flag itself belongs to m.spin."""
    async with m.spin:
        m.dirty = True

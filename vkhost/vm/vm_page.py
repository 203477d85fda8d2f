"""vm_page: one per physical frame. DragonFly sys/vm/vm_page.h.

LOCKING. Atomic words, changed by effects: flags, busy_count, wire_count, hold_count, dirty,
interlock_count. Under the page's hard busy: valid, act_count, object and pindex (which also need
the object's token to change), queue (which also needs the spinlock of that queue).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vkprotocol.effects import Cell, Key, Thread
from vkprotocol.guarded import guarded_by

from vkhost.pc64.physmem import Frame
from vkhost.vm.vm_page_queue import PQ_FREE, PageQueue, QueueLink

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.vm.vm_object import VmObject

PG_VPTMAPPED: Final = 0x1  # the patch: reached through a VPTE, so unknown to the extent scan
PG_WINATCFLS: Final = 0x4
PG_WRITEABLE: Final = 0x10
PG_MAPPED: Final = 0x20
PG_MAPPEDMULTI: Final = 0x40
PG_REFERENCED: Final = 0x80
PG_CLEANCHK: Final = 0x100
PG_NOSYNC: Final = 0x400
PG_UNQUEUED: Final = 0x800
PG_SWAPPED: Final = 0x4000
PG_NEED_COMMIT: Final = 0x40000

PBUSY_LOCKED: Final = 0x80000000
PBUSY_MASK: Final = 0x1FFFFFFF  # soft busy count

ACT_DECLINE: Final = 1
ACT_ADVANCE: Final = 3
ACT_INIT: Final = 5
ACT_MAX: Final = 64

VM_PAGE_BITS_ALL: Final = 0xFF


class PageWord(Cell):
    """An atomic word of a page. Only `await word.load()` and its like look at it: `if m.dirty`
    would be an access that no executor sees, so it raises."""

    __slots__ = ()

    def __bool__(self) -> bool:
        raise TypeError("a page word is read by an effect: await word.load()")


PAGE_WORDS: Final = {
    "flags": "page.flags",
    "busy_count": "page.busy",
    "wire_count": "page.wire",
    "hold_count": "page.hold",
    "dirty": "page.dirty",
    "interlock_count": "page.interlock",
}


def busied(m: Any, thread: Thread, writing: bool) -> bool:
    """Hard-busied, or, to read, soft-busied. By whom is not known: a busy may change hands."""
    return bool(m.busy_count.state & (PBUSY_LOCKED if writing else PBUSY_LOCKED | PBUSY_MASK))


def busied_or_queue_locked(m: Any, thread: Thread, writing: bool) -> bool:
    assert thread.held is not None
    return busied(m, thread, writing) or any(isinstance(lock, PageQueue) for lock in thread.held)


@guarded_by("busy", "valid", "act_count", "object", "pindex", guard=busied)
@guarded_by("busy or queue", "queue", guard=busied_or_queue_locked)
class VmPage(QueueLink):
    """Invariant: `kernel.pages[m.pfn] is m` and `m.frame.pfn == m.pfn`."""

    __slots__ = (
        "act_count", "busy_count", "dirty", "flags", "frame", "hold_count", "interlock_count",
        "kernel", "object", "pc", "pfn", "pindex", "pv_list", "reusable", "valid", "wire_count",
    )  # fmt: skip

    flags: PageWord
    busy_count: PageWord
    wire_count: PageWord
    hold_count: PageWord
    dirty: PageWord
    interlock_count: PageWord

    def __init__(self, kernel: Kernel, frame: Frame, colors: int) -> None:
        super().__init__()
        pfn = frame.pfn
        self.kernel = kernel
        self.pfn = pfn
        self.pc = pfn % colors  # the colour: which sub-queue
        self.frame = frame
        self.valid = 0
        self.act_count = 0
        self.object: VmObject | None = None
        self.pindex = -1
        self.queue = PQ_FREE
        # On its way to, or on, PQ_FREE or PQ_CACHE. Changed in steps that write `dirty`, so that
        # vm_page_dirty, which may come from anybody, can tell.
        self.reusable = True
        # A reverse map's own list (`rmap/`), under a lock it brings along.
        self.pv_list: Any = None

    def __getattr__(self, name: str) -> PageWord:
        # Most pages of most runs are never touched: their words are made when first looked at.
        key = PAGE_WORDS.get(name)
        if key is None:
            raise AttributeError(name)
        word = PageWord((key, self.pfn))
        setattr(self, name, word)
        return word

    @property
    def key(self) -> Key:
        return ("page", self.pfn)

    def __repr__(self) -> str:
        owner = "free" if self.object is None else f"{self.object.id}[{self.pindex}]"
        return f"<VmPage {self.pfn} {owner}>"


class VmPageArray(dict[int, VmPage]):
    """vm_page_array, by pfn: as its frame, a page is made when somebody looks at it."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def __missing__(self, pfn: int) -> VmPage:
        kernel = self.kernel
        m = self[pfn] = VmPage(kernel, kernel.physmem.frames[pfn], kernel.config.pqcolors)
        return m

"""The page queues: FREE, INACTIVE, ACTIVE, CACHE and HOLD, each in colours with their spinlocks.

DragonFly vm_page.c:vm_page_queues, vm_page_queue_spin_lock, _vm_page_add_queue_spinlocked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import coroutine
from typing import Any, Final

from vkprotocol.effects import Cell, Effect, Lock, LockOrderError, Step, key_text
from vkprotocol.guarded import guarded_by

from vkhost.kern.lockorder import PAGE_QUEUE

PQ_NONE: Final = 0
PQ_FREE: Final = 1
PQ_INACTIVE: Final = 2
PQ_ACTIVE: Final = 3
PQ_CACHE: Final = 4
PQ_HOLD: Final = 5
PQ_NAMES: Final = ("none", "free", "inactive", "active", "cache", "hold")


class QueueLink:
    """TAILQ_ENTRY: a page, or the marker of a scan (PageMarker). Links: the queue's spinlock."""

    __slots__ = ("next", "prev", "queue")
    marker = False

    def __init__(self) -> None:
        self.next: QueueLink | None = None
        self.prev: QueueLink | None = None
        # Which queue the page is on. Changed with both the page hard-busied and the spinlock of
        # the queue it leaves or enters (a held page leaves PQ_HOLD under the spinlock alone).
        self.queue = PQ_NONE


class PageMarker(QueueLink):
    """PG_MARKER: holds a scan's place while the queue is unlocked."""

    __slots__ = ()
    marker = True


@guarded_by("self", "delta", "head", "tail", "lcnt")
class PageQueue(Lock):
    """One colour of one queue: a doubly linked list under this spinlock.

    `await q.acquire()`, then the list operations, then `await q.release()`. What they add or take
    away is carried into vmstats by the release, in that one step.

    `edge`: after it come pages nobody has looked at since boot, which are made one by one.
    """

    __slots__ = (
        "_leave",
        "_pages",
        "_untouched",
        "delta",
        "edge",
        "head",
        "kind",
        "lcnt",
        "tail",
        "total",
    )

    def __init__(self, kind: int, color: int, total: Cell) -> None:
        super().__init__(("queue", PQ_NAMES[kind], color), rank=PAGE_QUEUE)
        self.kind = kind
        self.total = total
        self.lcnt = 0  # pages on it, markers not counted
        self.delta = 0
        self.head: QueueLink | None = None
        self.tail: QueueLink | None = None
        self.edge: QueueLink | None = None
        self._pages: Mapping[int, QueueLink] = {}
        self._untouched = range(0)
        writes = not isinstance(total, Tally)
        self._leave = Effect(self, "release", write=True, also=((total, writes),))

    @coroutine
    def release(self) -> Step:
        me = yield self._leave if self.delta else self._release
        if self.state != me.tid:
            raise LockOrderError(f"{me.name} releases {key_text(self.key)}, which it does not hold")
        if self.delta:
            self.total.state += self.delta
            self.delta = 0
        if me.held is not None:
            me.held.remove(self)
        self.state = None

    def __len__(self) -> int:
        return self.lcnt

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[QueueLink]:
        link = self.head
        while link is not None:
            if link is self.edge:
                self._move_edge()
            following = link.next
            yield link
            link = following

    def fill(self, pages: Mapping[int, QueueLink], pfns: range) -> None:
        """At boot, without the lock. The total is the caller's."""
        self._pages, self._untouched = pages, pfns
        self.lcnt = len(pfns)
        self._move_edge()

    def _move_edge(self) -> None:
        edge = None
        if self._untouched:
            edge = self._pages[self._untouched[0]]
            self._untouched = self._untouched[1:]
            self._link(self.edge, edge)
        self.edge = edge

    def insert_tail(self, link: QueueLink) -> None:
        self.insert_after(self.tail, link)

    def insert_head(self, link: QueueLink) -> None:
        self.insert_after(None, link)

    def insert_after(self, prev: QueueLink | None, link: QueueLink) -> None:
        """TAILQ_INSERT_AFTER; after None is at the head."""
        self._link(prev, link)
        self._count(link, 1)

    def _link(self, prev: QueueLink | None, link: QueueLink) -> None:
        following = self.head if prev is None else prev.next
        link.prev, link.next = prev, following
        if prev is None:
            self.head = link
        else:
            prev.next = link
        if following is None:
            self.tail = link
        else:
            following.prev = link
        link.queue = self.kind

    def remove(self, link: QueueLink) -> None:
        if link is self.edge:
            self._move_edge()
        if link.prev is None:
            self.head = link.next
        else:
            link.prev.next = link.next
        if link.next is None:
            self.tail = link.prev
        else:
            link.next.prev = link.prev
        link.prev = link.next = None
        link.queue = PQ_NONE
        self._count(link, -1)

    def _count(self, link: QueueLink, delta: int) -> None:
        if not link.marker:
            self.lcnt += delta
            self.delta += delta


class Tally(Cell):
    """A count that is added to far more often than it is looked at (what gd_vmstats_adj is for).

    Additions commute, so they are announced as loads, and looking as a store: two pages that go to
    two queues have nothing to do with each other. No guard may wait for it.
    """

    __slots__ = ()

    def commute(self, state: Any, tid: int, op: str) -> Any:
        raise NotImplementedError(f"{tid} waits for a tally")  # only guards ask

    @coroutine
    def load(self) -> Step:
        yield self._write
        return self.state


class Vmstats:
    """Global page counts (vmstats), atomic."""

    __slots__ = ("_free_and_cache", "queue_count", "v_wire_count")

    def __init__(self) -> None:
        # Memory is waited for, and so looked at wherever it is taken: free and cache.
        self.queue_count = [
            (Cell if kind in (PQ_FREE, PQ_CACHE) else Tally)(("vmstats", f"v_{name}_count"))
            for kind, name in enumerate(PQ_NAMES)
        ]
        self.v_wire_count = Cell(("vmstats", "v_wire_count"))
        self._free_and_cache = Effect(
            self.v_free_count, "load", write=False, also=((self.v_cache_count, False),)
        )

    @property
    def v_free_count(self) -> Cell:
        return self.queue_count[PQ_FREE]

    @property
    def v_cache_count(self) -> Cell:
        return self.queue_count[PQ_CACHE]

    @property
    def v_inactive_count(self) -> Cell:
        return self.queue_count[PQ_INACTIVE]

    @property
    def v_active_count(self) -> Cell:
        return self.queue_count[PQ_ACTIVE]

    @coroutine
    def free_and_cache(self) -> Step:
        """(free, cache) in one look."""
        yield self._free_and_cache
        return self.v_free_count.state, self.v_cache_count.state


class VmPageQueues:
    """vm_page_queues[]: every colour of every queue, `queues.of(kind, color)`.

    They are made when first looked at: of most kinds most colours stay empty.
    """

    __slots__ = ("_queues", "_vmstats", "colors")

    def __init__(self, colors: int, vmstats: Vmstats) -> None:
        self.colors = colors
        self._vmstats = vmstats
        self._queues: dict[tuple[int, int], PageQueue] = {}

    def of(self, kind: int, color: int) -> PageQueue:
        queue = self._queues.get((kind, color))
        if queue is None:
            queue = PageQueue(kind, color, self._vmstats.queue_count[kind])
            self._queues[kind, color] = queue
        return queue

    def of_page(self, m: Any) -> PageQueue | None:
        """The queue a page is on; None on PQ_NONE."""
        return self.of(m.queue, m.pc) if m.queue else None

"""Invariant 4: bytes changed since the page was last written out => the kernel can know it.

It knows when m->dirty is set, or when pmap_testbit would find M in a PTE, or when somebody has
just swapped such a PTE out and has the M in hand. Changed bytes that none of these tells of are
lost as soon as the page is dropped; the check fires at the store where the kernel could already
not know, where it stops being able to, and at the drop itself. A store and the step that ends the
knowledge touch nothing in common, and a search takes them in one order: so both are judged.
"""

from __future__ import annotations

from typing import Final

from vkprotocol.events import QUEUES

from vkemu.oracle.frame import PTE_FRAME, PTE_M, PTE_V, Frame, Id
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.violation import Happening, Violation

PG_WRITEABLE: Final = 0x10


class Dirt:
    """`in_hand`: frames from which an M bit was taken and not yet delivered."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow
        self.in_hand: dict[int, Happening] = {}
        self.cleaned: dict[int, Happening] = {}  # when dirty became 0
        self.unqueued: dict[int, int] = {}  # step in which it left its queue
        self.written: set[int] = set()  # by a pager, and not yet called clean for it

    def known(self, frame: Frame) -> bool:
        """Would anybody who asks now learn that the page is dirty?"""
        if frame.dirty or frame.pfn in self.in_hand:
            return True
        # pmap_testbit asks PG_WRITEABLE before it looks at a single PTE.
        return bool(frame.flags & PG_WRITEABLE) and any(
            pte.bits & PTE_M for pte in frame.ptes.values()
        )

    def mem_store(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        frame = self.shadow.frames[pfn]
        if not frame.dirty and frame.changed is not None and not self.known(frame):
            raise self._violation(frame, f"a store to clean frame {pfn} leaves no trace", pmap)

    def mem_cmpset(
        self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int, ok: bool, old: int
    ) -> None:
        if ok:
            self.mem_store(cpu, pmap, va, pfn, idx, value)

    mem_emulate = mem_store

    def page_flags(self, pfn: int, set: int, clear: int) -> None:  # noqa: A002 - the field
        """PG_WRITEABLE goes: from here on no PTE is asked."""
        if clear & PG_WRITEABLE:
            frame = self.shadow.frame(pfn)
            if frame.changed is not None and not frame.free and not self.known(frame):
                raise self._violation(frame, f"nobody will look for the changes of frame {pfn}")

    def page_dirty(self, pfn: int, value: int) -> None:
        if value:
            self.in_hand.pop(pfn, None)
            return
        frame = self.shadow.frame(pfn)
        # Without a pager it is a decision: the page is freed, or MADV_FREE gives its changes up.
        if pfn in self.written and frame.changed is not None and not self.known(frame):
            raise self._violation(frame, f"frame {pfn} was written out, and changed, and is clean")
        self.written.discard(pfn)
        self.cleaned[pfn] = self.shadow.now()

    def pager_put(self, obj: Id, pindex: int, pfn: int) -> None:
        self.written.add(pfn)

    def page_alloc(self, pfn: int, gen: int, obj: Id, pindex: int) -> None:
        self.in_hand.pop(pfn, None)
        self.cleaned.pop(pfn, None)
        self.written.discard(pfn)

    def pte_write(self, pmap: Id, va: int, old: int, new: int, why: str) -> None:
        if not old & PTE_V or not old & PTE_M:
            return
        if new & PTE_V and new & PTE_M and new & PTE_FRAME == old & PTE_FRAME:
            return
        frame = self.shadow.frame((old & PTE_FRAME) >> 12)
        if not frame.dirty:
            self.in_hand[frame.pfn] = self.shadow.now()

    def page_queue(self, pfn: int, old: int, new: int) -> None:
        if QUEUES[new] == "none":
            self.unqueued[pfn] = self.shadow.step
        elif QUEUES[new] == "cache":
            frame = self.shadow.frame(pfn)
            if frame.changed is not None:
                what = "though dirty" if frame.dirty else "as clean, with changes"
                raise self._violation(frame, f"frame {pfn} is cached {what}")

    def page_free(self, pfn: int, gen: int) -> None:
        frame = self.shadow.frame(pfn)
        if frame.changed is None or frame.dirty:
            return
        # Freeing a dirty page is a decision; it is undirtied on the way, after it was unqueued.
        cleaned = self.cleaned.get(pfn)
        if cleaned is None or cleaned.step < self.unqueued.get(pfn, 0):
            raise self._violation(frame, f"frame {pfn} is freed as clean, with changes")

    def finish(self) -> None:
        """Nobody has anything in hand any more."""
        self.in_hand.clear()
        for frame in self.shadow.frames.values():
            if frame.changed is not None and not frame.free and not self.known(frame):
                raise self._violation(frame, f"the changes of frame {frame.pfn} are lost")

    def _violation(self, frame: Frame, message: str, pmap: Id | None = None) -> Violation:
        now = self.shadow.now()
        where = "" if pmap is None else f" of it, through {self.shadow.space(pmap)}"
        first = self.cleaned.get(frame.pfn)
        if first is None:
            first = self.in_hand.get(frame.pfn)
        if first is None or first == now:
            first = frame.changed if frame.changed != now else None
        obj, pindex = frame.previous if frame.free else (frame.object, frame.pindex)
        return Violation(
            4,
            message + where,
            check="dirty",
            accesses=(first, now),
            frame=frame.pfn,
            owners=(self.shadow.owner(obj, pindex), self.shadow.owner_of(frame)),
            events=frame.history,
        )

"""Invariant 2: no translation outlives the ownership of its frame.

Two checks, since the first usually fires before the second can. `free-frame`: a page that is put
on FREE or CACHE has no PTE in any pmap. `freed-access`: no load or store goes through a PTE or TLB
entry that was made for an earlier owner of the frame - the reading and writing itself.
"""

from __future__ import annotations

from vkprotocol.events import QUEUES

from vkemu.oracle.frame import PTE_FRAME, PTE_V, Frame, Id, Translation
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.violation import Happening, Violation


class FreeFrame:
    """A frame on FREE or CACHE is mapped nowhere."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow

    def page_queue(self, pfn: int, old: int, new: int) -> None:
        if QUEUES[new] == "cache":
            self._unmapped(self.shadow.frame(pfn), "is cached")

    def page_free(self, pfn: int, gen: int) -> None:
        self._unmapped(self.shadow.frame(pfn), "is freed")

    def _unmapped(self, frame: Frame, what: str) -> None:
        for pte in frame.ptes.values():
            raise self._violation(frame, pte, f"frame {frame.pfn} {what}, still mapped at ")

    def pte_write(self, pmap: Id, va: int, old: int, new: int, why: str) -> None:
        if not new & PTE_V or old & PTE_FRAME == new & PTE_FRAME:
            return
        frame = self.shadow.frame((new & PTE_FRAME) >> 12)
        if frame.free or frame.queue in ("free", "cache"):
            pte = frame.ptes[pmap, va >> 12]
            where = "free" if frame.free else frame.queue
            raise self._violation(frame, pte, f"frame {frame.pfn} is {where} and is mapped at ")

    def _violation(self, frame: Frame, pte: Translation, message: str) -> Violation:
        shadow = self.shadow
        now = shadow.now()
        second = None if pte.installed == now else now
        return Violation(
            2,
            message + shadow.place(pte),
            check="free-frame",
            accesses=(pte.installed, second),
            frame=frame.pfn,
            owners=(shadow.owner(*pte.owner), shadow.owner_of(frame)),
            events=frame.history,
        )


class FreedAccess:
    """Nobody reads or writes a frame through a translation older than its owner."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow

    def mem_load(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        t = self.shadow.cached(cpu, pmap, va)
        if t is None:
            raise ValueError(f"cpu {cpu} accesses {va:#x} without a TLB entry: not a log of ours")
        if t.gen != t.frame.gen or t.frame.free:
            self._freed(cpu, t)

    mem_store = mem_load

    def mem_emulate(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        """By no translation; to whom the frame belongs, if to anybody, is in translation.py."""
        frame = self.shadow.frame(pfn)
        if frame.free:
            self._freed(cpu, Translation(pmap, va >> 12, frame, 0, frame.gen, self.shadow.now()))

    def mem_cmpset(
        self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int, ok: bool, old: int
    ) -> None:
        self.mem_load(cpu, pmap, va, pfn, idx, value)

    def _freed(self, cpu: int, t: Translation) -> None:
        shadow = self.shadow
        frame = t.frame
        verb = "reads" if shadow.event[0] == "mem.load" else "writes"
        if frame.free:
            what, when = "a freed frame", frame.freed
        else:
            what, when = f"a frame that now belongs to {shadow.owner_of(frame)}", _allocated(frame)
        before = when if when is not None and when.step > t.installed.step else t.installed
        raise Violation(
            2,
            f"cpu {cpu} {verb} {what}, through {shadow.place(t)}, "
            f"mapped when it was generation {t.gen}",
            check="freed-access",
            accesses=(before, shadow.now()),
            frame=frame.pfn,
            owners=(shadow.owner(*t.owner), shadow.owner_of(frame)),
            events=[t.installed, *(h for h in frame.history if h.step > t.installed.step)],
        )


def _allocated(frame: Frame) -> Happening | None:
    return next((h for h in reversed(frame.history) if h.name == "page.alloc"), None)

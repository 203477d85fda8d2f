"""Invariants 2 and 6 under nested paging: TLBs hold what the second stage maps, and no more.

Policy `nested` has no PTE for what a guest's process sees: the combination of the guest's page
table and the host's second stage is in TLBs only. That it agrees with the guest's half is checked
in translation.py. Here: it is made from a second-stage PTE to the same frame which permits as much;
and no CPU in use has it any more when the frame is freed or cached. Nor does a walk read the table
of a second stage that has been freed. (Of a PTE in one stage the
checks of ownership.py speak, and a use after the flush was missed is caught there.)
"""

from __future__ import annotations

from vkprotocol.events import QUEUES

from vkemu.oracle.frame import PTE_NX, PTE_RW, Frame, Id, Translation
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.violation import Happening, Violation


class SecondStage:
    """`walked`: there has been a nested walk."""

    def __init__(self, shadow: Shadow, frames: bool, rights: bool) -> None:
        self.shadow = shadow
        self.frames = frames
        self.rights = rights
        self.walked = False
        self.freed: dict[tuple[Id, int, int], Happening] = {}  # tables of second stages

    def ept_free(self, pmap: Id, slot: int, page: int) -> None:
        self.freed[pmap, slot, page] = self.shadow.now()

    def ept_read(self, cpu: int, pmap: Id, slot: int, page: int) -> None:
        freed = self.freed.get((pmap, slot, page))
        if freed is not None and self.frames:
            raise Violation(
                2,
                f"cpu {cpu} walks by page {page} of second-stage table {slot} of "
                f"{self.shadow.space(pmap)}, which has been freed",
                check="free-frame",
                accesses=(freed, self.shadow.now()),
            )

    def walk_end(self, cpu: int, pmap: Id, va: int, why: str, ept: Id, gpa: int) -> None:
        if why != "filled":
            return
        self.walked = True
        t = self.shadow.tlbs[cpu][pmap, va >> 12]
        second = self.shadow.ptes.get(ept, {}).get(gpa >> 12)
        t.nested = True
        if second is None or second.pfn != t.pfn:
            if self.frames:
                raise self._violation(2, t, f"cpu {cpu} caches what no second-stage PTE maps")
            return
        t.gen, t.owner = second.gen, second.owner
        if self.rights and t.bits & ~second.bits & PTE_RW | second.bits & ~t.bits & PTE_NX:
            raise self._violation(6, t, f"cpu {cpu} caches more than the second stage permits")

    def page_queue(self, pfn: int, old: int, new: int) -> None:
        if self.walked and QUEUES[new] == "cache":
            self._in_no_tlb(self.shadow.frame(pfn), "cached")

    def page_free(self, pfn: int, gen: int) -> None:
        if self.walked:
            self._in_no_tlb(self.shadow.frame(pfn), "freed")

    def _in_no_tlb(self, frame: Frame, what: str) -> None:
        if not self.frames:
            return
        for cpu, tlb in self.shadow.tlbs.items():
            for t in tlb.values():
                in_use = self.shadow.in_use.get(t.pmap, 0) >> cpu & 1
                if t.nested and t.frame is frame and in_use:
                    raise self._violation(
                        2, t, f"frame {frame.pfn} is {what}, and cpu {cpu} still has it cached"
                    )

    def _violation(self, invariant: int, t: Translation, message: str) -> Violation:
        shadow, now = self.shadow, self.shadow.now()
        return Violation(
            invariant,
            f"{message}: {shadow.place(t)}",
            check="free-frame" if invariant == 2 else "read-only",
            accesses=(t.installed, None if t.installed == now else now),
            frame=t.pfn,
            owners=(shadow.owner(*t.owner), shadow.owner_of(t.frame)),
            events=t.frame.history,
        )

"""Invariant 3: a managed PTE to a page exists => PG_MAPPED(page). Never the other way round."""

from __future__ import annotations

from typing import Final

from vkemu.oracle.frame import PTE_FRAME, PTE_MANAGED, PTE_V, Id
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.violation import Violation

PG_MAPPED: Final = 0x20


class MappedFlag:
    """PG_MAPPED is set before the first PTE is, and cleared after the last is gone."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow

    def pte_write(self, pmap: Id, va: int, old: int, new: int, why: str) -> None:
        if new & PTE_V and (not old & PTE_V or old & PTE_FRAME != new & PTE_FRAME):
            self._check((new & PTE_FRAME) >> 12, "is mapped while PG_MAPPED is clear")

    def page_flags(self, pfn: int, on: int, off: int) -> None:
        if off & PG_MAPPED:
            self._check(pfn, "loses PG_MAPPED while it is mapped")

    def _check(self, pfn: int, what: str) -> None:
        frame = self.shadow.frame(pfn)
        if frame.flags & PG_MAPPED:
            return
        for pte in frame.ptes.values():
            if pte.bits & PTE_MANAGED:
                now = self.shadow.now()
                raise Violation(
                    3,
                    f"frame {pfn} {what}, at {self.shadow.place(pte)}",
                    check="mapped-flag",
                    accesses=(pte.installed, None if pte.installed == now else now),
                    frame=pfn,
                    owners=(f"generation {pte.gen}", self.shadow.owner_of(frame)),
                    events=frame.history,
                )

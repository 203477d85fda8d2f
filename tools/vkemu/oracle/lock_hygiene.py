"""Invariant 8: the pageout daemon holds no map lock; nobody asks for the map lock while holding an
interlock of it; a fault has no two pages busied but the source and the target of a copy.
"""

from __future__ import annotations

from vkemu.oracle.frame import Id
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.violation import Happening, Violation


class LockHygiene:
    """What each thread holds: interlocks, and pages busied during a fault."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow
        self.ilocks: dict[tuple[str, Id], Happening] = {}
        self.busied: dict[str, dict[int, Happening]] = {}  # by actor, while it is in a fault

    def ilock_enter(self, vm_map: Id, start: int, end: int) -> None:
        now = self.shadow.now()
        self.ilocks[now.actor, vm_map] = now

    def ilock_exit(self, vm_map: Id, start: int, end: int) -> None:
        self.ilocks.pop((self.shadow.actor(), vm_map), None)

    def map_lock_wait(self, vm_map: Id, exclusive: bool) -> None:
        now = self.shadow.now()
        held = self.ilocks.get((now.actor, vm_map))
        if held is not None:
            raise self._violation(
                f"{now.actor} asks for the lock of {self.shadow.space(vm_map)} "
                "while holding an interlock of it",
                held,
            )
        pageout = ("pagedaemon", "emergpager")
        if now.actor.startswith(pageout):
            raise self._violation(f"{now.actor} asks for a map lock", None)

    def fault_begin(self, vm_map: Id, va: int, kind: str) -> None:
        self.busied[self.shadow.actor()] = {}

    def fault_end(self, vm_map: Id, va: int, result: str) -> None:
        self.busied.pop(self.shadow.actor(), None)

    def page_busy(self, pfn: int, kind: str) -> None:
        busied = self.busied.get(self.shadow.actor())
        # A cached page is busied only to be freed and allocated anew.
        if busied is None or kind != "hard" or self.shadow.frame(pfn).queue == "cache":
            return
        now = self.shadow.now()
        for other, since in busied.items():
            if not self._copies(other, pfn) or len(busied) > 1:
                raise self._violation(
                    f"{now.actor} busies frame {pfn} while it has {other} busied", since, pfn
                )
        busied[pfn] = now

    def page_alloc(self, pfn: int, gen: int, obj: Id, pindex: int) -> None:
        """An allocated page has been busied since it was found; now it has an identity."""
        busied = self.busied.get(self.shadow.actor())
        if busied is not None and pfn not in busied:
            busied[pfn] = self.shadow.now()

    def _copies(self, pfn: int, other: int) -> bool:
        """A page and one below it in the chain of shadows. One still without an owner is on its
        way to become the target."""
        a, b = self.shadow.frame(pfn), self.shadow.frame(other)
        return a.free or b.free or a.object != b.object

    def page_unbusy(self, pfn: int, kind: str) -> None:
        if kind == "hard":
            busied = self.busied.get(self.shadow.actor())
            if busied is not None:
                busied.pop(pfn, None)

    def _violation(
        self, message: str, first: Happening | None, frame: int | None = None
    ) -> Violation:
        return Violation(
            8,
            message,
            check="lock-hygiene",
            accesses=(first, self.shadow.now()),
            frame=frame,
            events=() if frame is None else self.shadow.frame(frame).history,
        )

"""Invariant 7: no two interlocks of a map overlap; who waits for one gets it; none is left over."""

from __future__ import annotations

from vkemu.oracle.frame import Id
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.violation import Happening, Violation

Range = tuple[int, int]


class Interlock:
    """`held`: the ranges of each map with who holds them."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow
        self.held: dict[Id, list[tuple[Range, Happening]]] = {}
        self.waiting: dict[tuple[str, Id], Happening] = {}

    def ilock_wait(self, vm_map: Id, start: int, end: int) -> None:
        self.waiting[self.shadow.actor(), vm_map] = self.shadow.now()

    def ilock_enter(self, vm_map: Id, start: int, end: int) -> None:
        now = self.shadow.now()
        self.waiting.pop((now.actor, vm_map), None)
        ranges = self.held.setdefault(vm_map, [])
        for (beg, stop), holder in ranges:
            if end > beg and start < stop:
                raise Violation(
                    7,
                    f"{now.actor} interlocks {start:#x}-{end:#x} of {self.shadow.space(vm_map)}, "
                    f"of which {holder.actor} holds {beg:#x}-{stop:#x}",
                    check="interlock",
                    accesses=(holder, now),
                )
        ranges.append(((start, end), now))

    def ilock_exit(self, vm_map: Id, start: int, end: int) -> None:
        ranges = self.held.get(vm_map, [])
        actor = self.shadow.actor()
        for i, (extent, holder) in enumerate(ranges):
            if extent == (start, end) and holder.actor == actor:
                del ranges[i]
                return
        raise Violation(
            7,
            f"{actor} gives up an interlock {start:#x}-{end:#x} of {self.shadow.space(vm_map)} "
            "which it does not hold",
            check="interlock",
            accesses=(None, self.shadow.now()),
        )

    def finish(self) -> None:
        """When all threads are idle."""
        for (actor, vm_map), since in self.waiting.items():
            raise Violation(
                7,
                f"{actor} was never woken from its wait for an interlock of "
                f"{self.shadow.space(vm_map)}",
                check="interlock",
                accesses=(since, None),
            )
        for vm_map, ranges in self.held.items():
            for (start, end), holder in ranges:
                raise Violation(
                    7,
                    f"{holder.actor} has kept its interlock {start:#x}-{end:#x} of "
                    f"{self.shadow.space(vm_map)}",
                    check="interlock",
                    accesses=(holder, None),
                )

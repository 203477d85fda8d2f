"""Which steps of an execution conflict: for those who tell it.

Not who races with whom - `trace` knows that, at a price that grows with the square of the length -
but which steps of other threads touch an object of a step's, one of the two writing.
"""

from __future__ import annotations

from bisect import bisect_left

from vkprotocol.effects import Effect

from vkemu.exploration.reduction.footprint import Footprint, Objects


class Conflicts:
    """Invariant: `rivals[code][tid]` are the steps of `tid` that a step with that code depends on:
    for a load who wrote the object, for a write who touched it; in order."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.tids: list[int] = []
        self.footprints: list[Footprint] = []
        self.rivals: dict[int, dict[int, list[int]]] = {}

    def add(self, tid: int, effect: Effect) -> None:
        """Thread `tid` executes `effect`: call it just before the step."""
        footprint = self.objects.footprint(effect)
        here = len(self.tids)
        for code in footprint:
            self.rivals.setdefault(code | 1, {}).setdefault(tid, []).append(here)
            if code & 1:
                self.rivals.setdefault(code - 1, {}).setdefault(tid, []).append(here)
        self.tids.append(tid)
        self.footprints.append(footprint)

    def of(self, step: int) -> tuple[int, ...]:
        """The steps of other threads that this one conflicts with."""
        all_steps = 1_000  # of a longer execution, of each thread the nearest before and after
        most = len(self.tids) if len(self.tids) <= all_steps else 1
        found: set[int] = set()
        for code in self.footprints[step]:
            for tid, steps in self.rivals.get(code, {}).items():
                if tid != self.tids[step]:
                    at = bisect_left(steps, step)
                    found.update(steps[max(0, at - most) : at + most])
        return tuple(sorted(found))

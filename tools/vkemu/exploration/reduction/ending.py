"""What `at_end` can see that is no shared object: variables, fields, what is inside of containers.

It is asked once, of what the last of the steps that change such a thing has left. Where two of them
are in no order, the trace does not say which that is: whatever is done to the objects that these
steps are on is then taken for a write of one object, as if an `always` looked at them. A step that
writes what is there already is not seen, nor is what nobody can follow: a remark says so.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import FunctionType
from typing import TYPE_CHECKING, Any

from vkemu.exploration.inside import loose
from vkemu.exploration.reach import Reach, Spot, holds
from vkemu.exploration.reduction.footprint import Objects
from vkemu.exploration.reduction.observation import shut
from vkemu.exploration.reduction.trace import Trace
from vkemu.exploration.run import named
from vkemu.exploration.waits import MAKERS, lists

if TYPE_CHECKING:
    from vkemu.exploration.program import Program

Step = Callable[[int], bool]


def closed(thing: Any) -> bool:
    """Not looked into; nor are those that have made what there is."""
    return shut(thing) or (isinstance(thing, FunctionType) and thing.__name__ in MAKERS)


class Ending:
    """The steps on the path that have changed what a predicate sees: event, number of that."""

    def __init__(self, objects: Objects, trace: Trace) -> None:
        self.objects = objects
        self.trace = trace
        self.changes: list[tuple[int, int]] = []
        self.grown = False  # more is known than was

    def stepping(self, program: Program, step: Step) -> Step:
        """New steps come now, with this: `step`, and a look at what it has changed."""
        changes = self.changes
        while changes and changes[-1][0] >= len(self.trace):
            changes.pop()
        seen: list[tuple[int, list[Spot]]] = []
        if not self.objects.all_seen:
            ends = program.ends
            moving = program.guards.moving_ends(ends).items()
            seen = [(n, (flat and lists(ends[n])) or self.look(program, n)) for n, flat in moving]
        if not any(spots for _, spots in seen):
            return step

        def taken(tid: int) -> bool:
            going = step(tid)
            for n, spots in seen:
                changed = [spot for spot in spots if spot.changed()]
                if changed:
                    self.changes.append((len(self.trace) - 1, n))
                    self.say(
                        program,
                        n,
                        "reads variables that steps change: those that write what "
                        "is there already are not told apart; check=True looks for them",
                    )
                    for spot in changed:
                        spot.held[:] = holds(spot.thing, spot.names)
                    if any(loose(spot.held) for spot in changed):
                        spots[:] = self.look(program, n)
            return going

        return taken

    def look(self, program: Program, n: int) -> list[Spot]:
        reach = Reach(program.ends[n], closed)
        if reach.unknown:
            why = f"reads {reach.unknown}, which cannot be followed: orders that differ in that"
            self.say(program, n, f"{why} alone are taken for one")
        return reach.spots()

    def say(self, program: Program, n: int, why: str) -> None:
        if not self.objects.ended and not program.check:
            self.objects.ended = f"at_end: {named(program.ends[n])} {why}"
            self.grown = True

    def unordered(self) -> bool:
        """The execution is over. True when more depends on what was changed than was known."""
        trace, objects = self.trace, self.objects
        grown, self.grown = self.grown, False
        for n in dict.fromkeys(n for _, n in self.changes):
            events = [event for event, of in self.changes if of == n]
            if any(not trace.clocks[late] >> early & 1 for early, late in pairwise(events)):
                for event in events:
                    grown |= objects.count(trace.effects[event].obj)
        return grown

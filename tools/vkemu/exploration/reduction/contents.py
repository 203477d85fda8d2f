"""What shared objects hold that can be changed where it is: a list out of a cell, appended to.

No effect says so, and what is not known counts as touched: a step that changes what an object holds
is taken for one that writes the object. Where it announces a load, loads of that object are writes
from then on. Where it announces something else, that makes no difference when it is before or after
whatever touches the object; else every step counts. What somebody has got out of a queue is his.

Of numbers, texts, and tuples of such nothing is looked at but their types, after an execution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vkprotocol.effects import Cell, Shared, Thread, key_text

from vkemu.exploration.inside import CONSTANT
from vkemu.exploration.reach import Reach, Spot
from vkemu.exploration.reduction.footprint import Objects
from vkemu.exploration.reduction.observation import shut
from vkemu.exploration.reduction.trace import Trace
from vkemu.exploration.reduction.unannounced import open_to

if TYPE_CHECKING:
    from vkemu.exploration.run import Run


def changing(state: Any) -> Iterator[Any]:
    """What in it may be changed, outermost first."""
    todo, seen = [state], set()
    while todo:
        thing = todo.pop()
        if isinstance(thing, tuple) and id(thing) not in seen:
            seen.add(id(thing))
            todo += reversed(thing)
        elif type(thing) not in CONSTANT and not isinstance(thing, tuple) and not known(thing):
            yield thing


def known(thing: Any) -> bool:
    """Whether effects say what becomes of it."""
    return shut(thing) or isinstance(thing, Thread)


class Kept:
    """Something that an object holds, or held."""

    def __init__(self, shared: Shared, thing: Any) -> None:
        self.shared = shared
        self.thing = thing
        self.owner = -1  # the thread that has got it out, and nobody else has
        self.spots: list[Spot] = []

    def look(self) -> str | None:
        """Take it as it is now. What in it cannot be followed is returned."""
        reach = Reach(self.thing, known, whole=True)
        self.spots = reach.spots()
        return reach.unknown

    def changed(self) -> bool:
        return any(spot.changed() for spot in self.spots)


class Contents:
    """What is held on the path, and the steps that have changed it and said something else."""

    def __init__(self, objects: Objects, trace: Trace) -> None:
        self.objects = objects
        self.trace = trace
        self.kept: dict[tuple[int, int], Kept] = {}  # by object and thing, which stay what they are
        # The event, what holds the thing, and the event after which that was known.
        self.changes: list[tuple[int, Shared, int]] = []
        self.changed: list[tuple[int, Any]] = []  # events of this execution, and things
        self.grown = False  # more is taken for a write than was

    def stepping(self, run: Run) -> Callable[[int], bool]:
        """New steps come now, with this: `execution.step`, and what has become of what is held."""
        changes = self.changes
        while changes and changes[-1][2] >= len(self.trace):
            changes.pop()
        self.kept = {}
        self.changed = []
        for shared in run.program.made():
            self.hold(shared, -1)
        execution, fresh = run.execution, run.program.fresh

        def step(tid: int) -> bool:
            effect = execution.threads[tid].pending
            assert effect is not None
            touched = effect.obj, *(shared for shared, _ in effect.also)
            there = len(fresh)
            going = execution.step(tid)
            self.stepped(tid)
            for shared in (*touched, *fresh[there:]):
                self.hold(shared, tid)
            return going

        return step

    def hold(self, shared: Shared, tid: int) -> None:
        """A step of thread `tid` has touched it."""
        here = {id(thing): thing for thing in changing(shared.state)}
        for (of, name), kept in self.kept.items():
            if of == id(shared) and name not in here and kept.owner < 0:
                # Who has loaded what a cell held has it too.
                kept.owner = -1 if isinstance(shared, Cell) else tid
        for name, thing in here.items():
            at = id(shared), name
            if at not in self.kept:  # a step that changed it may come after
                self.kept[at] = Kept(shared, thing)
                last = len(self.trace) - 1
                before = self.trace.clocks[last] if self.changed else 0
                self.changes += [
                    (n, shared, last)
                    for n, one in self.changed
                    if one is thing and not before >> n & 1
                ]
            kept = self.kept[at]
            kept.owner = -1
            if not kept.spots and kept.look() is not None:
                self.grown |= self.objects.order(shared.key)

    def stepped(self, tid: int) -> None:
        last = len(self.trace) - 1
        footprint = self.trace.footprints[last]
        for kept in self.kept.values():
            if not kept.changed():
                continue
            kept.look()
            self.changed.append((last, kept.thing))
            load = 2 * self.objects.number(kept.shared)
            if load in footprint:
                self.grown |= self.objects.order(kept.shared.key)
            elif load + 1 not in footprint and kept.owner != tid:
                self.changes.append((last, kept.shared, last))

    def unordered(self) -> bool:
        """The execution is over. True when more depends on what was changed than was known."""
        trace = self.trace
        for event, shared, _ in self.changes:
            code = 2 * self.objects.number(shared) + 1
            touched = trace.rivals[code] if code < len(trace.rivals) else 0
            for other, changed, _ in self.changes:
                touched |= (changed is shared) << other
            if not self.objects.all_seen and open_to(trace, event, touched):
                key = key_text(shared.key)
                self.objects.see_all(
                    f"what {key} holds is changed by steps on something else: every step counts; "
                    "store another in its place"
                )
                self.grown = True
        return self.grown

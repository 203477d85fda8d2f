"""What an `always` predicate can see.

The predicate is checked after every step, so it tells apart executions that a reduction takes for
one. Whatever it may read must count: every write to a shared object in its sight is also a write
of one common object (`footprint.VIEW`), and the order of all of them is explored. A load that
changes its object, of a lock that is taken shared, is a write for who looks.

Its sight is what it can reach (`reach`), and what it is seen to look at while it runs. Where that
is a variable, a list, a field, whose content a step changes, nobody can tell which other steps do,
or in which order; where it ends in something nobody knows the inside of, not even that. Nor where a
shared object holds what can be changed by who has got hold of it. Then every step counts: sound,
and no reduction at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from vkprotocol import effects as _effects
from vkprotocol.effects import Shared, key_text

from vkemu.exploration.inside import is_fixed
from vkemu.exploration.primitives import meeting as _meeting
from vkemu.exploration.primitives import objects as _objects
from vkemu.exploration.primitives.channel import Channel, Receiver, Sender
from vkemu.exploration.primitives.objects import Condition
from vkemu.exploration.program import Program
from vkemu.exploration.reach import Reach, Spot
from vkemu.exploration.reduction.footprint import Objects
from vkemu.exploration.run import named

# Whose shared objects have nothing but their state that changes.
PLAIN: Final = (
    _effects.__name__, _objects.__name__, _meeting.__name__, Channel.__module__,
)  # fmt: skip


def shut(thing: Any) -> bool:
    return isinstance(thing, (Shared, Condition, Sender, Receiver, Program))


class Sight:
    """Of one predicate, as things are now."""

    def __init__(self, predicate: Callable[[], Any]) -> None:
        reach = Reach(predicate, shut)
        self.shared: list[Shared] = []
        self.unknown = reach.unknown
        of_k = ("execution", "threads", "_roots", "_ends")
        for name, thing in reach.things:
            if isinstance(thing, Condition):
                self.shared += [thing.channel, thing.lock]
            elif isinstance(thing, (Sender, Receiver)):
                self.shared.append(thing.channel)
            elif isinstance(thing, Shared):
                self.shared.append(thing)
                if type(thing).__module__ not in PLAIN:
                    self.unknown = self.unknown or name
            elif isinstance(thing, Program) and any(map(reach.names.__contains__, of_k)):
                self.unknown = self.unknown or name
        self.spots: list[Spot] = [] if self.unknown else reach.spots()


class View:
    """What the predicates of a program see, in one execution after another."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.spots: list[tuple[Spot, Callable[[], Any]]] = []
        self.held: dict[Shared, tuple[Any, list[Spot]]] = {}  # its state, and what is in it
        self.predicates: list[Callable[[], Any]] = []
        self.grown = False  # it is more than was known

    def look(self, program: Program) -> None:
        """Before the first new step of an execution: take note of what is in sight."""
        self.spots = []
        self.held = {}
        if self.objects.all_seen:
            return
        self.predicates = program.invariants
        for predicate, reads in zip(program.invariants, program.reads, strict=True):
            if reads is not None:
                for thing in reads:
                    self.saw(thing)
                continue
            sight = Sight(predicate)
            if sight.unknown:
                self.see_all(predicate, f"reads {sight.unknown}, which cannot be followed")
                return
            for thing in sight.shared:
                self.saw(thing)
            self.spots += [(spot, predicate) for spot in sight.spots]

    def saw(self, thing: Any) -> None:
        """A predicate looks at it."""
        if isinstance(thing, Shared) and not self.objects.all_seen:
            if thing not in self.held:
                self.held[thing] = thing.state, self.spots_in(thing.state)
            if self.objects.see(thing):
                self.grown = True

    def stepped(self) -> None:
        """A step was taken: has it changed what can be seen without an effect?"""
        for spot, predicate in self.spots:
            if spot.changed():
                self.see_all(predicate, "reads variables that steps change")
                return
        for shared, (before, spots) in self.held.items():
            if shared.state is not before:
                self.held[shared] = shared.state, self.spots_in(shared.state)
            elif spots and any(spot.changed() for spot in spots):
                key = key_text(shared.key)
                self.count_all(
                    f"always: what {key} holds is changed, and not {key}: every step counts"
                )
                return

    def spots_in(self, state: Any) -> list[Spot]:
        """Where what a shared object holds can become something else, and nobody stores it."""
        if is_fixed(state):
            return []
        names = [name for predicate in self.predicates for name in Reach(predicate, shut).names]
        return Reach(state, shut, names=names).spots()

    def see_all(self, predicate: Callable[[], Any], why: str) -> None:
        self.count_all(
            f"always: {named(predicate)} {why}: every step counts; "
            "say reads=[...] where it looks at shared objects only"
        )

    def count_all(self, why: str) -> None:
        self.spots = []
        self.held = {}
        if not self.objects.all_seen:
            self.objects.see_all(why)
            self.grown = True

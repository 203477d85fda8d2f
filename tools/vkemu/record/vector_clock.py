"""Vector clocks of a recorded run: for each step, how many steps of each actor happened before it.

Happens-before is the explorer's (`exploration.reduction.trace`): the order of an actor's steps, of
dependent steps - on one object, not both loads - of a spawn before what is spawned, and, since a
timer fires only when nothing can run, of everything before an advance of the virtual clock before
everything after it. (Fidge 1988, Mattern 1989.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Final, TypeAlias

from vkprotocol.effects import CLOCK, CURTHREAD, Key, Thread

from vkemu.executors.controlled import Choose, Execution

Clock: TypeAlias = list[int]  # by actor; actors beyond its end are 0
Footprint: TypeAlias = Sequence[tuple[Key, bool]]  # (object, is it written)
Seen: TypeAlias = tuple[int, int, Clock]  # actor, the number of its step, the clock

NOBODY: Final = -1


def join(into: Clock, other: Clock) -> None:
    """`into` becomes the least clock not before either."""
    missing = len(other) - len(into)
    if missing > 0:
        into += [0] * missing
    for i, count in enumerate(other):
        if count > into[i]:
            into[i] = count


def _known(clock: Clock, seen: Seen) -> bool:
    actor, count, _ = seen
    return actor != NOBODY and actor < len(clock) and clock[actor] >= count


class VectorClocks:
    """The clocks of one run, fed step by step.

    Invariant: `written[key]` is the clock of the last write of `key`, `touched[key]` the join of
    those of all accesses to it. Either says whose step it is the clock of, and which: a clock that
    knows of this step is not before it, and need not be compared any further (an epoch of
    FastTrack, Flanagan and Freund 2009). A join of several is nobody's.
    """

    def __init__(self) -> None:
        self.actors: dict[str, int] = {}
        self._clocks: list[Clock] = []
        self._written: dict[Key, Seen] = {}
        self._touched: dict[Key, Seen] = {}
        self._barrier: Clock = []

    def step(self, actor: str, footprint: Footprint) -> None:
        """`actor` takes a step with this footprint."""
        me = self._number(actor)
        clock = self._clocks[me]
        clock += [0] * (len(self._clocks) - len(clock))
        for key, write in footprint:
            seen = (self._touched if write else self._written).get(key)
            if seen is not None and not _known(clock, seen):
                join(clock, seen[2])
        clock[me] += 1
        now = (me, clock[me], clock.copy())
        for key, write in footprint:
            if write:
                self._written[key] = now
            seen = self._touched.get(key)
            if write or seen is None or _known(clock, seen):
                self._touched[key] = now
            else:
                joined = seen[2] if seen[0] == NOBODY else seen[2].copy()
                join(joined, clock)
                self._touched[key] = (NOBODY, 0, joined)

    def of(self, actor: str) -> dict[str, int]:
        """The clock of the actor's last step, itself included."""
        counts = self._clocks[self._number(actor)]
        # All of it in C: there may be hundreds of actors, and a clock for each event.
        known = compress(self.actors, counts)
        return dict(zip(known, filter(None, counts), strict=True))

    def spawned(self, child: str, parent: str | None) -> None:
        """`parent` starts `child` in the step it is taking; None: set-up does."""
        number = self._number(child)
        if parent is not None:
            join(self._clocks[number], self._clocks[self._number(parent)])

    def advanced(self) -> None:
        """The virtual clock moves. Nobody knows more of an actor than itself, so that all there is
        to know is what each knows of itself."""
        barrier = [clock[n] if n < len(clock) else 0 for n, clock in enumerate(self._clocks)]
        self._barrier = barrier
        self._clocks = [barrier.copy() for _ in barrier]

    def _number(self, actor: str) -> int:
        number = self.actors.get(actor)
        if number is None:
            number = self.actors[actor] = len(self.actors)
            self._clocks.append(self._barrier.copy())
        return number


class Clocked:
    """A `choose` that keeps the vector clock of the step it is about to let happen."""

    def __init__(self, execution: Execution, choose: Choose) -> None:
        self.execution = execution
        self.choose = choose
        self.clocks = VectorClocks()
        self._actor = ""  # whose step is under way; "" during the set-up
        self._clock: dict[str, int] | None = {}  # of it, once it was asked for
        self._names: dict[int, str] = {}
        self._taken: set[str] = set()
        self._t = CLOCK[0]
        self._on_spawn = execution.on_spawn
        execution.on_spawn = self._spawned
        for thread in execution.threads.values():
            self.clocks.spawned(self.name(thread), None)

    @property
    def clock(self) -> dict[str, int]:
        """Of the step under way; empty during the set-up."""
        if self._clock is None:
            self._clock = self.clocks.of(self._actor)
        return self._clock

    def name(self, thread: Thread) -> str:
        """Its name, made unique: an actor each."""
        known = self._names.get(thread.tid)
        if known is None:
            known = thread.name
            if known in self._taken:
                known = f"{thread.name}#{thread.tid}"
            self._names[thread.tid] = known
            self._taken.add(known)
        return known

    def _spawned(self, thread: Thread) -> None:
        parent = CURTHREAD[0]
        known = parent is not None and parent.tid in self._names
        self.clocks.spawned(self.name(thread), self.name(parent) if parent and known else None)
        if self._on_spawn is not None:
            self._on_spawn(thread)

    def __call__(self, runnable: list[int]) -> int:
        tid = self.choose(runnable)
        self.note(self.execution.threads[tid])
        return tid

    def note(self, thread: Thread) -> None:
        """`thread` is about to take its step."""
        effect = thread.pending
        assert effect is not None
        if CLOCK[0] != self._t:
            self._t = CLOCK[0]
            self.clocks.advanced()
        footprint = [(effect.obj.key, effect.write)]
        if effect.also:
            footprint += [(shared.key, write) for shared, write in effect.also]
        self._actor = self.name(thread)
        self.clocks.step(self._actor, footprint)
        self._clock = None


def happens_before(one: dict[str, int], actor: str, other: dict[str, int]) -> bool:
    """Whether the step of `actor` with clock `one` happens before the step with clock `other`."""
    return one != other and one[actor] <= other.get(actor, 0)

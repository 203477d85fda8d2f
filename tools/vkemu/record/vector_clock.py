"""Vector clocks of a recorded run: for each step, how many steps of each actor happened before it.

Happens-before is the explorer's (`exploration.reduction.trace`): the order of an actor's steps, of
dependent steps - on one object, not both loads - of a spawn before what is spawned, and, since a
timer fires only when nothing can run, of everything before an advance of the virtual clock before
everything after it. (Fidge 1988, Mattern 1989.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import TypeAlias

import orjson
from vkprotocol.effects import CLOCK, CURTHREAD, Key, Thread

from vkemu.executors.controlled import Choose, Execution

Clock: TypeAlias = list[int]  # by actor; actors beyond its end are 0. Never changed, but replaced
Footprint: TypeAlias = Sequence[tuple[Key, bool]]  # (object, is it written)
Seen: TypeAlias = tuple[int, int, Clock]  # actor, the number of its step, what it knew of others


def _joined(clock: Clock, seen: Seen) -> Clock:
    """The least clock not before either."""
    actor, count, other = seen
    pairs = zip(clock, other, strict=False)
    joined = [one if one > two else two for one, two in pairs]  # noqa: FURB136 - twice as fast
    joined += (clock if len(clock) > len(other) else other)[len(joined) :]
    joined += [0] * (actor + 1 - len(joined))
    joined[actor] = max(joined[actor], count)
    return joined


class Accesses:
    """The last write of an object, and who has read it since: the last time each did."""

    __slots__ = ("reads", "write")

    def __init__(self) -> None:
        self.write: Seen | None = None
        self.reads: dict[int, Seen] = {}


class VectorClocks:
    """The clocks of one run, fed step by step.

    What an actor knows of itself is a number of its own, so that a step which learns nothing of
    others, as most do, costs no clock.

    A clock that knows of a step is not before it, and need not be compared any further (an epoch
    of FastTrack, Flanagan and Freund 2009).
    """

    def __init__(self) -> None:
        self.actors: dict[str, int] = {}
        self._counts: list[int] = []  # steps of each actor
        self._clocks: list[Clock] = []  # what it knows of the others
        self._accesses: dict[Key, Accesses] = {}
        self._barrier: Clock = []

    def step(self, actor: str, footprint: Footprint) -> None:
        """`actor` takes a step with this footprint."""
        me = self._number(actor)
        accesses = self._accesses
        touched = []
        for key, write in footprint:
            known = accesses.get(key)
            if known is None:
                known = accesses[key] = Accesses()
            elif known.write is not None:
                self._learn(me, known.write)
            if write and known.reads:
                for seen in known.reads.values():
                    self._learn(me, seen)
            touched.append((known, write))
        count = self._counts[me] = self._counts[me] + 1
        now = (me, count, self._clocks[me])
        for known, write in touched:
            if not write:
                known.reads[me] = now
            else:
                known.write = now
                if known.reads:
                    known.reads = {}

    def step_on(self, actor: str, key: Key, write: bool) -> None:
        """A step that touches one object, as most do: `step` spelt out."""
        me = self.actors.get(actor)
        if me is None:
            me = self._number(actor)
        known = self._accesses.get(key)
        if known is None:
            known = self._accesses[key] = Accesses()
        seen = known.write
        if seen is not None and seen[0] != me:
            self._learn(me, seen)
        reads = known.reads
        if write and reads:
            for seen in reads.values():
                self._learn(me, seen)
            known.reads = {}
        count = self._counts[me] = self._counts[me] + 1
        now = (me, count, self._clocks[me])
        if write:
            known.write = now
        else:
            reads[me] = now

    def _learn(self, me: int, seen: Seen) -> None:
        actor, count, _ = seen
        if actor != me:
            clock = self._clocks[me]
            if actor >= len(clock) or clock[actor] < count:
                self._clocks[me] = _joined(clock, seen)

    def of(self, actor: str) -> dict[str, int]:
        """The clock of the actor's last step, itself included."""
        me = self._number(actor)
        counts = _joined([], (me, self._counts[me], self._clocks[me]))
        # All of it in C: there may be hundreds of actors.
        known = compress(self.actors, counts)
        return dict(zip(known, filter(None, counts), strict=True))

    def count(self, actor: str) -> int:
        """How many steps it has taken."""
        return self._counts[self._number(actor)]

    def learnt(self, actor: str) -> Clock:
        """What it knows of others: the same list until it learns more."""
        return self._clocks[self._number(actor)]

    def spawned(self, child: str, parent: str | None) -> None:
        """`parent` starts `child` in the step it is taking; None: set-up does."""
        number = self._number(child)
        if parent is not None:
            me = self._number(parent)
            seen = (me, self._counts[me], self._clocks[me])
            self._clocks[number] = _joined(self._clocks[number], seen)

    def advanced(self) -> None:
        """The virtual clock moves. Nobody knows more of an actor than itself, so that all there is
        to know is what each knows of itself."""
        self._barrier = self._counts.copy()
        self._clocks = [self._barrier] * len(self._clocks)

    def _number(self, actor: str) -> int:
        number = self.actors.get(actor)
        if number is None:
            number = self.actors[actor] = len(self.actors)
            self._counts.append(0)
            self._clocks.append(self._barrier)
        return number


class Clocked:
    """A `choose` that keeps the vector clock of the step it is about to let happen."""

    def __init__(self, execution: Execution, choose: Choose) -> None:
        self.execution = execution
        self.choose = choose
        self.clocks = VectorClocks()
        self._actor = ""  # whose step is under way; "" during the set-up
        self._clock: dict[str, int] | None = {}  # of it, once it was asked for
        self._texts: dict[str, tuple[Clock, bytes, bytes]] = {}
        self._keys: list[bytes] = []  # of the actors in JSON, in a format
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

    @property
    def text(self) -> tuple[bytes, ...]:
        """`clock` as JSON, in pieces. Of what its actor has learnt of others it is made once."""
        actor = self._actor
        if not actor:
            return (b"{}",)
        learnt = self.clocks.learnt(actor)
        known = self._texts.get(actor)
        if known is None or known[0] is not learnt:
            known = self._texts[actor] = (learnt, *self._around(actor, learnt))
        return known[1], b"%d" % self.clocks.count(actor), known[2]

    def _around(self, actor: str, learnt: Clock) -> tuple[bytes, bytes]:
        """The clock as JSON, before and after what the actor knows of itself."""
        actors, keys = self.clocks.actors, self._keys
        for name in list(actors)[len(keys) :]:
            keys.append(orjson.dumps(name).replace(b"%", b"%%") + b":")
        me = actors[actor]
        before = _said(keys, learnt[:me])
        after = _said(keys[me + 1 :], learnt[me + 1 :])
        own = keys[me] % ()
        return b"{" + before + b"," * bool(before) + own, b"," * bool(after) + after + b"}"

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
        actor = self._actor = self._names.get(thread.tid) or self.name(thread)
        if also := effect.also:
            footprint = [(effect.obj.key, effect.write)]
            footprint += [(shared.key, write) for shared, write in also]
            self.clocks.step(actor, footprint)
        else:
            self.clocks.step_on(actor, effect.obj.key, effect.write)
        self._clock = None


def _said(keys: list[bytes], counts: Clock) -> bytes:
    """What is known, without the braces."""
    known = list(compress(keys, counts))
    return b"%d,".join([*known, b""])[:-1] % tuple(filter(None, counts))


def happens_before(one: dict[str, int], actor: str, other: dict[str, int]) -> bool:
    """Whether the step of `actor` with clock `one` happens before the step with clock `other`."""
    return one != other and one[actor] <= other.get(actor, 0)

"""The happens-before relation of the execution under way, as bitsets.

Events are numbered in the order they were executed. The *clock* of an event is the set of events
that happen before it, itself included, as a Python int with one bit an event. Per object two ints
say who touched it and who wrote it; per thread one says which events are its own. Everything else
- who races with whom, what commutes with what - is a few operations on these ints.

A race is between two events of different threads on one object, one of them a write, with nothing
between them in happens-before. A *guarded* event can race only with an event it could have come
before: where the last write made its guard true (a release, for an acquire), the race is with the
latest write before which the guard held. A thread that waits for good races the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from vkprotocol.effects import Effect, Shared, Thread

from vkemu.executors.announced import may_go_on
from vkemu.executors.controlled import Execution
from vkemu.exploration.primitives.scopes import Interruption
from vkemu.exploration.primitives.together import States, Together
from vkemu.exploration.record import Record
from vkemu.exploration.reduction import commuting, interrupted, several
from vkemu.exploration.reduction.footprint import Footprint, Objects, Race

Births: TypeAlias = Iterable[tuple[int, int]]  # a thread, and the event that spawned it or -1


class Trace(Record):
    """Invariant: clocks[e] has bit e, and no bit above it."""

    __slots__ = (
        "barrier", "befores", "births", "clocks", "footprints", "objects", "own", "races", "rivals",
    )  # fmt: skip

    def __init__(self, objects: Objects) -> None:
        super().__init__()
        self.objects = objects
        self.footprints: list[Footprint] = []
        self.clocks: list[int] = []
        self.befores: list[object] = []  # state of the event's object just before it
        self.races: list[Race] = []
        # By code: the events it depends on. For a load, who wrote the object; for a write, who
        # touched it.
        self.rivals: list[int] = [0] * len(objects.single)
        self.own: list[int] = []  # by thread: its events
        self.births: list[int] = []  # by thread: the event that spawned it, or -1
        self.barrier = 0

    def spawned(self, thread: Thread) -> None:
        """A thread was spawned in the step of the last event (or in set-up, when there is none)."""
        self._grow(thread.tid)
        self.births[thread.tid] = len(self.tids) - 1

    def _touch(self, tid: int, footprint: Footprint, bit: int) -> int:
        """The events a new one depends on, having made room for it."""
        self._grow(tid)
        rivals = self.rivals
        rivals += [0] * (len(self.objects.single) - len(rivals))
        met = 0
        for code in footprint:
            met |= rivals[code]
            rivals[code | 1] |= bit
            if code & 1:
                rivals[code - 1] |= bit
        return met & (bit - 1)

    def _grow(self, tid: int) -> None:
        while len(self.own) <= tid:
            self.own.append(0)
            self.births.append(-1)

    def past_of(self, tid: int) -> int:
        """What happens before whatever thread `tid` does next."""
        if tid >= len(self.own):
            self._grow(tid)
        own = self.own[tid]
        if own:
            return self.clocks[own.bit_length() - 1] | self.barrier
        birth = self.births[tid]
        return (self.clocks[birth] if birth >= 0 else 0) | self.barrier

    def add(self, tid: int, effect: Effect) -> Footprint:
        """The event of thread `tid` executing `effect`: call it just before the step."""
        objects = self.objects
        shared = effect.obj
        number = shared.index
        if number < 0:
            number = objects.number(shared)
        if effect.also:
            footprint = objects.footprint(effect)
        else:
            footprint = objects.single[number + number + effect.write]
        rivals = self.rivals
        clocks = self.clocks
        owns = self.own
        n = len(clocks)
        bit = 1 << n
        met = 0
        try:
            own = owns[tid]
            for code in footprint:
                met |= rivals[code]
                rivals[code | 1] |= bit
                if code & 1:
                    rivals[code - 1] |= bit
        except IndexError:  # the first of the thread, or of an object
            met = self._touch(tid, footprint, bit)
            own = owns[tid]
        if own and not self.barrier:
            past = clocks[own.bit_length() - 1]
        else:
            past = self.past_of(tid)
        clock = past
        met &= ~past
        if met:
            if effect.guard is None and (type(effect) is Effect or not objects.computed(effect)):
                note = self.races.append
                while met:
                    rival = met.bit_length() - 1
                    note((rival, n, tid, footprint, past, ()))
                    clock |= clocks[rival]
                    met &= ~clock
            else:
                clock = self._meet(tid, effect, footprint, past, met)
        owns[tid] = own | bit
        self.tids.append(tid)
        self.effects.append(effect)
        self.footprints.append(footprint)
        clocks.append(clock | bit)
        self.befores.append(shared.state)
        return footprint

    def _meet(self, tid: int, effect: Effect, footprint: Footprint, past: int, met: int) -> int:
        """Note the races of a new event, `met` being the events it depends on. Its clock.

        For effects with a guard, or with a footprint they compute.
        """
        unsure = self.objects.unsure
        if type(effect.obj) is Together and effect.guard is not None and not unsure:
            return several.meet(self, tid, effect, footprint, past, met)
        if type(effect) is Interruption and not unsure:
            return interrupted.meet(self, tid, effect, footprint, past, met)
        n = len(self.tids)
        clocks = self.clocks
        known = None if self.objects.computed(effect) else footprint
        # Events that may have been what made the guard true: not all of them can come later.
        makers = 0
        commutes = False
        if effect.guard is not None and not unsure:
            makers = self.rivals[2 * effect.obj.index + effect.write]
            commutes = hasattr(effect.obj, "commute")
        late = False
        clock = past
        while met:
            rival = met.bit_length() - 1
            if makers >> rival & 1 and (commutes or not self._held_before(effect, rival)):
                late = True
            else:
                self.races.append((rival, n, tid, known, past, ()))
            clock |= clocks[rival]
            met &= ~clock
        if late:
            openings = self._openings(effect, past, n)
            self.races += [(first, n, tid, known, past, without) for first, without in openings]
        return clock

    def _held_before(self, effect: Effect, event: int) -> bool:
        return may_go_on(effect, self.before(event, effect.obj))

    def before(self, event: int, shared: Shared) -> object:
        """The state of an object just before an event that touches it."""
        before = self.befores[event]
        if type(before) is States:
            return self.effects[event].obj.before(before, shared)  # type: ignore[attr-defined]
        return before

    def _openings(self, effect: Effect, past: int, n: int) -> list[tuple[int, tuple[int, ...]]]:
        """The rivals a guarded effect could come before, and what else has to come after it then.

        The effect is at `n`, and has to be after `past`. It is the latest write before which the
        guard held; or, where loads change the object, every load since then that can be left out.
        """
        number = effect.obj.index
        found: list[tuple[int, tuple[int, ...]]] = []
        candidates = self.rivals[2 * number + effect.write] & ~past & ((1 << n) - 1)
        while candidates:
            event = candidates.bit_length() - 1
            candidates ^= 1 << event
            if self.rivals[2 * number] >> event & 1:
                if not found and self._held_before(effect, event):
                    found.append((event, ()))
                if found:
                    break
            elif hasattr(effect.obj, "commute"):
                without = commuting.opening(self, effect, event, past, n)
                if without is not None:
                    found.append((event, without))
        return found

    def add_after(
        self, tid: int, effect: Effect, footprint: Footprint, must: int, births: Births
    ) -> None:
        """The event of thread `tid`, whose step was taken: it touched `footprint`, and had to come
        after the events `must`. `births` are the threads it brought about."""
        clocks = self.clocks
        n = len(clocks)
        bit = 1 << n
        met = self._touch(tid, footprint, bit)
        past = self.after(self.past_of(tid), must)
        met &= ~past
        clock = past
        while met:
            rival = met.bit_length() - 1
            self.races.append((rival, n, tid, footprint, past, ()))
            clock |= clocks[rival]
            met &= ~clock
        self.own[tid] |= bit
        self.tids.append(tid)
        self.effects.append(effect)
        self.footprints.append(footprint)
        clocks.append(clock | bit)
        self.befores.append(None)
        for born, parent in births:
            self._grow(born)
            self.births[born] = parent

    def after(self, past: int, events: int) -> int:
        """`past` with some events, and all that happens before them."""
        events &= ~past
        while events:
            past |= self.clocks[events.bit_length() - 1]
            events &= ~past
        return past

    def waiting(self, execution: Execution) -> list[Race]:
        """Races of the threads that cannot go on."""
        found: list[Race] = []
        n = len(self.tids)
        for tid, thread in execution.threads.items():
            effect = thread.pending
            if effect is None or thread.runnable or effect.guard is None:
                continue
            past = self.past_of(tid)
            if self.objects.unsure:
                free = [event for event in range(n) if not past >> event & 1]
                found += [(first, n, tid, None, past, ()) for first in free]
            elif type(effect.obj) is Together:
                found += several.waiting(self, tid, effect, past, n)
            elif 2 * self.objects.number(effect.obj) < len(self.rivals):
                footprint = self.objects.footprint(effect)
                openings = self._openings(effect, past, n)
                found += [(first, n, tid, footprint, past, without) for first, without in openings]
        return found

    def pending(self, execution: Execution) -> list[Race]:
        """Races of all threads, where an execution is cut: of those that could go on too."""
        found = self.waiting(execution)
        n = len(self.tids)
        for tid in execution.runnable:
            effect = execution.threads[tid].pending
            assert effect is not None
            footprint = self.objects.footprint(effect)
            past = self.past_of(tid)
            met = 0
            for code in footprint:
                if code < len(self.rivals):
                    met |= self.rivals[code]
            met &= ~past
            while met:
                rival = met.bit_length() - 1
                met &= ~self.clocks[rival]
                found.append((rival, n, tid, footprint, past, ()))
        return found

    def futures(self, execution: Execution, most: int) -> list[Race]:
        """Where an execution is cut, nobody knows what its threads would have done: it may race
        with every event that it does not happen after."""
        found: list[Race] = []
        n = len(self.tids)
        for tid in execution.runnable:
            past = self.past_of(tid)
            for first in range(n - 1, -1, -1):
                if len(found) >= most:
                    return found
                if not past >> first & 1:
                    found.append((first, n, tid, None, past, ()))
        return found

    def place(self, tid: int, footprint: Footprint, clock: int) -> None:
        """An event of which all is known, after all others. Without its effect: for reversals."""
        if tid >= len(self.own):
            self._grow(tid)
        n = len(self.tids)
        bit = 1 << n
        self.own[tid] |= bit
        rivals = self.rivals
        if len(rivals) < len(self.objects.single):
            rivals += [0] * (len(self.objects.single) - len(rivals))
        for code in footprint:
            rivals[code | 1] |= bit
            if code & 1:
                rivals[code - 1] |= bit
        self.tids.append(tid)
        self.footprints.append(footprint)
        self.clocks.append(clock)

    def pretend(self, waiting: list[Race]) -> list[Race]:
        """Add the steps that could not be taken as events after all others, until `truncate`."""
        races: list[Race] = []
        for first, _, tid, footprint, past, without in waiting:
            races.append((first, len(self.tids), tid, footprint, past, without))
            self.place(tid, footprint or (), -1)
        return races

    def advanced(self) -> None:
        """The clock moved: what comes happens after all there is."""
        super().advanced()
        self.barrier = (1 << len(self.tids)) - 1

    def truncate(self, n: int) -> None:
        below = (1 << n) - 1
        own = self.own
        rivals = self.rivals
        for tid, footprint in zip(self.tids[n:], self.footprints[n:], strict=True):
            own[tid] &= below
            for code in footprint:
                if rivals[code | 1] > below:  # not yet, for another of the events
                    rivals[code | 1] &= below
                    rivals[code & -2] &= below
        super().truncate(n)
        del self.footprints[n:]
        del self.clocks[n:]
        del self.befores[n:]
        races = self.races
        while races and races[-1][1] >= n:
            races.pop()
        self.barrier = (1 << self.advances[-1][0]) - 1 if self.advances else 0

    def left(self, free: int, without: tuple[int, ...]) -> int:
        """`free` without some events, and without what happens after them."""
        for event in without:
            free &= self.independent_of(event) | ((1 << event) - 1)
        return free

    def independent_of(self, first: int) -> int:
        """The events after `first` that do not happen after it (the papers' notdep).

        Not the ones `pretend` added: they are taken to happen after everything.
        """
        found = 0
        here = bit = 1 << first
        for clock in self.clocks[first + 1 :]:
            here += here
            if not clock & bit:
                found += here
        return found

"""Which accesses are ordered: vector clocks, and what each place remembers.

Flanagan, Freund: FastTrack: Efficient and Precise Dynamic Race Detection, PLDI 2009. Deviation: the
reads of a place are kept one a thread, not adaptively.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from vkprotocol.effects import CLOCK, Effect, Shared, Thread

from vkemu.executors.controlled import Tids

Clock: TypeAlias = dict[int, int]  # by tid: how much of that thread happened before


class Place(NamedTuple):
    """Who touched it, and where."""

    thread: str
    tid: int
    time: int  # of that thread
    write: bool
    file: str
    line: int

    def __str__(self) -> str:
        verb = "writes" if self.write else "reads"
        return f"{self.thread} {verb} it at {self.file.rpartition('/')[2]}:{self.line}"


class DataRace(AssertionError):
    """Two accesses of one variable that nothing orders."""

    def __init__(self, variable: str, first: Place, second: Place) -> None:
        super().__init__(f"data race on {variable}: {first}, {second}, and nothing orders the two")
        self.variable = variable
        self.first = first
        self.second = second


class History:
    """The accesses of one place that a later one may race with."""

    __slots__ = ("reads", "written")

    def __init__(self) -> None:
        self.written: Place | None = None
        self.reads: dict[int, Place] = {}

    def rival(self, clock: Clock, tid: int, write: bool) -> Place | None:
        """The first access that does not happen before one by `tid`, whose clock is `clock`."""
        earlier = [] if self.written is None else [self.written]
        if write:
            earlier += self.reads.values()
        for place in earlier:
            if place.tid != tid and clock.get(place.tid, 0) < place.time:
                return place
        return None

    def note(self, place: Place) -> None:
        if place.write:
            self.written = place
            self.reads = {}
        else:
            self.reads[place.tid] = place


class Order:
    """Vector clocks: of threads, and of what was done to each shared object."""

    def __init__(self, tids: Tids) -> None:
        self.tids = tids
        self.threads: dict[int, Clock] = {}
        self.written: dict[Shared, Clock] = {}
        self.read: dict[Shared, Clock] = {}
        self.now = 0
        self.past: Clock = {}  # all that was done before the time that it is

    def clock_of(self, thread: Thread) -> Clock:
        clock = self.threads.get(thread.tid)
        if clock is None:
            parent = self.threads.get(self.tids.get(thread.path[:-1], -1), {})
            clock = self.threads[thread.tid] = {**parent, thread.tid: 1}
        return clock

    def spawned(self, thread: Thread) -> None:
        """What its parent does from now on is not before it."""
        self.clock_of(thread)
        parent = self.tids.get(thread.path[:-1], -1)
        if parent in self.threads:
            self.threads[parent][parent] += 1

    def perform(self, thread: Thread, effect: Effect) -> None:
        """The thread is about to take the step it announced."""
        clock = self.clock_of(thread)
        if self.now != CLOCK[0]:  # time passes when nobody can run
            self.now = CLOCK[0]
            for other in self.threads.values():
                _join(self.past, other)
        _join(clock, self.past)
        touched = [(effect.obj, effect.write), *effect.also]
        for shared, write in touched:
            _join(clock, self.written.get(shared))
            if write:
                _join(clock, self.read.get(shared))
        for shared, write in touched:
            _join((self.written if write else self.read).setdefault(shared, {}), clock)
        clock[thread.tid] += 1


def _join(clock: Clock, other: Clock | None) -> None:
    if other:
        for tid, time in other.items():
            if clock.get(tid, 0) < time:
                clock[tid] = time

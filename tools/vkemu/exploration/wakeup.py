"""Wakeup trees: which sequences must still be explored from a state (Abdulla et al., §6).

A node is (tid, footprint, children), children in the order they will be explored. What is inserted
is the *reversal* of a race: the events independent of the first of the two, then the second. Here
it is a bitset of events of the trace that holds them, in their order there but for the second of
the race, `late`, which comes last.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from vkemu.exploration.footprint import Footprint
from vkemu.exploration.trace import Race, Trace

Sleeper: TypeAlias = tuple[int, Footprint | None]
Node: TypeAlias = tuple[int, Footprint | None, "Tree"]
Tree: TypeAlias = list[Node]

NOT_INITIAL: Final = -1


class Reversals:
    """The reversals of the races of one trace, one after another."""

    __slots__ = ("accesses", "clocks", "events", "late", "late_past", "opaque", "own", "trace",
                 "writes")  # fmt: skip

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.own = trace.own
        self.clocks = trace.clocks
        self.accesses = trace.accesses
        self.writes = trace.writes
        self.events = 0  # what remains of the sequence, as a bitset of events
        self.late = 0  # its last event, as a bit
        self.late_past = 0  # what the last event comes after
        self.opaque = 0  # `late`, when nobody knows what it will touch

    def take(self, race: Race, free: int) -> None:
        """The reversal of `race`; `free` are the events independent of the first."""
        _, second, _, footprint, past = race
        self.late = late = 1 << second
        self.events = free | late
        if footprint is None:
            self.opaque = late
            self.late_past = free
        else:
            self.opaque = 0
            if free:
                for code in footprint:
                    past |= (self.accesses if code & 1 else self.writes)[code >> 1]
                past &= free
            self.late_past = past

    def weak_initial(self, tid: int, footprint: Footprint | None) -> int:
        """Can thread `tid` take its step before all of it, or be added in front of it?

        NOT_INITIAL, or the event this takes out of it, as a bit; 0 when none is of the thread.
        """
        events = self.events
        own = self.own[tid] & events
        if own:
            first = own & -own
            if first == self.late:
                past = self.late_past
            else:
                past = self.clocks[first.bit_length() - 1] ^ first
            return NOT_INITIAL if past & events else first
        if footprint is None or events & self.opaque:
            return NOT_INITIAL if events else 0
        for code in footprint:
            if (self.accesses if code & 1 else self.writes)[code >> 1] & events:
                return NOT_INITIAL
        return 0

    def redundant(self, sleep: list[Sleeper]) -> bool:
        """Whether what has been explored already covers everything that begins like this."""
        for tid, footprint in sleep:
            if self.weak_initial(tid, footprint) != NOT_INITIAL:
                return True
        return False

    def insert(self, tree: Tree) -> bool:
        """Into the tree, unless a leaf of it leads the same way."""
        while self.events:
            for tid, footprint, children in tree:
                taken = self.weak_initial(tid, footprint)
                if taken != NOT_INITIAL:
                    if not children:
                        return False
                    self.events ^= taken
                    tree = children
                    break
            else:
                tree.append(self._branch())
                return True
        return False

    def _branch(self) -> Node:
        trace = self.trace
        events = self.events
        below: Tree = []
        if events & self.late:
            events ^= self.late
            second = self.late.bit_length() - 1
            known = None if self.opaque else trace.footprints[second]
            below = [(trace.tids[second], known, below)]
        while events:
            event = events.bit_length() - 1
            events ^= 1 << event
            below = [(trace.tids[event], trace.footprints[event], below)]
        return below[0]

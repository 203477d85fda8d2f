"""Wakeup trees: which sequences must still be explored from a state (Abdulla et al., §6).

A node is (tid, footprint, children), children in the order they will be explored. What is inserted
is the reversal of a race: the events independent of the first of the two, then the second.
"""

from __future__ import annotations

from typing import TypeAlias

from vkemu.exploration.footprint import Footprint, dependent
from vkemu.exploration.trace import Race, Trace

Sleeper: TypeAlias = tuple[int, Footprint | None]
Node: TypeAlias = tuple[int, Footprint | None, "Tree"]
Tree: TypeAlias = list[Node]

NOT_INITIAL = -1


class Reversal:
    """The sequence `events . second`: what remains of it, during an insertion."""

    __slots__ = ("events", "late", "late_past", "trace")

    def __init__(self, trace: Trace, events: int, race: Race) -> None:
        self.trace = trace
        self.events = events
        self.late: Race | None = race
        # Events the second step of the race comes after, besides those before the first.
        self.late_past = (race.past | trace.touching(race.footprint)) & events

    def weak_initial(self, tid: int, footprint: Footprint | None) -> int:
        """Can thread `tid` take its step before all of the sequence, or be added in front of it?

        NOT_INITIAL, or the event it takes out of the sequence as a bit; 0 when it is not in it.
        """
        events = self.events
        trace = self.trace
        own = trace.own[tid] & events if tid < len(trace.own) else 0
        if own:
            first = own & -own
            before = trace.clocks[first.bit_length() - 1] & events
            return first if before == first else NOT_INITIAL
        late = self.late
        if late is not None and late.tid == tid:
            # The bit just above all events stands for the late step.
            return NOT_INITIAL if self.late_past & events else 1 << len(trace)
        if footprint is None:
            return NOT_INITIAL if events or late is not None else 0
        if trace.touching(footprint) & events:
            return NOT_INITIAL
        if late is not None and (late.footprint is None or dependent(footprint, late.footprint)):
            return NOT_INITIAL
        return 0

    def redundant(self, sleep: list[Sleeper]) -> bool:
        """Whether what has been explored already covers everything that begins like this."""
        return any(self.weak_initial(tid, fp) != NOT_INITIAL for tid, fp in sleep)

    def insert(self, tree: Tree) -> bool:
        """Into the tree, unless a leaf of it leads the same way."""
        while True:
            for node in tree:
                taken = self.weak_initial(node[0], node[1])
                if taken != NOT_INITIAL:
                    break
            else:
                tree.append(self._branch())
                return True
            if not node[2]:
                return False
            if taken >> len(self.trace):
                self.late = None
            else:
                self.events &= ~taken
            if not self.events and self.late is None:
                return False
            tree = node[2]

    def _branch(self) -> Node:
        trace = self.trace
        branch: Tree = []
        if self.late is not None:
            branch = [(self.late.tid, self.late.footprint, [])]
        events = self.events
        while events:
            event = events.bit_length() - 1
            events ^= 1 << event
            branch = [(trace.tids[event], trace.footprints[event], branch)]
        return branch[0]

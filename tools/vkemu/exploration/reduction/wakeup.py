"""Wakeup trees: which sequences must still be explored from a state (Abdulla et al., §6).

A node is (tid, footprint, children), children in the order they will be explored. What is inserted
is the *reversal* of a race: the events independent of the first of the two, then the second. Here
it is a bitset of events of the trace that holds them, in their order there but for the second of
the race, `late`, which comes last.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from vkemu.exploration.reduction.footprint import Footprint, Race, dependent
from vkemu.exploration.reduction.trace import Trace

Node: TypeAlias = tuple[int, Footprint | None, "Tree"]
Tree: TypeAlias = list[Node]

# Below a thread of a sleep set whose subtree is being explored elsewhere, at the same time: what
# it leads to is not known yet, and so a state where it sleeps is not done with.
ELSEWHERE: Final[Tree] = []


class Reversals:
    """The reversals of the races of one trace."""

    __slots__ = ("trace",)

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def explore(self, race: Race, free: int, explored: Tree, tree: Tree) -> bool:
        """Add the reversal of `race` to `tree`. False when what is there covers it already.

        `free` are the events independent of the first of the race; `explored` and `tree` are what
        has been and what will be explored from the state before it. It is covered when a thread
        of `explored`, or all of a branch of `tree`, can go in front of it (is a *weak initial*):
        its own first event there has nothing before it, or it has none and touches nothing of it.
        """
        _, second, _, footprint, past, _ = race
        trace = self.trace
        late = 1 << second
        opaque = 0
        # Most often what the second touches in its new place is what it touched in the old one.
        other = footprint is not trace.footprints[second]
        if footprint is None:
            opaque = late
            past = free
        elif free:
            for code in footprint:
                past |= trace.rivals[code]
            past &= free
        else:
            past = 0
        own = trace.own
        rivals = trace.rivals
        clocks = trace.clocks
        events = free | late
        nodes = explored + tree
        while events:
            for tid, touched, below in nodes:
                first = own[tid] & events
                if first:
                    first &= -first
                    before = past if first == late else clocks[first.bit_length() - 1] ^ first
                elif touched is None or events & opaque:
                    continue
                else:
                    before = 0
                    for code in touched:
                        before |= rivals[code]
                    if other and footprint is not None and not dependent(touched, footprint):
                        before &= ~late
                if before & events:
                    continue
                if not below:
                    return False
                events ^= first
                nodes = tree = below
                break
            else:
                tree.append(self._branch(events, late, footprint))
                return True
        return False

    def _branch(self, events: int, late: int, footprint: Footprint | None) -> Node:
        """What remains of the sequence, as a tree without forks; `footprint` is that of `late`."""
        trace = self.trace
        below: Tree = []
        if events & late:
            events ^= late
            second = late.bit_length() - 1
            below = [(trace.tids[second], footprint, below)]
        while events:
            event = events.bit_length() - 1
            events ^= 1 << event
            below = [(trace.tids[event], trace.footprints[event], below)]
        return below[0]

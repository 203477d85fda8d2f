"""`dpor`: optimal dynamic partial-order reduction, one execution a Mazurkiewicz trace.

Abdulla, Aronis, Jonsson, Sagonas: Source Sets: A Foundation for Optimal Dynamic Partial Order
Reduction, J. ACM 64(4), 2017 (POPL 2014), Algorithm 2. Deviations:

* Guards in place of locks: see `trace`. Threads that wait at the end of an execution, or when the
  clock moves, race as if they had taken their step (the paper's treatment of disabled processes).
* Footprints that the program computes are not known for the second event of a reversed race; it
  is then taken to depend on everything, which can only lead to more executions.
* Races within a prefix are looked at again only when the new events change their reversal.
* The walk is iterative, and the prefix is replayed without bookkeeping.
"""

from __future__ import annotations

from vkemu.exploration.reduction.afterwards import Guesses
from vkemu.exploration.reduction.footprint import Footprint, Race
from vkemu.exploration.reduction.reduction import Reduction
from vkemu.exploration.reduction.wakeup import Reversals


class Dpor(Reduction):
    """Invariant: whatever is in a tree leads to a trace that no other execution has."""

    name = "dpor"

    def reverse_races(self) -> None:
        trace = self.trace
        fresh = self.kept
        root = self.root
        sleeps = self.sleeps
        trees = self.trees
        reverse = (Guesses if self.late else Reversals)(trace).explore
        # Events that all the new ones happen after: their old races have the reversal they had.
        settled = -1
        for clock in trace.clocks[fresh:]:
            settled &= clock
        free: dict[int, int] = {}
        covered: dict[int, Footprint | None] = {}
        nowhere = (-1,)
        for race in self.races:
            first = race[0]
            if race[1] < fresh and settled >> first & 1:
                continue
            events = free.get(first)
            if events is None:
                events = free[first] = trace.independent_of(first)
            if race[5]:
                events = trace.left(events, race[5])
            footprint = race[3]
            if not events and footprint == covered.get(first, nowhere):
                continue
            if first < root:
                # Those trees are only known not to say the same twice; of guesses not even that.
                if reverse(race, events, sleeps[first], [] if self.late else trees[first]):
                    self.send(events, race)
                continue
            reverse(race, events, sleeps[first], trees[first])
            if not events and not root and footprint is not None and not footprint[0] & 1:
                # Loads of one object do not depend on each other: what covers one covers all.
                covered[first] = footprint if len(footprint) == 1 else nowhere

    def send(self, events: int, race: Race) -> None:
        """A reversal for a state that is explored elsewhere."""
        assert self.names is not None
        self.outbox[self.names.reversal(self.trace, events, race)] = None

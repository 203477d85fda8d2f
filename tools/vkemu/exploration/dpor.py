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

from typing import TYPE_CHECKING

from vkemu.exploration.footprint import Objects, dependent
from vkemu.exploration.path import Path
from vkemu.exploration.trace import Race, Trace
from vkemu.exploration.wakeup import Reversals, Tree

if TYPE_CHECKING:
    from vkemu.exploration.run import Run


class Dpor(Path):
    """Invariant: trace, `sleeps` and `trees` have one entry for every event of the path."""

    name = "dpor"

    def __init__(self, objects: Objects) -> None:
        self.trace = Trace(objects)
        super().__init__(self.trace)
        self.reversals = Reversals(self.trace)
        # At every event: whose step need not be taken there, since it was explored before;
        # and what is still to be explored instead of the event.
        self.sleeps: list[Tree] = []
        self.trees: list[Tree] = []
        self.sleep: Tree = []  # where the path ends
        self.tree: Tree = []

    def backtrack(self) -> bool:
        trees = self.trees
        at = len(trees) - 1
        while at >= 0 and not trees[at]:
            at -= 1
        if at < 0:
            return False
        trace = self.trace
        self.sleep = [*self.sleeps[at], (trace.tids[at], trace.footprints[at], [])]
        self.tree = trees[at]
        trace.truncate(at)
        del self.sleeps[at:]
        del trees[at:]
        return True

    def conduct(self, run: Run) -> None:
        self.waiting: list[Race] = []
        super().conduct(run)
        self.reverse_races(run)

    def extend(self, run: Run) -> None:
        trace = self.trace
        execution = run.execution
        execution.on_spawn = trace.spawned
        threads = execution.threads
        runnable = execution.runnable
        sleep = self.sleep
        tree = self.tree
        tid = -1
        for _ in range(len(trace), run.max_steps):
            while not runnable:
                self.waiting += trace.waiting(execution)
                if not execution.advance():
                    return
                trace.advanced()
            below: Tree = []
            if tree:
                tid, _, below = tree.pop(0)
            elif sleep:
                tid = awake(runnable, sleep)
                if tid < 0:
                    self.waiting += trace.waiting(execution)
                    run.blocked = True
                    return
            elif tid < 0 or not threads[tid].runnable:
                tid = runnable[0]
            effect = threads[tid].pending
            assert effect is not None
            footprint = trace.add(tid, effect)
            self.sleeps.append(sleep)
            self.trees.append(tree)
            if sleep:
                sleep = [
                    sleeper
                    for sleeper in sleep
                    if sleeper[0] != tid
                    and sleeper[1] is not None
                    and not dependent(sleeper[1], footprint)
                ]
            tree = below
            if not execution.step(tid) and run.thread_failed():
                return
            if run.watched and not run.watch():
                return
        run.cut = bool(runnable) or execution.alive > 0

    def reverse_races(self, run: Run) -> None:
        """See to it that the other order of every race is explored too."""
        trace = self.trace
        fresh = self.kept
        sleeps = self.sleeps
        trees = self.trees
        reverse = self.reversals.explore
        # Events that all the new ones happen after: their old races have the reversal they had.
        settled = -1
        for clock in trace.clocks[fresh:]:
            settled &= clock
        end = len(trace)
        races = trace.races
        if self.waiting:
            races = [*races, *trace.pretend(self.waiting)]
        free: dict[int, int] = {}
        for race in races:
            first = race[0]
            if race[1] < fresh and settled >> first & 1:
                continue
            events = free.get(first)
            if events is None:
                events = free[first] = trace.independent_of(first)
            reverse(race, events, sleeps[first], trees[first])
        if self.waiting:
            trace.truncate(end)


def awake(runnable: list[int], sleep: Tree) -> int:
    """The first thread that can run and is not asleep, or -1."""
    asleep = {sleeper[0] for sleeper in sleep}
    for tid in runnable:
        if tid not in asleep:
            return tid
    return -1

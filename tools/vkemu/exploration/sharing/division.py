"""The parts of an exhaustive search, and what they find for each other.

For `dfs` the parts have nothing to do with each other. For `dpor` a race may have its first event
above the subtree it was found in. So the states above any subtree given away are kept here
(`State`): a reversal found for one of them is checked against all that was begun from it, and when
nothing covers it a new subtree begins. Everything begun from a state is in the sleep set of what
begins there later, done or not: each trace is in exactly one part, and how many there are does not
depend on who was faster. But what optimal DPOR gains from finishing one subtree before it begins
the next - no execution that finds, too late, that all it can do is explored elsewhere - is lost
between parts: `blocked` may be more than 0, as for `source-dpor`. Therefore the ways on from a
state are divided in two and not into as many as there are, and what would soon be done anyhow is
not divided unless that costs nothing (`_worth_dividing`).

Where only a step that was taken tells what it touches it is `joining` that divides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from vkemu.exploration.reduction.footprint import Objects, dependent
from vkemu.exploration.reduction.frontier import Flat, Found, Frontier, Names, Path, Step, Touched
from vkemu.exploration.reduction.wakeup import Reversals, Tree
from vkemu.exploration.sharing.jobs import Report

ELSEWHERE = -1  # the depth, in a sleep set, of what is being explored elsewhere
SMALL = 0.2  # of an even share: a part that is soon done


class State:
    """A state that several parts begin from or pass through: what has been begun there, done or
    not. Nothing needs to begin with it any more."""

    __slots__ = ("begun",)

    def __init__(self, sleep: Flat) -> None:
        self.begun: Flat = tuple((0, thread, touched) for _, thread, touched in sleep)

    def begin(self, thread: Path, touched: Touched) -> None:
        if all(thread != other for _, other, _ in self.begun):
            self.begun = (*self.begun, (0, thread, touched))


class Part(NamedTuple):
    """A part of the search that nobody is at. `above`: the states before its root, in order, and
    the one at its root where that is shared."""

    frontier: Frontier
    above: tuple[State, ...] = ()
    share: float = 1.0  # of all there is, about


class Division:
    """The parts of an exhaustive search that nobody is at."""

    def __init__(self) -> None:
        self.names = Names({}, Objects())
        self.restart()

    def restart(self) -> None:
        self.parts: deque[Part] = deque([Part(Frontier())])
        self.done = 0.0  # of all there is, about (Knuth 1975)

    def take_back(self, part: Part, report: Report, idle: int, workers: int) -> None:
        """What is left of a part, and what it found for others. Split it where that is not enough
        to give the `idle` of the `workers` something to do."""
        for found in report.found:
            self._found(part, found)
        self.done += part.share * report.share
        if report.left is not None:
            left = Part(report.left, part.above, part.share * (1 - report.share))
            while idle > len(self.parts) + 1:
                divided = self._split(left, workers)
                if divided is None:
                    break
                left, rest = divided
                self.parts.append(rest)
            self.parts.append(left)

    def _split(self, part: Part, workers: int) -> tuple[Part, Part] | None:
        """At the shallowest state with more than one way on: the first of them, and the others.

        Those stay together: what is explored of one of them shows how the next must begin.
        """
        frontier, above, share = part
        share /= 2
        steps = frontier.steps
        for position in range(frontier.root, len(steps)):
            step = steps[position]
            above = _down_to(position, above, step.sleep)
            above[position].begin(step.thread, step.touched)
            if step.tree:
                if not self._worth_dividing(part.share * workers, step.touched, step.tree):
                    return None
                alone = (*steps[:position], step._replace(tree=()), *steps[position + 1 :])
                going_on = frontier._replace(root=position + 1, steps=alone, shared=False)
                others = self._others(steps[:position], above, step, share)
                return Part(going_on, above, share), others
        ways = branches(frontier.tree)
        if len(ways) < 2:
            return None
        first = ways[0]
        _, thread, touched = first[0]
        if not self._worth_dividing(part.share * workers, touched, frontier.tree[len(first) :]):
            return None
        above = _down_to(len(steps), above, frontier.sleep)
        above[-1].begin(thread, touched)
        begun = frontier._replace(root=len(steps) + 1, tree=first, shared=False)
        step = Step(thread, touched, frontier.sleep, frontier.tree[len(first) :])
        return Part(begun, above, share), self._others(steps, above, step, share)

    def _worth_dividing(self, share: float, first: Touched, others: Flat) -> bool:
        """Whether a part of so many times an even share is large, or of unknown size; or else what
        is explored elsewhere is out of the sleep set of the others after their first step, so that
        they abandon nothing."""
        if not 0 < share < SMALL * self.done:
            return True
        footprint = self.names.footprint
        woken = footprint(first)
        return woken is not None and all(
            (begins := footprint(touched)) is not None and dependent(begins, woken)
            for _, _, touched in roots(others)
        )

    def _others(
        self, steps: tuple[Step, ...], above: tuple[State, ...], step: Step, share: float
    ) -> Part:
        """All ways of the step's tree, from the state before it."""
        for _, thread, touched in roots(step.tree):
            above[-1].begin(thread, touched)
        # What was explored before the split is so with all it led to: that is in the tree.
        sleep = (*step.sleep, (ELSEWHERE, step.thread, step.touched))
        return Part(Frontier(len(steps), steps, sleep, step.tree, shared=True), above, share)

    def first(self) -> Part:
        """The part to be explored next, with what has been begun by now in the states above it."""
        frontier, above, _ = self.parts[0]
        root, steps = frontier.root, frontier.steps
        told = (
            step._replace(sleep=state.begun, tree=())
            for step, state in zip(steps[:root], above, strict=False)
        )
        return self.parts[0]._replace(frontier=frontier._replace(steps=(*told, *steps[root:])))

    def _found(self, part: Part, found: Found) -> None:
        """A reversal for a state above a part: begin there, unless that was begun."""
        state = part.above[found.position]
        names = self.names
        begun: Tree = names.sleep(state.begun)
        trace, race = names.trace(found.events)
        for tid, _, _ in begun:
            trace.past_of(tid)  # makes room for the thread
        fresh: Tree = []
        free = (1 << (len(trace) - 1)) - 1
        if Reversals(trace).explore(race, free, begun, fresh):
            (branch,) = branches(names.flat(fresh))
            steps = part.frontier.steps[: found.position]
            sleep = tuple((ELSEWHERE, thread, touched) for _, thread, touched in state.begun)
            _, thread, touched = branch[0]
            state.begin(thread, touched)
            frontier = Frontier(len(steps) + 1, steps, sleep, branch)
            # Nobody has foreseen it: that it is there says nothing of how much is done.
            self.parts.append(Part(frontier, part.above[: found.position + 1], 0.0))


def _down_to(position: int, above: tuple[State, ...], sleep: Flat) -> tuple[State, ...]:
    return above if position < len(above) else (*above, State(sleep))


def roots(tree: Flat) -> Iterator[tuple[int, Path, Touched]]:
    return (node for node in tree if not node[0])


def branches(tree: Flat) -> list[Flat]:
    """The trees of one root each."""
    starts = [n for n, (depth, _, _) in enumerate(tree) if not depth]
    return [tree[a:b] for a, b in pairwise([*starts, len(tree)])]

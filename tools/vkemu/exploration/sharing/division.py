"""The parts of an exhaustive search, and what they find for each other.

Given away is what comes after a step that was taken, at a state with other ways on.
Who gave it keeps the states before that step. They stay as they are until what was given is done: a
reversal that is found there for one of them is put where it would have been, had one process found
it first. Meanwhile the giver is at the other ways on. As long as the step sleeps there (it is
`ELSEWHERE` in the sleep sets) what it leads to matters, and the giver does not turn back to such a
state; below the first step that wakes it nobody has to hear of anybody. Hence all executions are
those of one process, and none is abandoned that would not be there.

For `dfs` nothing sleeps, nothing is found for others, and nobody waits.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from vkemu.executors.collector import uncollected
from vkemu.exploration.reduction.afterwards import Guesses
from vkemu.exploration.reduction.footprint import Objects
from vkemu.exploration.reduction.frontier import Flat, Found, Frontier, Names, Path, Step, Touched
from vkemu.exploration.reduction.wakeup import Reversals, Tree
from vkemu.exploration.sharing.jobs import Report

ELSEWHERE = -1  # the depth, in a sleep set, of what is being explored elsewhere


class Part:
    """A part of the search. Invariant: the states before what was `given`, and where its first step
    sleeps, are on the path of `frontier`."""

    def __init__(self, frontier: Frontier, giver: Part | None = None, share: float = 1.0) -> None:
        self.frontier = frontier
        self.root = frontier.root
        # By state, where something was found since: the way that was taken, and those to be.
        self.added: dict[int, Tree] = {}
        self.giver = giver
        self.given: list[Part] = []  # the deepest last; some may be done
        self.found: list[Found] = []  # while it was under way
        self.under_way = False
        self.tells = giver is not None  # whether, most likely, it will find something for others
        self.begun = giver is not None
        self.share = share  # of all there is, about

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a checkpoint."""
        vars(self).update(state, under_way=False)

    @property
    def floor(self) -> int:
        """The state it may not turn back beyond."""
        sleeps = [*(step.sleep for step in self.frontier.steps), self.frontier.sleep]
        return max([self.root, *(n + 1 for n, sleep in enumerate(sleeps) if held(sleep))])

    @property
    def ready(self) -> bool:
        """Whether there is something to explore, or to turn back from."""
        count = len(self.frontier.steps)
        tree = self.added.get(count, self.frontier.tree)
        return not self.begun or bool(tree) or count > self.floor

    @property
    def done(self) -> bool:
        return not (self.under_way or self.given or self.ready)

    def holder(self, position: int) -> Part:
        """Who has a state of the path."""
        part = self
        while position < part.root:
            assert part.giver is not None
            part = part.giver
        return part

    def give(self) -> Part | None:
        """Where there are other ways on, what comes after the step that was taken."""
        frontier = self.frontier
        forks = [n for n in range(self.floor, len(frontier.steps)) if frontier.steps[n].tree]
        if not forks:
            return None
        at = max(forks, key=self.worth)  # the first of those that are worth as much
        step = frontier.steps[at]
        self.share /= 2
        # That the other ways are there is no news; what comes after they wake the step is theirs.
        known = step._replace(tree=asleep(step.tree, step))
        steps = (*frontier.steps[:at], known, *frontier.steps[at + 1 :])
        given = Part(frontier._replace(root=at + 1, steps=steps), self, self.share)
        self.given.append(given)
        sleep = (*step.sleep, (ELSEWHERE, step.thread, step.touched))
        self.frontier = Frontier(self.root, frontier.steps[:at], sleep, step.tree)
        return given

    def worth(self, at: int) -> int:
        """How much both would have to do at once, as far as is known, if one went on with what
        comes after the step and the other with the other ways."""
        frontier = self.frontier
        after = 1 + len(frontier.tree) + sum(len(step.tree) for step in frontier.steps[at + 1 :])
        return min(after, awake(frontier.steps[at]))

    def settle(self, names: Names) -> None:
        """Make what was added part of the frontier."""
        if self.added:
            left = self.frontier
            steps = tuple(
                step._replace(tree=names.flat(self.added[n][1:])) if n in self.added else step
                for n, step in enumerate(left.steps)
            )
            tree = names.flat(self.added[len(steps)])
            self.frontier = left._replace(steps=steps, tree=tree)
            self.added = {}

    def release(self, names: Names) -> None:
        """What the deepest that was given led to is known."""
        if self.given and self.given[-1].done:
            self.settle(names)
        while self.given and self.given[-1].done:
            at = self.given.pop().root - 1
            left = self.frontier
            steps = (step._replace(sleep=explored(step.sleep)) for step in left.steps[at:])
            self.frontier = left._replace(
                steps=(*left.steps[:at], *steps), sleep=explored(left.sleep)
            )


def held(sleep: Flat) -> bool:
    return any(depth == ELSEWHERE for depth, _, _ in sleep)


def explored(sleep: Flat) -> Flat:
    return tuple((0, thread, touched) for _, thread, touched in sleep)


class Division:
    """The parts that nobody is at, and that can be gone on with. `late`: only a step that was taken
    tells what it touches (`afterwards`)."""

    def __init__(self, *, late: bool = False) -> None:
        self.names = Names({}, Objects())
        self.reversals = Guesses if late else Reversals
        self.restart()

    def restart(self) -> None:
        self.parts: deque[Part] = deque([Part(Frontier())])
        self.done = 0.0  # of all there is, about (Knuth 1975)

    def first(self) -> Part:
        part = self.parts[0]
        part.settle(self.names)
        part.under_way = True
        return part

    def take_back(self, part: Part, report: Report, wanted: int) -> None:
        """What is left of a part, and what it found. Give away of it until there are as many parts
        as `wanted`."""
        assert report.left is not None
        part.under_way = False
        part.frontier = report.left
        part.tells = bool(report.found)
        part.begun |= report.executions + report.blocked + report.cut > 0
        self.done += part.share * report.share
        part.share *= 1 - report.share
        turned_up: dict[Part, dict[int, list[Found]]] = {}
        for found in (*part.found, *report.found):
            holder = part.holder(found.position)
            if holder.under_way:
                holder.found.append(found)
            else:
                turned_up.setdefault(holder, {}).setdefault(found.position, []).append(found)
        part.found = []
        with uncollected():
            for holder, several in turned_up.items():
                self._insert(holder, several)
        part.settle(self.names)
        part.release(self.names)
        giver = part
        while wanted > len(self.parts) + 1 and (given := giver.give()) is not None:
            self.parts.append(given)
            giver = given
        for one in (*turned_up, part):
            self._go_on(one)

    def _go_on(self, part: Part) -> None:
        """It is explored further, or waits for what it gave, or is done."""
        if part.under_way:
            return
        part.release(self.names)
        if part in self.parts:
            return
        if part.ready:
            self.parts.append(part)
        elif part.done and part.giver is not None:
            self._go_on(part.giver)

    def _insert(self, part: Part, several: dict[int, list[Found]]) -> None:
        """Reversals, into the trees of their states, as if the part had not gone on from there.

        What begins as its path does comes off the path where it leaves it; but where nothing sleeps
        any more that is explored elsewhere the part finds it by itself.
        """
        names, left, trees = self.names, part.frontier, part.added
        if not trees:
            count = len(left.steps)
            trees[count] = names.tree(left.tree)
            for n in reversed(range(part.root, count)):
                thread, touched = left.steps[n][:2]
                below = trees[n + 1] if held(sleep_at(left, n + 1)) else []
                path = (names.tid(thread), names.footprint(touched), below)
                trees[n] = [path, *names.tree(left.steps[n].tree)]
        for at, those in several.items():
            asleep = names.sleep(sleep_at(left, at))
            for trace, race in names.traces(those):
                trace.past_of(len(names.tids))  # makes room for all threads
                free = (1 << (len(trace) - 1)) - 1
                self.reversals(trace).explore(race, free, asleep, trees[at])


def asleep(tree: Flat, sleeper: Step) -> Flat:
    """A tree, down to where it wakes the sleeper."""
    found = []
    woken_at = None
    for node in tree:
        depth, thread, touched = node
        if woken_at is None or depth <= woken_at:
            found.append(node)
            woken_at = depth if wakes(thread, touched, sleeper) else None
    return tuple(found)


def awake(step: Step) -> int:
    """How many steps of the other ways can be taken before it is known what the step leads to:
    those after what wakes it, up to where it is still asleep and would have to be turned back to.
    """
    found = 0
    woken_at = None
    held = False
    for depth, thread, touched in step.tree:
        if held and not depth:
            break
        if woken_at is None or depth <= woken_at:
            woken_at = depth if wakes(thread, touched, step) else None
            held |= woken_at is None
        found += woken_at is not None
    return found


def wakes(thread: Path, touched: Touched, sleeper: Step) -> bool:
    """Whether a step is known to."""
    return thread == sleeper.thread or any(
        one == other and (writes or written)
        for one, writes in touched or ()
        for other, written in sleeper.touched or ()
    )


def sleep_at(left: Frontier, position: int) -> Flat:
    return left.steps[position].sleep if position < len(left.steps) else left.sleep

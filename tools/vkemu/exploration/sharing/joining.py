"""Parts of a search in which only a step that was taken tells what it touches (`afterwards`).

What is still to be explored has guessed footprints there, and a sleep set may hold none. So it is
not divided as in `division`. Given away is what comes after a step that was taken: of it all is
known. Who gave it keeps the states before that step, and does not turn back beyond them until what
was given is done. Hence a reversal for a state above a part is its giver's to explore, or the
giver's giver's; and what a sleep set holds is known, and done but for what was just given.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from vkemu.exploration.reduction.afterwards import Guesses
from vkemu.exploration.reduction.footprint import Objects
from vkemu.exploration.reduction.frontier import Flat, Found, Frontier, Names
from vkemu.exploration.sharing.division import ELSEWHERE
from vkemu.exploration.sharing.jobs import Report


class Share:
    """A part of the search. Invariant: up to the state before what was given, the path of `left` is
    that of every part in `given`."""

    def __init__(self, left: Frontier, giver: Share | None, share: float) -> None:
        self.left = left
        self.root = left.root
        self.giver = giver
        self.given: list[Share] = []  # and not done
        self.found: list[Found] = []  # while it was under way
        self.under_way = False
        self.begun = giver is not None
        self.share = share  # of all there is, about

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a checkpoint."""
        vars(self).update(state, under_way=False)

    @property
    def floor(self) -> int:
        """The state it may not turn back beyond."""
        return max([self.root, *(part.root - 1 for part in self.given)])

    @property
    def frontier(self) -> Frontier:
        return self.left._replace(root=self.floor)

    @property
    def ready(self) -> bool:
        """Whether there is something to explore, or to turn back from."""
        return not self.begun or bool(self.left.tree) or len(self.left.steps) > self.floor


class Joining:
    """The parts that nobody is at, and that can be gone on with."""

    def __init__(self) -> None:
        self.names = Names({}, Objects())
        self.restart()

    def restart(self) -> None:
        self.parts: deque[Share] = deque([Share(Frontier(), None, 1.0)])
        self.done = 0.0  # of all there is, about

    def first(self) -> Share:
        part = self.parts[0]
        part.under_way = True
        return part

    def take_back(self, part: Share, report: Report, idle: int, _: int) -> None:
        """What is left of a part, and what it found. Give away of it what keeps the `idle` workers
        busy."""
        assert report.left is not None
        part.under_way = False
        part.left = report.left
        part.begun |= report.executions + report.blocked + report.cut > 0
        self.done += part.share * report.share
        part.share *= 1 - report.share
        found, part.found = [*part.found, *report.found], []
        finders = [self._found(part, reversal) for reversal in found]
        while idle > len(self.parts) + 1 and self._give(part):
            pass
        for one in (*finders, part):
            self._go_on(one)

    def _go_on(self, part: Share) -> None:
        """It is explored further, or waits for what it gave, or is done."""
        if part.under_way or part in self.parts:
            return
        if part.ready:
            self.parts.append(part)
        elif part.giver is not None and part in part.giver.given and not part.given:
            part.giver.given.remove(part)
            self._go_on(part.giver)

    def _give(self, part: Share) -> bool:
        """Where there are other ways on, at the shallowest state, what comes after the step that
        was taken."""
        left = part.left
        for position in range(part.floor, len(left.steps)):
            step = left.steps[position]
            if step.tree:
                above = (one._replace(tree=()) for one in left.steps[: position + 1])
                steps = (*above, *left.steps[position + 1 :])
                part.share /= 2
                given = Share(
                    Frontier(position + 1, steps, left.sleep, left.tree), part, part.share
                )
                part.given.append(given)
                self.parts.append(given)
                sleep = (*step.sleep, (ELSEWHERE, step.thread, step.touched))
                part.left = Frontier(part.root, left.steps[:position], sleep, step.tree)
                return True
        return False

    def _found(self, part: Share, found: Found) -> Share:
        """A reversal, for who has the state."""
        at = found.position
        while at < part.root:
            assert part.giver is not None
            part = part.giver
        left = part.left
        if part.under_way:
            part.found.append(found)
        elif at == len(left.steps):
            part.left = left._replace(tree=self._with(found, left.sleep, left.tree))
        else:
            step = left.steps[at]
            begun = (*step.sleep, (ELSEWHERE, step.thread, step.touched))
            step = step._replace(tree=self._with(found, begun, step.tree))
            part.left = left._replace(steps=(*left.steps[:at], step, *left.steps[at + 1 :]))
        return part

    def _with(self, found: Found, sleep: Flat, tree: Flat) -> Flat:
        names = self.names
        explored, wanted = names.sleep(sleep), names.tree(tree)
        trace, race = names.trace(found.events)
        trace.past_of(len(names.tids))  # makes room for all threads
        Guesses(trace).explore(race, (1 << (len(trace) - 1)) - 1, explored, wanted)
        return names.flat(wanted)

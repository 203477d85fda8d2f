"""How wide a window is, measured: at how many positions the interfering step does the harm.

The run is repeated with that step held back until so many steps of the other threads are done, for
every such number. The others keep their order, go on as they can where the recorded schedule ends,
and run to their end; what the step's own thread did before it is drawn along in front of it, what
it did after it follows behind. Where the step cannot go yet, it goes as soon as it can, which is
another position: positions are counted where the step really was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from vkemu.executors.controlled import Choose

# Runs the program with this `choose`: True when it fails in the same way.
Rerun: TypeAlias = Callable[[Choose], bool]

POSITIONS_MAX: Final = 400


@dataclass(frozen=True, slots=True)
class Width:
    """Positions are numbers of steps of the other threads that come before the moved step.

    `partial`: the run is too long to try all; the ends of the stretch around `here` were found by
    halving, which takes it for unbroken.
    """

    actor: str
    step: int  # number of the moved step in the run
    here: int  # its position there
    failing: tuple[int, ...]
    positions: tuple[int, ...]  # those tried
    partial: bool = False

    def __str__(self) -> str:
        counts = f"{len(self.failing)} of {len(self.positions)} positions"
        return f"{counts}{' tried' if self.partial else ''} of the {self.actor} step fail"

    @property
    def share(self) -> float:
        """Of the positions, those that fail; one that fails nowhere says nothing at all."""
        return len(self.failing) / len(self.positions) if self.failing else 2.0

    @property
    def span(self) -> tuple[int, int]:
        """The first and last failing position of the unbroken stretch around where it was."""
        passing = [p for p in self.positions if p not in set(self.failing)]
        below = max((p for p in passing if p < self.here), default=-1)
        above = min((p for p in passing if p > self.here), default=1 << 62)
        inside = [p for p in self.failing if below < p < above]
        return min(inside, default=self.here), max(inside, default=self.here)


class Lenient:
    """Follows a schedule as far as it goes: a thread that cannot go yet is asked again later, and
    when the schedule is over the lowest goes first."""

    def __init__(self, schedule: Sequence[int], start: int = 0) -> None:
        self._schedule = schedule
        self._head = start
        self._late: Counter[int] = Counter()  # turns in which a thread could not go
        self._early: Counter[int] = Counter()  # turns used up before they came

    def __call__(self, runnable: list[int]) -> int:
        return self.next(set(runnable))

    def next(self, able: set[int]) -> int:
        for tid, turns in self._late.items():
            if turns and tid in able:
                self._late[tid] -= 1
                return tid
        schedule = self._schedule
        while self._head < len(schedule):
            tid = schedule[self._head]
            self._head += 1
            if self._early[tid]:
                self._early[tid] -= 1
            elif tid in able:
                return tid
            else:
                self._late[tid] += 1
        return min(able)

    def out_of_turn(self, tid: int) -> None:
        """The thread goes now, whatever the schedule says: one of its turns is used up."""
        if self._late[tid]:
            self._late[tid] -= 1
        else:
            self._early[tid] += 1


class Placed:
    """Follows a schedule, but lets the step at `index` wait for `position` steps of others.

    `landed` is where it went in the end; None when it never did.
    """

    def __init__(self, schedule: Sequence[int], index: int, position: int) -> None:
        self.tid = schedule[index]
        self.position = position
        self.before = schedule[:index].count(self.tid)
        self.landed: int | None = None
        self._same = verbatim(schedule, index, position)
        self.own = schedule[: self._same].count(self.tid)
        self.others = self._same - self.own
        self._taken = 0
        self._recorded = schedule
        self._schedule = Lenient(schedule, self._same)

    def __call__(self, runnable: list[int]) -> int:
        if self._taken < self._same:
            self._taken += 1
            return self._recorded[self._taken - 1]
        tid = self._next(set(runnable))
        if tid == self.tid:
            if self.own == self.before:
                self.landed = self.others
            self.own += 1
        else:
            self.others += 1
        return tid

    def _next(self, able: set[int]) -> int:
        if self.landed is None and self.tid in able:
            if self.others >= self.position:
                self._schedule.out_of_turn(self.tid)
                return self.tid
            if self.own == self.before and len(able) > 1:
                able.discard(self.tid)
        return self._schedule.next(able)


def verbatim(schedule: Sequence[int], index: int, position: int) -> int:
    """How many steps are taken as recorded, before anything is different."""
    if position <= 0:
        return 0
    others = 0
    for n in range(index):
        others += schedule[n] != schedule[index]
        if others == position:
            return n + 1
    return index


class Trial:
    """Tries positions. `fails` has those the step really went to."""

    def __init__(self, schedule: Sequence[int], step: int, rerun: Rerun) -> None:
        self.schedule = schedule
        self.index = step - 1
        self.rerun = rerun
        self.fails: dict[int, bool] = {}
        self.landed: dict[int, int | None] = {}  # by position tried
        tid = schedule[self.index]
        self.here = sum(1 for other in schedule[: self.index] if other != tid)

    def lands(self, position: int) -> int | None:
        """Try a position; where the step went, None when the run was over before it could."""
        if position in self.landed:
            return self.landed[position]
        placed = Placed(self.schedule, self.index, position)
        failed = self.rerun(placed)
        landed = placed.landed
        if landed is None and failed and placed.others == position:
            landed = position  # it failed without: there is nothing to wait for
        if landed is not None:
            self.fails.setdefault(landed, failed)
        self.landed[position] = landed
        return landed

    def failed_at(self, position: int) -> bool:
        """Whether the step gets to that position and does the harm there."""
        return self.lands(position) == position and self.fails[position]

    def all(self, limit: int) -> bool:
        """Every position, later ones first; False when there are more than `limit`."""
        self.lands(self.here)
        position = self.here
        while len(self.fails) < limit:
            position += 1
            landed = self.lands(position)
            if landed is None or landed < position:
                break
        position = self.here
        while position > 0 and len(self.fails) < limit:
            position -= 1
            landed = self.lands(position)
            if landed is not None and landed > position:
                break  # it cannot go that early, nor earlier still
        return len(self.fails) < limit

    def halve(self, direction: int) -> None:
        """The end of the failing stretch on one side: further and further, then in between."""
        good, reach = self.here, 1
        while True:
            position = good + direction * reach
            if position < 0 or not self.failed_at(position):
                bad = max(position, -1)
                break
            good, reach = position, reach * 4
        furthest = self.lands(bad) if bad >= 0 else None
        if furthest is not None and furthest != bad and self.fails[furthest]:
            return  # it cannot go further, and does the harm there
        # To a sixteenth of what was found is enough to say how wide it is.
        while abs(bad - good) > max(1, abs(good - self.here) >> 4):
            middle = (good + bad) // 2
            if self.failed_at(middle):
                good = middle
            else:
                bad = middle


def measure(
    schedule: Sequence[int], step: int, actor: str, rerun: Rerun, limit: int = POSITIONS_MAX
) -> Width:
    """Move step number `step` (from 1) through every position; in a long run, find the ends of the
    failing stretch around where it was, about."""
    trial = Trial(schedule, step, rerun)
    complete = len(schedule) <= 4 * limit and trial.all(limit)
    if not complete:
        trial.lands(trial.here)
        if trial.fails.get(trial.here):
            trial.halve(-1)
            trial.halve(+1)
    failing = tuple(position for position in sorted(trial.fails) if trial.fails[position])
    return Width(actor, step, trial.here, failing, tuple(sorted(trial.fails)), not complete)

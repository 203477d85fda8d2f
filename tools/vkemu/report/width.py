"""How wide a window is, measured: at how many positions the interfering step does the harm.

The run is repeated with that step held back until so many steps of the other threads are done, for
every such number. The others keep their order, go on as they can where the recorded schedule ends,
and run to their end; what the step's own thread did before it is drawn along in front of it, what
it did after it follows behind. Where the step cannot go yet, it goes as soon as it can, which is
another position: positions are counted where the step really was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from vkemu.controlled import Choose

# Runs the program with this `choose`: True when it fails in the same way.
Rerun: TypeAlias = Callable[[Choose], bool]

POSITIONS_MAX: Final = 400


@dataclass(frozen=True, slots=True)
class Width:
    """Positions are numbers of steps of the other threads that come before the moved step."""

    actor: str
    step: int  # number of the moved step in the run
    here: int  # its position there
    failing: tuple[int, ...]
    positions: tuple[int, ...]
    partial: bool = False  # there are more positions, further away

    def __str__(self) -> str:
        tried = f"the nearest {len(self.positions)}" if self.partial else f"{len(self.positions)}"
        return f"{len(self.failing)} of {tried} positions of the {self.actor} step fail"

    @property
    def span(self) -> tuple[int, int]:
        """The first and last failing position of the unbroken stretch around where it was."""
        failing = set(self.failing)
        low = high = self.here
        while low - 1 in failing:
            low -= 1
        while high + 1 in failing:
            high += 1
        return low, high


class Placed:
    """Follows a schedule, but lets the step at `index` wait for `position` steps of others.

    `landed` is where it went in the end; None when it never did.
    """

    def __init__(self, schedule: Sequence[int], index: int, position: int) -> None:
        self.tid = schedule[index]
        self.position = position
        self.before = sum(1 for tid in schedule[:index] if tid == self.tid)
        self.others = 0
        self.own = 0
        self.landed: int | None = None
        self._pending = list(schedule)

    def __call__(self, runnable: list[int]) -> int:
        tid = self._next(runnable)
        if tid == self.tid:
            if self.own == self.before:
                self.landed = self.others
            self.own += 1
        else:
            self.others += 1
        return tid

    def _next(self, runnable: list[int]) -> int:
        able = set(runnable)
        if self.landed is None and self.tid in able:
            if self.others >= self.position:
                self._forget(self.tid)
                return self.tid
            if self.own == self.before and len(able) > 1:
                able.discard(self.tid)
        for i, tid in enumerate(self._pending):
            if tid in able:
                del self._pending[i]
                return tid
        return min(able)

    def _forget(self, tid: int) -> None:
        if tid in self._pending:
            self._pending.remove(tid)


def lenient(schedule: Sequence[int]) -> Choose:
    """Follow a schedule as far as it goes: a thread that cannot go yet is asked again later, and
    when the schedule is over the lowest goes first."""
    pending = list(schedule)

    def choose(runnable: list[int]) -> int:
        able = set(runnable)
        for i, tid in enumerate(pending):
            if tid in able:
                del pending[i]
                return tid
        return runnable[0]

    return choose


def measure(
    schedule: Sequence[int], step: int, actor: str, rerun: Rerun, limit: int = POSITIONS_MAX
) -> Width:
    """Move step number `step` (from 1) through every position; in a long run, the nearest."""
    index = step - 1
    tid = schedule[index]
    here = sum(1 for other in schedule[:index] if other != tid)
    fails: dict[int, bool] = {}

    def attempt(position: int) -> int | None:
        """Try a position; where the step went."""
        placed = Placed(schedule, index, position)
        failed = rerun(placed)
        if placed.landed is not None:
            fails.setdefault(placed.landed, failed)
        return placed.landed

    attempt(here)
    later = walk(attempt, here, limit // 2)
    earlier = here
    while earlier > 0 and len(fails) < limit:
        earlier -= 1
        landed = attempt(earlier)
        if landed is not None and landed > earlier:
            break  # it cannot go that early: nor earlier still
    failing = tuple(position for position in sorted(fails) if fails[position])
    partial = not later or len(fails) >= limit
    return Width(actor, step, here, failing, tuple(sorted(fails)), partial)


def walk(attempt: Callable[[int], int | None], here: int, limit: int) -> bool:
    """Later and later, until the step no longer gets there; whether that end was reached."""
    for position in range(here + 1, here + 1 + limit):
        landed = attempt(position)
        if landed is None or landed < position:
            return True
    return False

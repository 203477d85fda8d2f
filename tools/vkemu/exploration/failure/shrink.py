"""Shrinking: the same failure with the fewest preemptions, and then in the fewest steps.

A long schedule first by drawing others: see `fewer`. Then greedily, from the best so far: a
preemption is left out when the failure stays. Then exactly: see `fewest`. What the last part finds
does not depend on the schedule that was found. The budgets are of steps, not of seconds, so that
the same program always gives the same witness, but for what is left of the seconds the whole
search may take, when it was told; where one ends, what was found by then stands, and the witness
says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from time import perf_counter
from typing import Final

from vkemu.executors.controlled import Execution
from vkemu.exploration.failure.budget import INTERRUPTED, Budget
from vkemu.exploration.failure.fewer import drawn
from vkemu.exploration.failure.fewest import Fewest
from vkemu.exploration.failure.witness import Path, Witness, fails_as, witness_of
from vkemu.exploration.program import program_for
from vkemu.exploration.run import Fault, Run
from vkemu.exploration.strategies.strategy import ABANDON, Strategy

TRIAL_STEPS: Final = 1_000_000  # the budget of what comes before
LONG: Final = 10_000  # steps of a schedule that is too long for the exact part


class Follow(Strategy):
    """A schedule again, but that some of its preemptions are left out.

    `after` says who came next after the n-th step of a thread. Invariant: a thread goes on for as
    long as it can, unless (thread, n) is in `preempting`.
    """

    def __init__(self, schedule: list[Path], preempting: set[tuple[Path, int]]) -> None:
        self.preempting = preempting
        self.after: dict[tuple[Path, int], Path] = {}
        self.first = schedule[0] if schedule else ()
        counts: dict[Path, int] = {}
        for one, other in pairwise(schedule):
            counts[one] = counts.get(one, 0) + 1
            self.after[one, counts[one]] = other
        self.counts: dict[Path, int] = {}
        self.last = -1
        self.preempted: list[tuple[Path, int]] = []  # in this execution

    def choose(self, runnable: list[int], execution: Execution) -> int:
        threads = execution.threads
        if self.last < 0:
            wanted: Path | None = self.first
        else:
            path = threads[self.last].path
            point = (path, self.counts[path])
            wanted = self.after.get(point)
            if threads[self.last].runnable and (
                point not in self.preempting or wanted is None or wanted == path
            ):
                return self._take(self.last, execution)
        tid = execution.tids.get(wanted, -1) if wanted is not None else -1
        if tid not in runnable:
            tid = self.last if self.last in runnable else runnable[0]
        return self._take(tid, execution)

    def _take(self, tid: int, execution: Execution) -> int:
        threads = execution.threads
        if self.last not in {-1, tid} and threads[self.last].runnable:
            path = threads[self.last].path
            self.preempted.append((path, self.counts[path]))
        path = threads[tid].path
        self.counts[path] = self.counts.get(path, 0) + 1
        self.last = tid
        return tid


class Script(Strategy):
    """A schedule, step by step; and should it go on after that, with the same thread."""

    def __init__(self, schedule: list[int]) -> None:
        self.upcoming = iter(schedule)
        self.last = ABANDON

    def choose(self, runnable: list[int], execution: Execution) -> int:
        tid = next(self.upcoming, self.last)
        self.last = tid if tid in runnable else ABANDON
        return self.last


def attempt(run: Run, witness: Witness, preempting: set[tuple[Path, int]]) -> Witness | None:
    """The witness with only these preemptions, when that still fails the same way."""
    follow = Follow(witness.schedule, preempting)
    run.begin()
    follow.conduct(run)
    run.finish()
    if not fails_as(run, witness):
        return None
    return witness_of(run)._replace(preemptions=len(follow.preempted))


def preemption_points(run: Run, witness: Witness) -> list[tuple[Path, int]]:
    follow = Follow(witness.schedule, set(Follow(witness.schedule, set()).after))
    run.begin()
    follow.conduct(run)
    run.finish()
    return follow.preempted


def greedy(run: Run, best: Witness, budget: Budget) -> Witness:
    """Leave out preemptions: half of them, a quarter, ..., one by one, while it helps."""
    points = preemption_points(run, best)
    size = max(len(points) // 2, 1)
    while points and not budget.spent():
        smaller = None
        for start in range(0, len(points), size):
            if budget.spent():
                return best
            kept = points[:start] + points[start + size :]
            smaller = attempt(run, best, set(kept))
            shrunk = smaller is not None and smaller.preemptions < best.preemptions
            if smaller is not None and shrunk:
                best = smaller
            budget.take(run, best)
            if shrunk:
                points = preemption_points(run, best)
                break
        else:
            if size == 1:
                break
            size = max(size // 2, 1)
    return best


def exact(run: Run, found: Witness, budget: Budget) -> Witness:
    """The smallest witness of all, or `found` when the budget does not allow to tell."""
    longest = run.max_steps
    if len(found.schedule) > LONG:
        why = f"(it has more than {LONG:,} steps)" if not budget.over else None
        return found._replace(shrunk=budget.text(found, why))
    fewest = Fewest(run, lambda run: fails_as(run, found), budget)
    for preemptions in range(found.preemptions + 1):
        schedule = fewest.level(longest)
        if schedule is not None:
            run.max_steps = longest
            run.begin()
            Script(schedule).conduct(run)
            run.finish()
            if not fails_as(run, found):
                break
            return witness_of(run)._replace(preemptions=preemptions)
        if fewest.over:
            break
    budget.over = budget.over or "it is not found again"
    return found._replace(shrunk=budget.text(found))


def shrink(
    found: Witness,
    found_by: Run,
    steps: int = TRIAL_STEPS,
    progress: Callable[[str], None] | None = None,
    deadline: float | None = None,
) -> Witness:
    """A smallest witness of the same failure. When interrupted, or out of memory, the best so far,
    marked so."""
    found = measured(found, found_by)
    budget = Budget(found, steps // cost_of(found_by), progress, deadline)
    budget.exact //= cost_of(found_by)
    best = found
    run = fresh(found_by, found)
    try:
        if len(found.schedule) > LONG:
            best = drawn(run, found, budget)
        best = greedy(run, best, budget)
        run = fresh(found_by, found)
        return exact(run, best, budget)
    except (KeyboardInterrupt, MemoryError) as stopped:
        run.execution.close()
        best = min(best, budget.best, key=lambda witness: witness.size)
        why = "(out of memory)" if isinstance(stopped, MemoryError) else INTERRUPTED
        return best._replace(shrunk=budget.text(best, why))


def cost_of(run: Run) -> int:
    late = 200  # a step of an event loop takes as long as so many of ours
    return late if run.program.execution.late else 1


def measured(found: Witness, found_by: Run) -> Witness:
    """With its preemptions counted."""
    run = fresh(found_by, found)
    try:
        return found._replace(preemptions=len(preemption_points(run, found)))
    finally:
        run.execution.close()


def smallest(
    witnesses: Iterable[Witness],
    found_by: Run,
    progress: Callable[[str], None] | None = None,
    deadline: float | None = None,
) -> Witness:
    """Of several failures the one that is shown."""
    witnesses = list(witnesses)
    steps = TRIAL_STEPS // max(1, len(witnesses))
    shrunk: list[Witness] = []
    for witness in witnesses:
        until = deadline
        if deadline is not None:
            now = perf_counter()
            until = now + (deadline - now) / (len(witnesses) - len(shrunk))
        shrunk.append(shrink(witness, found_by, steps, progress, until))
        if shrunk[-1].shrunk.endswith(INTERRUPTED):
            break
    return min(shrunk, key=lambda witness: (*witness.size, witness.kind, witness.schedule))


def fresh(run: Run, found: Witness) -> Run:
    """The same program, its threads numbered from the beginning; it stops at that failure."""
    program = program_for(run.program.build, {}, check=run.program.check)

    def wanted(fault: Fault) -> bool:
        return fault.kind == found.kind

    return Run(program, run.max_steps, bound_fails=run.bound_fails, wanted=wanted)

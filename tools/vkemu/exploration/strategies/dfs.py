"""`dfs`: every interleaving, depth first. No reduction: the truth the others are compared with.

As loom's path and shuttle's DFS scheduler, but that the prefix of an execution is replayed without
asking who could have run, and that the search is a list, not a recursion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkemu.exploration.path import Path, withheld
from vkemu.exploration.record import Record
from vkemu.exploration.reduction.frontier import Flat, Frontier, Names, Step, retrace

if TYPE_CHECKING:
    from vkemu.exploration.run import Run

NOBODY: Final[list[int]] = []


class Dfs(Path):
    """Invariant: the record and `untried` have one entry for every step of the path."""

    name = "dfs"

    def __init__(self) -> None:
        super().__init__(Record())
        # At every step, the threads still to be tried in place of the one taken.
        self.untried: list[list[int]] = []
        self.upcoming: list[int] = NOBODY  # who to try where the path ends
        self.resumed = False

    def backtrack(self) -> bool:
        if self.resumed:
            self.resumed = False
            return True
        untried = self.untried
        root = self.root
        while len(untried) > root:
            upcoming = untried.pop()
            if upcoming:
                self.upcoming = upcoming
                self.record.truncate(len(untried))
                self.turned(len(untried))
                return True
        return False

    def left(self) -> list[list[int]]:
        return self.untried

    def export(self, names: Names) -> Frontier:
        """What is left to explore. Call between `start` and `conduct`."""

        def flat(tids: list[int]) -> Flat:
            return tuple((0, names.path(tid), None) for tid in tids)

        steps = tuple(
            Step(names.path(tid), None, (), flat(rest))
            for tid, rest in zip(self.record.tids, self.untried, strict=True)
        )
        return Frontier(self.root, steps, (), flat(self.upcoming))

    def at_floor(self, names: Names) -> Frontier:
        """All is explored from the state at `root` on."""
        self.record.truncate(self.root)
        self.upcoming = NOBODY
        return self.export(names)

    def resume(self, run: Run, names: Names, frontier: Frontier) -> None:
        """Go on from there: take the path again, to know its effects."""
        self.record = Record()
        self.begun = self.resumed = True
        self.root = frontier.root
        run.begin()
        run.settle()
        for tid, _ in retrace(run, names, frontier, self.record):
            self.record.tids.append(tid)
            self.record.effects.append(run.execution.effect_of(tid))  # type: ignore[arg-type]
        self.untried = [[names.tid(path) for _, path, _ in step.tree] for step in frontier.steps]
        self.upcoming = [names.tid(path) for _, path, _ in frontier.tree]
        self.remember(run)
        run.finish()

    def extend(self, run: Run) -> None:
        execution = run.execution
        runnable = execution.runnable
        record = self.record
        tids = record.tids
        limit = run.max_steps
        upcoming = self.upcoming
        self.upcoming = NOBODY
        if upcoming and upcoming[0] not in runnable:
            raise withheld(run, upcoming[0])
        while (left := limit - len(tids)) > 0:
            if not runnable:
                if not execution.left or not execution.advance():
                    return
                record.advanced()
            elif run.watched:
                if not self._take(run, upcoming or runnable):
                    return
            else:
                going = execution.descend(tids, record.effects, self.untried, upcoming, left)
                if not going and (run.thread_failed() or not run.watch()):
                    return
            upcoming = NOBODY
        run.cut = bool(runnable) or execution.advance()

    def _take(self, run: Run, candidates: list[int]) -> bool:
        """One step, of the first candidate. False when the execution stops there."""
        execution = run.execution
        tid = candidates[0]
        self.record.tids.append(tid)
        self.record.effects.append(execution.threads[tid].pending)  # type: ignore[arg-type]
        self.untried.append(candidates[1:])
        if not execution.step(tid) and run.thread_failed():
            return False
        return not run.watched or run.watch()

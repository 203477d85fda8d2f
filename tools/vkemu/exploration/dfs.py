"""`dfs`: every interleaving, depth first. No reduction: the truth the others are compared with.

As loom's path and shuttle's DFS scheduler, but that the prefix of an execution is replayed without
asking who could have run, and that the search is a list, not a recursion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkemu.exploration.path import Path, Record

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

    def backtrack(self) -> bool:
        untried = self.untried
        at = len(untried) - 1
        while at >= 0 and not untried[at]:
            at -= 1
        if at < 0:
            return False
        self.upcoming = untried[at]
        self.record.truncate(at)
        del untried[at:]
        return True

    def extend(self, run: Run) -> None:
        execution = run.execution
        runnable = execution.runnable
        threads = execution.threads
        record = self.record
        tids = record.tids
        effects = record.effects
        untried = self.untried
        step = execution.step
        watched = run.watched
        limit = run.max_steps
        upcoming = self.upcoming
        self.upcoming = NOBODY
        while True:
            if upcoming:
                rest = upcoming[1:]
                tid = upcoming[0]
                upcoming = NOBODY
            elif runnable:
                tid = runnable[0]
                rest = runnable[1:] if len(runnable) > 1 else NOBODY
            elif execution.advance():
                record.advanced()
                continue
            else:
                return
            if len(tids) >= limit:
                run.cut = True
                return
            tids.append(tid)
            effects.append(threads[tid].pending)  # type: ignore[arg-type]
            untried.append(rest)
            if not step(tid) and run.thread_failed():
                return
            if watched and not run.watch():
                return

"""`bounded`: every interleaving with at most so many preemptions.

Musuvathi, Qadeer: Iterative Context Bounding for Systematic Testing of Multithreaded Programs,
PLDI 2007 (CHESS). A preemption is a switch away from a thread that could have gone on. By itself
the strategy does bound 0, 1, 2, ... until a bound leaves nothing out; `bounded:2` does bound 2
alone. No fairness, and no reduction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkemu.exploration.path import withheld
from vkemu.exploration.strategies.dfs import NOBODY, Dfs

if TYPE_CHECKING:
    from vkemu.exploration.run import Run


class Bounded(Dfs):
    """Invariant: `spent` has one entry for every step, the preemptions up to and with it."""

    name = "bounded"

    def __init__(self, bound: int | None = None) -> None:
        super().__init__()
        self.fixed = bound is not None
        self.bound = bound or 0
        self.left_out = False  # an alternative was not tried, for want of preemptions
        self.spent: list[int] = []

    def backtrack(self) -> bool:
        if super().backtrack():
            del self.spent[len(self.record) :]
            return True
        if self.fixed or not self.left_out:
            return False
        self.bound += 1
        self.left_out = False
        self.record.truncate(0)
        self.record.advances.clear()
        self.untried.clear()
        self.spent.clear()
        self.done.clear()
        return True

    def exhausted(self) -> bool:
        """Whether nothing was left out."""
        return not self.left_out

    def extend(self, run: Run) -> None:
        execution = run.execution
        runnable = execution.runnable
        threads = execution.threads
        record = self.record
        tids = record.tids
        spent = self.spent
        upcoming = self.upcoming
        self.upcoming = NOBODY
        if upcoming and upcoming[0] not in runnable:
            raise withheld(run, upcoming[0])
        for _ in range(len(tids), run.max_steps):
            while not runnable:
                if not execution.advance():
                    break
                record.advanced()
            if not runnable:
                break
            used = spent[-1] if spent else 0
            last = tids[-1] if tids and threads[tids[-1]].runnable else -1
            if not upcoming:
                upcoming = runnable[:]
                if last >= 0:  # going on comes first: it costs nothing
                    upcoming.remove(last)
                    if used < self.bound:
                        upcoming.insert(0, last)
                    else:
                        self.left_out = self.left_out or bool(upcoming)
                        upcoming = [last]
            tid = upcoming[0]
            tids.append(tid)
            record.effects.append(threads[tid].pending)  # type: ignore[arg-type]
            self.untried.append(upcoming[1:])
            spent.append(used + (last not in {-1, tid}))
            upcoming = NOBODY
            if not execution.step(tid) and run.thread_failed():
                break
            if run.watched and not run.watch():
                break
        else:
            run.cut = bool(runnable) or execution.advance()
        # With fewer preemptions it was had under a smaller bound.
        run.repeated = not self.fixed and bool(spent) and spent[-1] < self.bound

"""`random`: every step by a thread drawn uniformly from those that can run.

The baseline of the field: shuttle's random scheduler, and simpler than any paper. Executions are
not equally likely (see `urw`), but any of them can come up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkemu.exploration.strategies.sampling import Sampling

if TYPE_CHECKING:
    from vkemu.executors.controlled import Execution
    from vkemu.exploration.run import Run


class RandomWalk(Sampling):
    name = "random"

    def conduct(self, run: Run) -> None:
        execution = run.execution
        going = run.settle()
        while going:
            if run.watched:
                self.go_on(run)
                return
            left = run.max_steps - len(run.schedule)
            if not execution.wander(self.rng.getrandbits, run.schedule, left):
                going = not run.thread_failed() and (not run.watched or run.watch())
            elif execution.runnable:
                run.cut = True
                return
            else:
                going = execution.advance()

    def choose(self, runnable: list[int], execution: Execution) -> int:
        return runnable[self.rng.getrandbits(24) * len(runnable) >> 24]

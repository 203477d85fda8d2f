"""What a strategy is: an object that says which thread takes the next step.

Only `choose` is needed. The others have the meaning documented here, and a user's own object may
leave them out. `Strategy` is a convenient base and a protocol in one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vkemu.exploration.result import ExplorationError

if TYPE_CHECKING:
    from vkemu.executors.controlled import Execution
    from vkemu.exploration.run import Run

ABANDON: Final = -1


class Strategy:
    """One search. `exhaustive`: it ends by itself, and then nothing is left."""

    name = "own"
    exhaustive = False

    def start(self) -> bool:
        """Before every execution; False when nothing is left."""
        return True

    def choose(self, runnable: list[int], execution: Execution) -> int:
        """One of `runnable` (sorted, not empty), or ABANDON to give this execution up."""
        raise NotImplementedError

    def finish(self, complete: bool) -> None:
        """After every execution that was not abandoned; `complete` unless the bound cut it."""

    def conduct(self, run: Run) -> None:
        """The whole of one execution, for strategies that need more than `choose`."""
        if run.settle():
            Strategy.go_on(self, run)  # which a strategy of one's own has not

    def go_on(self, run: Run) -> None:
        """From where it is to its end."""
        execution = run.execution
        runnable = execution.runnable
        choose = self.choose
        schedule = run.schedule
        limit = run.max_steps
        while True:
            if not runnable:
                if not execution.advance():
                    return
                continue
            if len(schedule) >= limit:
                run.cut = True
                return
            tid = choose(runnable, execution)
            if tid not in runnable:
                run.blocked = abandoned(self, tid, runnable)
                return
            schedule.append(tid)
            if not execution.step(tid) and run.thread_failed():
                return
            if run.watched and not run.watch():
                return


def abandoned(strategy: object, tid: int, runnable: list[int]) -> bool:
    """Whether it chose to give up; ExplorationError when it chose what there is not."""
    if tid == ABANDON:
        return True
    name = getattr(strategy, "name", type(strategy).__name__)
    raise ExplorationError(
        f"strategy {name}: choose() gave {tid!r}, expected one of {runnable} or ABANDON"
    )

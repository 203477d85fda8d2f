"""Executions whose footprints are known only after a step: the second front of the reductions.

A step of a kernel announces what it touches; what a task of an event loop touches before its next
checkpoint nobody can say before it got there. What changes:

* an event is added to the trace once it was taken, with the events that it had to come after
  whatever it touches (it was woken by one of them);
* the second event of a reversed race is taken to touch, in its new place, what it touched in the
  old one. Until it reads something that differs it does the same, and what it read of a step it
  conflicts with it conflicts in either order: a wrong guess leads to another race, not past one;
* threads that wait have no races of their own: whoever wakes them has;
* what could have come before an event, and never came (a deadline that was put off, a callback that
  was cancelled), the execution says itself: `might`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from vkprotocol.effects import Effect

from vkemu.executors.controlled import Execution
from vkemu.exploration.reduction.footprint import Race, dependent
from vkemu.exploration.reduction.trace import Trace

if TYPE_CHECKING:
    from vkemu.exploration.reduction.reduction import Reduction
    from vkemu.exploration.reduction.wakeup import Tree
    from vkemu.exploration.run import Run


def extend(self: Reduction, run: Run) -> None:
    """New steps, until the execution is over."""
    execution: Any = run.execution
    trace = self.trace
    runnable = execution.runnable
    sleep = self.sleep
    tree = self.tree
    last = -1
    while runnable and len(trace) < run.max_steps:
        tid, below = chosen(tree, sleep, runnable, last)
        if tid < 0:
            run.blocked = True
            break
        effect = execution.threads[tid].pending
        going = execution.step(tid)
        turn = execution.taken
        self.sleeps.append(sleep)
        self.trees.append(tree)
        trace.add_after(tid, effect, turn.codes, turn.must, execution.births)
        if sleep:
            sleep = [
                sleeper
                for sleeper in sleep
                if sleeper[0] != tid
                and sleeper[1] is not None
                and not dependent(sleeper[1], turn.codes)
            ]
        tree = below
        last = tid
        if not going and run.thread_failed():
            break
    else:
        run.cut = bool(runnable)
    self.waiting += rivals(trace, execution)
    if execution.stale():
        self.stale = True


def chosen(tree: Tree, sleep: Tree, runnable: list[int], last: int) -> tuple[int, Tree]:
    from vkemu.exploration.reduction.reduction import awake

    if tree:
        tid, _, below = tree.pop(0)
        if tid in runnable:
            return tid, below
        return awake(runnable, sleep), []
    asleep = {sleeper[0] for sleeper in sleep}
    if last in runnable and last not in asleep:
        return last, []
    return awake(runnable, sleep), []


def rivals(trace: Trace, execution: Any) -> list[Race]:
    """Races of what could have come before an event, and never came."""
    found: list[Race] = []
    end = len(trace)
    for first, tid, footprint, must in execution.might:
        if first >= end:
            continue
        birth = trace.births[tid]
        past = trace.after(trace.clocks[birth] if birth >= 0 else 0, must)
        if not past >> first & 1:
            found.append((first, end, tid, footprint, past, ()))
    return found


def adding(trace: Trace, execution: Execution) -> Callable[[int, Effect], Any]:
    """What adds a step that was just taken."""
    world = cast("Any", execution)

    def add(tid: int, _: Effect) -> None:
        turn = world.taken
        trace.add_after(tid, turn, turn.codes, turn.must, world.births)

    return add

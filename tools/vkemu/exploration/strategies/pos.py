"""`pos`: a random priority for every pending operation, drawn anew when it loses a race.

Yuan, Yang, Gu: Partial Order Aware Concurrency Sampling, CAV 2018. The operation with the highest
priority is taken; then the operations that race with it, and its thread's next one, get new
priorities. So both orders of a race are equally likely, whatever else is pending. Deviation:
operations of waiting threads race like the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.effects import Effect

from vkemu.exploration.strategies.sampling import Sampling

if TYPE_CHECKING:
    from vkemu.executors.controlled import Execution


class Pos(Sampling):
    name = "pos"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.priorities: dict[int, float] = {}  # by thread, of its pending operation

    def start(self) -> bool:
        self.priorities = {}
        return super().start()

    def choose(self, runnable: list[int], execution: Execution) -> int:
        priorities = self.priorities
        draw = self.draw
        best = -1
        high = -1.0
        for tid in runnable:
            priority = priorities.get(tid)
            if priority is None:
                priority = priorities[tid] = draw()
            if priority > high:
                high = priority
                best = tid
        threads = execution.threads
        taken = threads[best].pending
        assert taken is not None
        del priorities[best]
        for tid in list(priorities):
            pending = threads[tid].pending
            if pending is None or conflict(taken, pending):
                del priorities[tid]
        return best


def conflict(one: Effect, other: Effect) -> bool:
    """Whether two operations touch one object, and one of them writes it."""
    if one.obj is other.obj and (one.write or other.write):
        return True
    if not one.also and not other.also:
        return False
    mine = ((one.obj, one.write), *one.also)
    theirs = ((other.obj, other.write), *other.also)
    return any(a is b and (v or w) for a, v in mine for b, w in theirs)

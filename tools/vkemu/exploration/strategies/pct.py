"""`pct`: random priorities with d - 1 random points where the running thread drops to the end.

Burckhardt, Kothari, Musuvathi, Nagarakatte: A Randomized Scheduler with Probabilistic Guarantees of
Finding Bugs, ASPLOS 2010. A bug of depth d in n threads and k steps is found with probability at
least 1 / (n * k^(d-1)) in every execution. Deviations: k is the longest execution so far, not
known in advance (so the first execution has no change points); threads that are spawned while
others run take a random place among the priorities. `pct:5` is depth 5; `pct` alone is depth 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkemu.exploration.strategies.sampling import Sampling

if TYPE_CHECKING:
    from vkemu.executors.controlled import Execution


class Pct(Sampling):
    name = "pct"

    def __init__(self, seed: int, depth: int = 3) -> None:
        super().__init__(seed)
        self.depth = depth
        self.longest = 0  # of the executions of this block
        self.taken = 0
        # By thread: initial priorities are random in [1, 2), the dropped ones are <= 0.
        self.priorities: dict[int, float] = {}
        self.changes: dict[int, int] = {}  # by step: the priority the running thread gets

    def new_block(self) -> None:
        self.longest = 0
        self.taken = 0

    def start(self) -> bool:
        self.longest = max(self.longest, self.taken)
        super().start()
        self.taken = 0
        self.priorities = {}
        steps = range(1, self.longest)
        drops = self.rng.sample(steps, min(self.depth - 1, len(steps)))
        self.changes = {step: -number for number, step in enumerate(drops)}
        return True

    def choose(self, runnable: list[int], execution: Execution) -> int:
        priorities = self.priorities
        best = -1
        high = float("-inf")
        for tid in runnable:
            priority = priorities.get(tid)
            if priority is None:
                priority = priorities[tid] = 1 + self.draw()
            if priority > high:
                high = priority
                best = tid
        self.taken += 1
        if self.taken in self.changes:
            priorities[best] = self.changes[self.taken]
        return best

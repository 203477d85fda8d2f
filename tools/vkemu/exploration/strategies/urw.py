"""`urw`: every execution about equally likely.

Zhao, Wolff, Mathur, Roychoudhury: Selectively Uniform Concurrency Testing, ASPLOS 2025 (its URW;
also in shuttle). The next thread is drawn with a weight: how many steps it, and the threads it
will still spawn, have to go. With exact weights and no waiting that is uniform over interleavings.
Deviations: the steps of a thread are the mean over the executions of its block so far, at
least one while it can run; the first execution of a block is a plain random walk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkemu.exploration.strategies.sampling import Sampling

if TYPE_CHECKING:
    from vkemu.executors.controlled import Execution

Path = tuple[int, ...]


class Urw(Sampling):
    name = "urw"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.forget()

    def forget(self) -> None:
        self.seen = 0  # executions behind the estimates
        self.totals: dict[Path, int] = {}  # by thread, steps in all of them
        self.below: dict[Path, list[Path]] = {}  # by thread, the threads it led to
        self.taken: dict[Path, int] = {}  # in this one

    def new_block(self) -> None:
        self.forget()

    def finish(self, complete: bool) -> None:
        self.seen += 1
        for path, steps in self.taken.items():
            if path not in self.totals:
                self.totals[path] = 0
                for length in range(1, len(path)):
                    self.below.setdefault(path[:length], []).append(path)
            self.totals[path] += steps

    def start(self) -> bool:
        super().start()
        self.taken = {}
        return True

    def choose(self, runnable: list[int], execution: Execution) -> int:
        threads = execution.threads
        weights = [self.weight(threads[tid].path) for tid in runnable]
        point = self.draw() * sum(weights)
        tid = runnable[-1]
        for candidate, weight in zip(runnable, weights, strict=True):
            point -= weight
            if point < 0:
                tid = candidate
                break
        path = threads[tid].path
        self.taken[path] = self.taken.get(path, 0) + 1
        return tid

    def weight(self, path: Path) -> float:
        if not self.seen:
            return 1.0
        left = self.totals.get(path, 0) / self.seen - self.taken.get(path, 0)
        left = max(left, 1.0)
        for other in self.below.get(path, ()):
            # A descendant that takes no step yet, and whose ancestors below us took none either.
            if other not in self.taken:
                left += self.totals[other] / self.seen
        return left

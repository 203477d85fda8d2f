"""Few preemptions, by drawing: the first, cheap cuts in a failure of a whole scenario.

A schedule drawn at random has thousands of preemptions, and leaving them out one by one would take
thousands of executions. Most failures do not need them (most bugs are of small depth: Burckhardt et
al., ASPLOS 2010). So other schedules are drawn, with one preemption in ten steps, in a hundred, in
a thousand, at last with none, for as long as one of a kind fails in the same way. The draws are the
same in every process.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from vkemu.executors.controlled import Execution
from vkemu.exploration.failure.witness import Witness, fails_as, witness_of
from vkemu.exploration.strategies.strategy import Strategy

if TYPE_CHECKING:
    from vkemu.exploration.failure.budget import Budget
    from vkemu.exploration.run import Run


class Sticky(Strategy):
    """A thread goes on until it cannot, or until one step in `rarity` is drawn; another follows,
    whichever."""

    def __init__(self, rarity: int, seed: int) -> None:
        self.rarity = rarity
        self.draw = Random(seed).random
        self.last = -1
        self.preemptions = 0

    def choose(self, runnable: list[int], execution: Execution) -> int:
        last = self.last
        able = last in runnable
        if able and not (self.rarity and self.draw() * self.rarity < 1):
            return last
        self.last = runnable[int(self.draw() * len(runnable))]
        self.preemptions += able and self.last != last
        return self.last


def drawn(run: Run, found: Witness, budget: Budget) -> Witness:
    """The smallest of some executions that fail as `found` does, with fewer preemptions; else
    `found`."""
    best = found
    rarities = (10, 100, 1000, 0)  # one preemption in so many steps; 0: none
    each = 8  # executions, at most
    for rarity in rarities:
        before = best
        for seed in range(each):
            if budget.spent():
                return best
            sticky = Sticky(rarity, seed)
            run.begin()
            sticky.conduct(run)
            run.finish()
            if fails_as(run, found):
                witness = witness_of(run)._replace(preemptions=sticky.preemptions)
                best = min(best, witness, key=size)
            budget.take(run, best)
            if best is not before:
                break
        else:
            break
    return best


def size(witness: Witness) -> tuple[int, int]:
    return witness.size

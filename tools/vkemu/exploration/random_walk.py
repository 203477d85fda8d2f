"""`random`: every step by a thread drawn uniformly from those that can run.

The baseline of the field (shuttle's random scheduler, and simpler than any paper). The executions
come in blocks of 64 with a generator each, made from the seed and the number of the block, so that
the same seed gives the same executions however they are spread over processes.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from vkemu.exploration.strategy import Strategy

if TYPE_CHECKING:
    from vkemu.controlled import Execution

BLOCK: Final = 64


class Sampling(Strategy):
    """Executions drawn at random: numbered, in blocks with a generator each."""

    def __init__(self, seed: int, first_block: int = 0) -> None:
        self.seed = seed
        self.index = first_block * BLOCK
        self.rng = Random()

    def start(self) -> bool:
        if not self.index % BLOCK:
            self.rng = Random(((self.seed & (1 << 64) - 1) << 64) | (self.index // BLOCK))
            self.draw = self.rng.random
        self.index += 1
        return True


class RandomWalk(Sampling):
    name = "random"

    def choose(self, runnable: list[int], execution: Execution) -> int:
        return runnable[int(self.draw() * len(runnable))]

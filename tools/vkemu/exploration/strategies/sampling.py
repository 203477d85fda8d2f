"""What the random strategies share: executions come in blocks, with a generator for each.

A generator is made from the seed and the number of its block, so that the same seed gives the same
executions however the blocks are spread over processes.
"""

from __future__ import annotations

from random import Random
from typing import Final

from vkemu.exploration.strategies.strategy import Strategy

BLOCK: Final = 64


class Sampling(Strategy):
    """Executions drawn at random. `draw` is uniform in [0, 1)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed & (1 << 64) - 1
        self.index = 0  # of the next execution
        self.rng = Random()
        self.draw = self.rng.random

    def start(self) -> bool:
        if not self.index % BLOCK:
            self.rng = Random(self.seed << 64 | self.index // BLOCK)
            self.draw = self.rng.random
            self.new_block()
        self.index += 1
        return True

    def begin_at(self, block: int) -> None:
        """Draw from this block on."""
        self.index = block * BLOCK

    def new_block(self) -> None:
        """Forget what earlier executions taught: another process may have had them."""

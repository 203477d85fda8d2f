"""`random`: every step by a thread drawn uniformly from those that can run.

The baseline of the field: shuttle's random scheduler, and simpler than any paper. Executions are
not equally likely (see `urw`), but any of them can come up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkemu.exploration.sampling import Sampling

if TYPE_CHECKING:
    from vkemu.controlled import Execution


class RandomWalk(Sampling):
    name = "random"

    def choose(self, runnable: list[int], execution: Execution) -> int:
        return runnable[int(self.draw() * len(runnable))]

"""What the shrinking of a failure may cost, and how far it came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vkemu.exploration.failure.witness import Witness
from vkemu.exploration.run import Run

TRIALS: Final = 400  # executions
INTERRUPTED: Final = "(interrupted)"  # at the end of how far it was shrunk


class Budget:
    """What the shrinking of one failure may still cost, before the exact part."""

    def __init__(self, found: Witness, steps: int, progress: Callable[[str], None] | None) -> None:
        self.found = found
        self.best = found
        self.bound = steps
        self.left = steps
        self.executions = 0
        self.progress = progress

    def spent(self) -> bool:
        return self.left <= 0 or self.executions >= TRIALS

    def take(self, run: Run, best: Witness) -> None:
        """An execution more; and say how far it is."""
        self.left -= len(run.schedule)
        self.executions += 1
        self.best = best
        if self.progress is not None:
            self.progress(
                f"shrinking: {self.executions} executions, {best.preemptions:,} preemptions, "
                f"{len(best.schedule):,} steps"
            )

    def text(self, best: Witness, *, interrupted: bool = False) -> str:
        found = self.found
        bound = f"(bound: {TRIALS} executions or {self.bound:,} steps)"
        return (
            f"from {len(found.schedule):,} steps and {found.preemptions:,} preemptions to "
            f"{len(best.schedule):,} and {best.preemptions:,}, in {self.executions} executions; a "
            f"smaller one is not ruled out {INTERRUPTED if interrupted else bound}"
        )

"""What the shrinking of a failure may cost, and how far it came."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final

from vkemu.exploration.failure.witness import Witness
from vkemu.exploration.run import Run

STEPS: Final = 1_200_000  # of the exact part
STATES: Final = 900_000  # that the exact part remembers: 200 MiB
INTERRUPTED: Final = "(interrupted)"  # at the end of how far it was shrunk


class Budget:
    """What the shrinking of one failure may still cost. `over` is the bound that was hit.

    `steps` is for what comes before the exact part; `deadline`, of `perf_counter`, is for all.
    """

    def __init__(
        self,
        found: Witness,
        steps: int,
        progress: Callable[[str], None] | None = None,
        deadline: float | None = None,
    ) -> None:
        self.found = found
        self.best = found
        self.bound = self.left = steps
        self.exact = STEPS
        self.executions = 0
        self.progress = progress
        self.began = perf_counter()
        self.deadline = deadline
        self.over = ""

    def spent(self) -> bool:
        """Before the exact part."""
        trials = 400  # executions, before the exact part
        if self.left <= 0:
            self.over = f"{self.bound:,} steps"
        elif self.executions >= trials:
            self.over = f"{trials} executions"
        return self.late() or bool(self.over)

    def late(self) -> bool:
        if self.deadline is not None and perf_counter() >= self.deadline:
            self.over = f"{max(self.deadline - self.began, 0):.1f} s"
            return True
        return False

    def exhausted(self, states: int) -> bool:
        """In the exact part, which remembers so many states."""
        mib = 200
        if self.exact <= 0:
            self.over = f"{STEPS:,} steps"
        elif states > STATES:
            self.over = f"{mib} MiB"
        else:
            return self.late()
        return True

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

    def text(self, best: Witness, why: str | None = None) -> str:
        """How far it came; `why` it ended, when no bound was hit."""
        found = self.found
        return (
            f"from {len(found.schedule):,} steps and {found.preemptions:,} preemptions to "
            f"{len(best.schedule):,} and {best.preemptions:,}, in {self.executions} executions; a "
            f"smaller one is not ruled out {why or f'(bound: {self.over})'}"
        )

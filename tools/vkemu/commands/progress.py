"""A line on the terminal for what takes longer than two seconds; nothing anywhere else."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status


class Progress:
    """Counts on stderr, and only if that is a terminal."""

    def __init__(self, what: str, *, enabled: bool = True) -> None:
        self._what = what
        self._enabled = enabled and sys.stderr is not None and sys.stderr.isatty()
        self._start = time.monotonic()
        self._seed: int | None = None
        self._steps = 0
        self.found = ""  # the verdict of a seed that does not pass
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._status is not None:
            self._status.stop()

    def seed(self, seed: int) -> None:
        self._seed = seed
        self._steps = 0

    def known(self, first: int) -> str:
        """What to say when it ends before its time; the search began with the seed `first`."""
        text = f"{self._what}, seed {self._seed}"
        if self.found:
            return f"{text}: {self.found}, not recorded"
        passed = (self._seed or first) - first
        before = f"; {passed:,} seed{'s' * (passed > 1)} before it pass{'es' * (passed == 1)}"
        return f"{text} is at step {self._steps:,}{before if passed else ''}"

    def step(self, steps: int) -> None:
        self._steps = steps
        patience_s = 2.0
        if not self._enabled or time.monotonic() - self._start < patience_s:
            return
        text = f"{self._what}: step {steps:,}"
        if self._seed is not None:
            text += f", seed {self._seed}"
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True).status(text)
            self._status.start()
        self._status.update(text)

"""A failing schedule, and of which kind the failure is."""

from __future__ import annotations

from typing import Final, NamedTuple

from vkemu.exploration.run import Fault, Run, kind_of

WITNESSES_MAX: Final = 16  # kinds of failures of one exploration that are told apart
Path = tuple[int, ...]


class Witness(NamedTuple):
    """A failing schedule, the threads named by where they come from."""

    kind: str
    message: str
    schedule: list[Path]
    preemptions: int = 0
    shrunk: str = ""  # how far, when a smaller one is not ruled out

    @property
    def size(self) -> tuple[int, int]:
        return self.preemptions, len(self.schedule)


def witness_of(run: Run, fault: Fault | None = None) -> Witness:
    """Of an execution that failed, just now."""
    if fault is None:
        assert run.error is not None
        fault = Fault(run.error, run.blame, run.failed_at)
    threads = run.execution.threads
    paths = [threads[tid].path for tid in run.schedule[: fault.at]]
    return Witness(fault.kind, fault.message, paths)


def fails_as(run: Run, witness: Witness) -> bool:
    return run.error is not None and kind_of(run.error) == witness.kind

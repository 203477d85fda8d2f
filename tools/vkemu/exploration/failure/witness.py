"""A failing schedule, and of which kind the failure is."""

from __future__ import annotations

from typing import Final, NamedTuple

from vkemu.executors.controlled import Deadlock
from vkemu.exploration.run import PredicateError, Run

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


def witness_of(run: Run) -> Witness:
    """Of an execution that failed, just now."""
    threads = run.execution.threads
    paths = [threads[tid].path for tid in run.schedule]
    return Witness(kind_of(run), run.message(), paths)


def kind_of(run: Run) -> str:
    """Two failures of one kind are taken for the same."""
    error = run.error
    if isinstance(error, Deadlock):
        return "deadlock"
    if isinstance(error, PredicateError):
        return str(error)
    name = type(error).__name__
    said = getattr(error, "kind", None)  # which check of the oracle, say
    if isinstance(said, str):
        return f"{name} {said}"
    if isinstance(error, AssertionError):
        return f"{name} {line_of(error)}"
    return name


def line_of(error: BaseException) -> str:
    """Where it was raised."""
    place = ""
    traceback = error.__traceback__
    while traceback is not None:
        place = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place

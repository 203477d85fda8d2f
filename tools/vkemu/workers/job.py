"""A job, who does it, and what comes back."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol


def never() -> bool:
    return False


class Kept(dict[Any, Any]):
    """What a worker keeps from one job to the next, under keys of the jobs' choice."""

    def __init__(
        self, kept: Mapping[Any, Any] | None = None, recalled: Callable[[], bool] = never
    ) -> None:
        super().__init__(kept or {})
        self.recalled = recalled  # whether the job at hand is, see `Workers`


class WorkersError(Exception):
    """The work cannot be done there. One line."""


class Job(Protocol):
    """Plain data, to be pickled. What `perform` returns has the `number` of the job, and an `error`
    that is None when there was none."""

    @property
    def number(self) -> int: ...

    def perform(self, kept: Kept) -> Any: ...


class Workers(Protocol):
    """Where jobs are done. Those that know how many they are say so in `count`; where jobs can be
    told that somebody has nothing to do, `recall()` tells those under way."""

    def submit(self, job: Any) -> None:
        """Have a job done, now or later."""

    def results(self) -> list[Any]:
        """What came of at least one job, waiting for it. Only while a job is under way."""

    def close(self) -> None:
        """Drop what is under way."""


class Failed(NamedTuple):
    """What comes back of a job that could not be begun."""

    number: int
    error: BaseException


def count_of(workers: Workers, otherwise: int = 1) -> int:
    """How many jobs are done at a time, as far as it is known."""
    return max(1, getattr(workers, "count", otherwise))


def performed(number: int, packed: bytes, kept: Kept) -> bytes:
    """Do a pickled job; its report, pickled. Nothing that is wrong with the job is raised."""
    try:
        job: Job = pickle.loads(packed)
        return pickle.dumps(job.perform(kept))
    except Exception as error:
        return pickle.dumps(Failed(number, portable(error)))


def portable(error: BaseException) -> BaseException:
    """The error, or one that says the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error

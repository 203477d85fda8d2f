"""What an exploration says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from vkemu.executors.deadline import TimeIsUp, if_struck

if TYPE_CHECKING:
    from vkemu.exploration.failure.narration import StepRecord

Verdict: TypeAlias = Literal["pass", "fail", "unknown"]


class ExplorationError(Exception):
    """Something is wrong with what was asked, or with the program as a program to explore."""


class StrategyError(ExplorationError, ValueError):
    """There is no strategy of this name."""


class NondeterminismError(ExplorationError):
    """The program did something else under the same schedule. Its fault: wall clock, randomness,
    the order of a set, or state kept from one execution to the next."""


class Unseen(NondeterminismError):
    """Something that the footprints of a world do not explain: no verdict but a failure that can
    be had again is to be trusted."""


def differs(what: str, was: str, now: str) -> NondeterminismError:
    if_struck()  # that is why
    return NondeterminismError(
        f"the program is not deterministic: {what} was {was} and is {now} under the same schedule"
    )


class TokenError(ExplorationError):
    """The token is damaged, of another version, or of another program."""


class Failure:
    """One failing execution. `steps` tells it step by step; str() is the narration.

    `shrunk` says how far it was shrunk, when a smaller one is not ruled out.
    """

    __slots__ = ("error", "message", "preemptions", "schedule", "shrunk", "steps", "token")

    def __init__(
        self,
        message: str,
        schedule: Sequence[int],
        *,
        token: str = "",
        steps: Sequence[StepRecord] = (),
        preemptions: int = 0,
        shrunk: str = "",
        error: BaseException | None = None,
    ) -> None:
        self.message = message
        self.schedule = list(schedule)
        self.token = token
        self.steps = list(steps)
        self.preemptions = preemptions
        self.shrunk = shrunk
        self.error = error

    def __repr__(self) -> str:
        return f"<Failure {self.message!r} token={self.token!r}>"

    def __str__(self) -> str:
        return self.narrated()

    def narrated(self, columns: int = 0) -> str:
        """The narration, for a terminal of so many columns."""
        from vkemu.exploration.failure.narration import narrate

        details = getattr(self.error, "details", ())
        return narrate(self.message, details, self.steps, self.token, columns)


class Result:
    """The outcome of `explore`.

    `executions`: complete ones, which end properly, in a failure or in a deadlock.
    `blocked`: begun and abandoned by a reduction. `cut`: ended by the step bound.
    `exhausted`: nothing is left to explore, and none was cut.
    `steps`: taken in all, replayed prefixes included.
    `bound`: of an unknown verdict, what ended the search, in words. `interrupted`: by the user.
    `at_failure`: the first failure ended it.
    `stuck`: the line of a thread that took no step while the budget of seconds ran out.
    `kinds`: the failures that can be told apart, of all executions, each as its message.
    `remarks`: what made the search larger than it had to be, or that there was nothing to search,
        each in one line.
    `doubt`: why nothing can be said, when what a program shares was not all seen.
    """

    __slots__ = (
        "at_failure", "blocked", "bound", "cut", "depth", "doubt", "executions", "exhausted",
        "failure", "failures", "interrupted", "kinds", "remarks", "seconds", "seed", "share",
        "stage", "steps", "strategy", "stuck", "verdict", "workers",
    )  # fmt: skip

    def __init__(self, strategy: str, seed: int) -> None:
        self.strategy = strategy
        self.seed = seed
        self.verdict: Verdict = "unknown"
        self.workers = 1  # that share the search, by now
        self.executions = 0
        self.blocked = 0
        self.cut = 0
        self.steps = 0
        self.depth = 0
        self.doubt = ""
        self.stage = ""  # what is done with the failure that was found
        self.share: float | None = None  # estimate of how much of the search is done
        self.exhausted = False
        self.failure: Failure | None = None
        self.failures = 0
        self.kinds: list[str] = []
        self.remarks: list[str] = []
        self.seconds = 0.0
        self.bound = ""
        self.interrupted = False
        self.at_failure = False
        self.stuck = ""

    def stopped(self, by: KeyboardInterrupt) -> None:
        """The search was ended in the middle of an execution."""
        if isinstance(by, TimeIsUp):
            self.stuck = by.place
        else:
            self.interrupted = True

    def __repr__(self) -> str:
        return (
            f"<Result {self.verdict} executions={self.executions} blocked={self.blocked} "
            f"exhausted={self.exhausted} strategy={self.strategy!r}>"
        )

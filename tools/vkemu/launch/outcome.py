"""One execution to its end: who chose, what was chosen, and how it came out."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vkprotocol.effects import LockOrderError
from vkprotocol.guarded import Unguarded

from vkemu.executors.announced import blocked_on
from vkemu.executors.controlled import Choose, Execution, StepBound
from vkemu.executors.deadlock import Deadlock
from vkemu.oracle import Violation
from vkemu.verdict import UsageError, Verdict
from vkguest.kern.errors import GuestPanic
from vkhost.kern.panic import Panic

TICK = 1 << 12  # steps between two calls of `tick`
STALL_STEPS = 50 * TICK


class WrongMemory(AssertionError):
    """A guest program found in its memory what nobody of its process put there."""


class InnocentKilled(AssertionError):
    """The host killed the wrong process."""


# What a run may end in that is about the kernels. Anything else, an assertion of ours too, is a
# bug in vkemu itself and never a verdict.
FAILURES = (
    Violation, Panic, GuestPanic, Deadlock, LockOrderError, Unguarded, WrongMemory, InnocentKilled,
)  # fmt: skip


class NothingRan(Exception):
    """No guest came up, so nothing was checked."""


class Stalled(StepBound):
    """Nobody but daemons has taken a step for a long time: a livelock, or a deadlock behind the
    back of daemons that wake up by time."""


class Diverged(UsageError):
    """A recorded schedule asks for a thread that cannot run: this is not what was recorded."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an execution ended. `choices` is its whole schedule, one tid a step."""

    verdict: Verdict
    choices: array[int]
    error: BaseException | None = None

    @property
    def steps(self) -> int:
        return len(self.choices)


@dataclass(slots=True)
class Recorder:
    """A `choose` that notes what it chose, and lets somebody look every TICK steps."""

    inner: Choose
    tick: Callable[[int], None] | None = None
    choices: array[int] = field(default_factory=lambda: array("H"))
    execution: Execution | None = None  # known to `conduct`
    progress: int = 0  # the last step at which progress was seen

    def __call__(self, runnable: list[int]) -> int:
        tid = self.inner(runnable)
        choices = self.choices
        choices.append(tid)
        if not len(choices) % TICK:
            if self.tick is not None:
                self.tick(len(choices))
            self._look_for_progress()
        return tid

    def _look_for_progress(self) -> None:
        """Of the last TICK steps, was one taken by a thread the run is waiting for?"""
        execution = self.execution
        if execution is None:
            return
        threads = execution.threads
        if any(not threads[tid].daemon for tid in set(self.choices[-TICK:])):
            self.progress = len(self.choices)
        elif len(self.choices) - self.progress > STALL_STEPS:
            waiting = [t for _, t in sorted(threads.items()) if not t.done and not t.daemon]
            raise Stalled(
                f"no progress: only daemons have run since step {self.progress}; "
                + "; ".join(blocked_on(thread, threads) for thread in waiting)
            )


def recorded(choices: Sequence[int]) -> Choose:
    """The schedule again; Diverged as soon as it does not fit."""
    upcoming = iter(choices)

    def choose(runnable: list[int]) -> int:
        tid = next(upcoming, None)
        if tid is None:
            raise Diverged(f"replay: no end after {len(choices)} steps, expected the recorded end")
        if tid not in runnable:
            raise Diverged(f"replay: thread {tid} cannot run, expected the recorded schedule")
        return tid

    return choose


def conduct(
    execution: Execution,
    recorder: Recorder,
    max_steps: int,
    finish: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run to the end, then `finish`. Errors that are about vkemu itself pass through."""
    recorder.execution = execution
    try:
        execution.run(recorder, max_steps)
        finish()
    except (StepBound, NothingRan) as error:
        return Outcome("unknown", recorder.choices, error)
    except FAILURES as error:
        return Outcome("fail", recorder.choices, error)
    finally:
        execution.close()
    return Outcome("pass", recorder.choices)


def headline(error: BaseException) -> str:
    """The first line of what went wrong, with its kind when the text does not say."""
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0]
    kinds = {Panic: "host panic: ", GuestPanic: "guest panic: "}
    return kinds.get(type(error), "") + first

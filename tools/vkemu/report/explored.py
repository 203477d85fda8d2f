"""Telling a failure that `explore` or a litmus test found: the schedule once more, watched.

A program is given as `make(emit)`, which returns what `explore` takes; a litmus test sends its
events to `emit`, another program has none.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from vkemu.executors.controlled import Choose, Execution, StepBound
from vkemu.exploration.program import Program
from vkemu.exploration.run import violation
from vkemu.launch.outcome import Outcome, headline, recorded
from vkemu.litmus.decide import Test, decide
from vkemu.litmus.file import Litmus
from vkemu.litmus.statement import Statement
from vkemu.litmus.wrote import wrote
from vkemu.oracle import DEFAULT_CHECKS
from vkemu.report.failure import Failure, alike
from vkemu.report.kept import keep
from vkemu.report.recording import Recording
from vkemu.report.told import Told
from vkemu.report.trial import Record
from vkemu.report.width import POSITIONS_MAX, Rerun
from vkhost.rmap import tree_of

Emit: TypeAlias = Callable[..., None]
Make: TypeAlias = Callable[[Emit], Callable[[Any], object]]


class NoFailure(AssertionError):
    """The schedule does not fail: the program is another than the one it was found in."""


class Observed(Program):
    """One execution of a program, watched from before its set-up on."""

    def __init__(self, make: Make, choose: Choose, *, record: bool) -> None:
        program = make(self.emit)
        if isinstance(program, Test):
            program.said = self.said
        super().__init__(program, {})
        self.chooser = choose
        self.cut = False  # it reached its step bound
        self.recording: Recording | None = None
        self.execution = Execution(self.tids)
        if record:
            self.recording = Recording(self.execution, choose)
            self.chooser = self.recording
        self.make()

    def emit(self, name: str, /, *fields: Any) -> None:
        if self.recording is not None:
            self.recording.emit(name, *fields)

    def said(self, actor: str, statement: Statement, value: int | None) -> None:
        if self.recording is not None:
            gave = "" if statement.target is None or value is None else f" -> {int(value)}"
            self.recording.steps[-1].said.append((actor, f"{statement.text}{gave}"))

    def run(self, max_steps: int) -> BaseException | None:
        """Run to the end; what was wrong with it."""
        try:
            return self._run(max_steps)
        finally:
            self.execution.close()

    def _run(self, max_steps: int) -> BaseException | None:
        execution = self.execution
        for step in range(max_steps):
            if execution.failed is not None and execution.failed.error is not None:
                return execution.failed.error
            if not execution.goes_on(step):
                break
            execution.step(self.chooser(execution.runnable))
            for predicate in self.invariants:
                error = violation(predicate, "always")
                if error is not None and execution.failed is None:
                    return error
        else:
            self.cut = True
            return None
        return self.end()

    def end(self) -> BaseException | None:
        """What is wrong with it, now that nothing is left to run."""
        error: BaseException | None = self.execution.deadlock()
        for predicate in self.ends:
            error = error or violation(predicate, "at_end")
        return error


def watched(
    make: Make, schedule: Sequence[int], max_steps: int, *, livelock: bool = False
) -> tuple[BaseException, Recording]:
    """A failing schedule, and how it fails. `livelock`: one that does not end fails by that."""
    observed = Observed(make, recorded(schedule), record=True)
    error = observed.run(len(schedule) if livelock else max_steps)
    if observed.cut and livelock:
        error = StepBound(f"no end within {len(schedule)} steps")
    if error is None:
        raise NoFailure("the schedule does not fail")
    assert observed.recording is not None
    observed.recording.events()
    return error, observed.recording


def rerun_of(make: Make, error: BaseException, max_steps: int) -> Rerun:
    """`rerun` for `Failure.measure`: does the program fail like `error` under another `choose`?"""
    return lambda choose: alike(error, Observed(make, choose, record=False).run(max_steps))


def tell(
    make: Make,
    schedule: Sequence[int],
    *,
    max_steps: int,
    replay: str = "",
    context: Mapping[str, str] | None = None,
    alternatives: Mapping[str, Make] | None = None,
    limit: int = POSITIONS_MAX,
) -> Failure:
    """The failure of a schedule, with its window measured."""
    error, recording = watched(make, schedule, max_steps)
    failure = Failure.of(error, recording.steps, replay=replay, context=context)
    others = {
        name: rerun_of(other, error, max_steps) for name, other in (alternatives or {}).items()
    }
    failure.measure(rerun_of(make, error, max_steps), others, limit)
    return failure


def keep_litmus(
    litmus: Litmus,
    policy: str,
    schedule: Sequence[int],
    root: Path,
    token: str,
    told: Told,
    *,
    livelock: bool = False,
) -> Record:
    """The failure as a run folder, with its log."""
    max_steps = litmus.file.litmus.max_steps
    test = partial(Test, litmus, policy)
    error, recording = watched(test, schedule, max_steps, livelock=livelock)
    outcome = Outcome("fail", array("H", recording.schedule), error)
    heading = summary_of(litmus, policy, token) | {"verdict": "fail", "failure": headline(error)}
    try:
        folder, summary = keep(recording, root, litmus.name, heading, told)
    except OSError as failed:
        why = f"not kept: {failed.filename or root}: {failed.strerror}"
        return Record(root, heading, outcome, told, why)
    return Record(folder, summary, outcome, told)


def summary_of(litmus: Litmus, policy: str, token: str) -> dict[str, Any]:
    """What summary.json says besides how it went."""
    file = litmus.file
    return {
        "verdict": "unknown",
        "failure": None,
        "litmus": litmus.name,
        "policy": policy,
        "tree": file.host.tree or tree_of(policy),
        "mutants": list(file.mutants),
        "checks": list(file.litmus.checks or DEFAULT_CHECKS),
        "token": token,
    }


def tell_litmus(
    litmus: Litmus,
    policy: str,
    schedule: Sequence[int],
    *,
    replay: str = "",
    others: Mapping[str, tuple[Litmus, str]] | None = None,
    limit: int = POSITIONS_MAX,
) -> Failure:
    """The failure of a litmus test on a policy.

    `others`, by name, are tests and policies to explore: those of which every execution passes
    close the window, and the report says so.
    """
    failure = tell(
        lambda emit: Test(litmus, policy, emit),
        schedule,
        max_steps=litmus.file.litmus.max_steps,
        replay=replay,
        context={"litmus": litmus.name, "policy": policy},
        limit=limit,
    )
    again = partial(Test, litmus, policy)
    failure.detail += tuple(f" wrote:  {line}" for line in wrote(again, schedule))
    executions_max = 500
    for name, (other, other_policy) in (others or {}).items():
        decision = decide(other, other_policy, max_executions=executions_max)
        if decision.verdict == "pass" and decision.result.exhausted:
            count = decision.result.executions
            passes = f"all {count} executions pass" if count > 1 else "its one execution passes"
            failure.closed_by.append(f"{name} ({passes})")
    return failure

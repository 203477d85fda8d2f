"""A failing execution, told: taken once more with everything written down.

Nothing of this is collected while searching. One column a thread; conflicting steps are marked;
the source line is the innermost one that is not of the shared objects themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vkprotocol.effects import key_text

from vkemu.executors.announced import shown
from vkemu.exploration.reduction.conflicts import Conflicts
from vkemu.exploration.stepwise import source_of
from vkemu.exploration.token import Fingerprint, Token, digest_of

if TYPE_CHECKING:
    from vkemu.exploration.result import Failure
    from vkemu.exploration.run import Run

STEPS_SHOWN: Final = 200  # of the first and of the last, in a narration


class StepRecord(NamedTuple):
    """One step of a failing execution."""

    position: int
    thread: str
    tid: int
    op: str
    object: str
    before: Any
    after: Any
    file: str
    line: int
    # Positions of other threads' steps on its objects, one writing; in a long execution of each
    # thread the nearest.
    conflicts: tuple[int, ...]

    @property
    def where(self) -> str:
        return f"{self.file.rpartition('/')[2]}:{self.line}"

    def __str__(self) -> str:
        return f"{self.position} {self.thread} {self.text} {self.where}"

    @property
    def value(self) -> str:
        """What it left its object at."""
        before, after = shown(self.before), shown(self.after)
        return f"{_short(before)} -> {_short(after)}" if before != after else _short(after)

    @property
    def text(self) -> str:
        return f"{self.op} {self.object}: {self.value}"


def _short(text: str) -> str:
    return text if len(text) <= 32 else text[:29] + "..."


class Told:
    """What one recorded execution gives: its steps, its token, its failure if it failed."""

    def __init__(self, run: Run, schedule: list[int], steps: list[StepRecord]) -> None:
        self.run = run
        self.schedule = schedule
        self.steps = steps
        self.message = ""
        self.token: Token | None = None


class Recorder:
    """Takes the steps of an execution one by one and writes them down."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.conflicts = Conflicts(run.program.numbers)
        self.fingerprint = Fingerprint()
        self.steps: list[StepRecord] = []
        self.numbers: dict[int, int] = {}

    def number(self, tid: int) -> int:
        """Threads by order of spawning in this execution."""
        if len(self.numbers) < len(self.run.execution.threads):
            self.numbers = {tid: n for n, tid in enumerate(self.run.execution.threads)}
        return self.numbers[tid]

    def step(self, tid: int) -> bool:
        """False when the execution stops here."""
        run = self.run
        execution = run.execution
        thread = execution.threads[tid]
        effect = thread.pending
        assert effect is not None
        number = self.number(tid)
        shared = effect.obj
        before = shared.state
        file, line = source_of(thread)
        self.conflicts.add(tid, effect)
        going = execution.step(tid) or not run.thread_failed()
        after = shared.state
        self.fingerprint.step(number, thread, effect, before, after)
        at = len(self.steps)
        key = key_text(shared.key)
        self.steps.append(
            StepRecord(at, thread.name, number, effect.op, key, before, after, file, line, ())
        )
        return going and (not run.watched or run.watch())

    def deepen(self) -> bool:
        """Go on with the same thread, until its recursion is too deep here too."""
        thread = self.run.execution.threads[self.conflicts.tids[-1]]
        going = True
        for _ in range(2 * sys.getrecursionlimit()):
            if not going or not thread.runnable:
                break
            going = self.step(thread.tid)
        return going

    def told(self) -> Told:
        """Call once the execution is over."""
        conflicts = self.conflicts
        steps = [step._replace(conflicts=conflicts.of(step.position)) for step in self.steps]
        self.fingerprint.close()
        told = Told(self.run, [step.tid for step in steps], steps)
        if self.run.error is not None:
            told.message = self.run.message()
            stretches = tuple(self.fingerprint.stretches)
            told.token = Token(digest_of(told.message), self.run.cut, stretches)
        return told


def narrate(failure: Failure) -> str:
    """The failure as text, one column a thread."""
    return "\n".join([failure.message, "", *table(failure.steps), "", f"token: {failure.token}"])


def table(steps: Sequence[StepRecord]) -> list[str]:
    threads: dict[int, str] = {}
    for step in steps:
        threads.setdefault(step.tid, step.thread)
    order = sorted(threads)
    widths = {tid: len(threads[tid]) for tid in order}
    for step in steps:
        widths[step.tid] = max(widths[step.tid], len(step.text))
    digits = len(str(max(len(steps) - 1, 0)))
    head = " " * (digits + 4) + "  ".join(threads[tid].ljust(widths[tid]) for tid in order)
    lines = [head.rstrip()]
    for step in steps:
        if STEPS_SHOWN <= step.position < len(steps) - STEPS_SHOWN:
            if step.position == STEPS_SHOWN:
                lines.append(f"  ... {len(steps) - 2 * STEPS_SHOWN} steps ...")
            continue
        mark = "*" if step.conflicts else " "
        cells = [(step.text if tid == step.tid else "").ljust(widths[tid]) for tid in order]
        lines.append(f"{mark} {step.position:>{digits}}  {'  '.join(cells)}  {step.where}")
    if any(step.conflicts for step in steps):
        lines.append("* another thread touches the same object, and one of the two writes")
    return lines

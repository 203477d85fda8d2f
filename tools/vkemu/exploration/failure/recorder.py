"""A failing execution, taken once more with everything written down.

Nothing of this is collected while searching.
"""

from __future__ import annotations

import sys

from vkprotocol.effects import key_text

from vkemu.exploration.failure.narration import StepRecord
from vkemu.exploration.reduction.conflicts import Conflicts
from vkemu.exploration.run import Run
from vkemu.exploration.stepwise import source_of
from vkemu.exploration.token import Fingerprint, Token, digest_of


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

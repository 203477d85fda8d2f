"""A failing execution, taken once more with everything written down.

Nothing of this is collected while searching.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from vkprotocol.effects import Cell, Effect, Thread, key_text

from vkemu.executors.place import frames_of, place_of
from vkemu.exploration.failure.narration import StepRecord
from vkemu.exploration.reduction.conflicts import Conflicts
from vkemu.exploration.run import Run
from vkemu.exploration.token import Fingerprint, Token, digest_of

CMPSET: Final[Any] = Cell.cmpset


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
        if execution.late:
            return self.late(thread, effect, number)
        shared = effect.obj
        before = shared.state
        file, line = place_of(thread)
        compared = compared_of(thread, effect)
        self.conflicts.add(tid, effect)
        going = execution.step(tid) or not run.thread_failed()
        after = shared.state
        self.fingerprint.step(number, thread, effect, before, after)
        at = len(self.steps)
        key = key_text(shared.key)
        op = "cmpset" if compared else effect.op
        expected = compared if compared and before != compared[0] else ()
        self.steps.append(
            StepRecord(at, thread.name, number, op, key, before, after, file, line, (), expected)
        )
        return going and (not run.watched or run.watch())

    def late(self, thread: Thread, effect: Effect, number: int) -> bool:
        """A step of which is known what it did once it was taken; then the execution says it."""
        run = self.run
        world: Any = run.execution
        world.tell()
        file, line = world.place(thread)
        going = run.execution.step(thread.tid) or not run.thread_failed()
        self.conflicts.add(thread.tid, effect)
        op, what, after = world.said()
        self.fingerprint.step(number, thread, Effect(effect.obj, op, write=True), None, what)
        at = len(self.steps)
        self.steps.append(
            StepRecord(at, thread.name, number, op, what, None, after, file, line, ())
        )
        return going

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
        if self.run.execution.late and steps:
            words = self.run.execution.words()  # type: ignore[attr-defined]
            steps = [
                step._replace(op="", object=said, after=None)
                for step, said in zip(steps, words, strict=True)
            ]
        self.fingerprint.close()
        told = Told(self.run, [step.tid for step in steps], steps)
        if self.run.error is not None:
            told.message = self.run.message()
            stretches = tuple(self.fingerprint.stretches)
            told.token = Token(digest_of(told.message), self.run.cut, stretches)
        return told


def compared_of(thread: Thread, effect: Effect) -> tuple[Any, ...]:
    """Of a thread about to compare and set: the one value it expects. Its effect is a store."""
    if effect.op != "store":
        return ()
    *_, innermost = (None, *frames_of(thread))
    if innermost is None or innermost.f_code is not CMPSET.__code__:
        return ()
    return (innermost.f_locals["old"],)

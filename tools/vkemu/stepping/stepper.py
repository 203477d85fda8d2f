"""A program taken step by step, by hand: who goes next is the user's choice, and can be undone.

Going back is replaying all choices but the last ones; nothing of the kernels can be undone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vkprotocol.effects import key_text

from vkemu.executors.controlled import Execution
from vkemu.record.machine import Change, Machine
from vkemu.report.recording import Recording, Step
from vkemu.report.source import here


class Staged(Protocol):
    """A program that has been set up and is ready for its first step."""

    @property
    def execution(self) -> Execution: ...

    @property
    def recording(self) -> Recording: ...

    def end(self) -> BaseException | None:
        """What is wrong with it, now that nothing is left to run."""


@dataclass(frozen=True, slots=True)
class Option:
    """A thread that can go, and what it is about to do."""

    tid: int
    actor: str
    effect: str
    where: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A thread that cannot."""

    actor: str
    effect: str
    state: str


class Stepper:
    """Invariant: the execution is where `choices` lead."""

    def __init__(self, stage: Callable[[], Staged]) -> None:
        self.stage = stage
        self.choices: list[int] = []
        self.replay([])

    def replay(self, choices: list[int]) -> None:
        """From the start along these choices."""
        self.choices = []
        self.staged = self.stage()
        self.machine = Machine()
        self.changes: list[Change] = []
        self.error: BaseException | None = None
        self.over = False
        self._told = 0  # events of the step that the machine has been told of
        self._follow()
        for tid in choices:
            self.take(tid)

    @property
    def recording(self) -> Recording:
        return self.staged.recording

    @property
    def execution(self) -> Execution:
        return self.staged.execution

    @property
    def steps(self) -> list[Step]:
        return self.recording.steps

    def options(self) -> list[Option]:
        """Who can go now, the thread of the last step first."""
        last = self.choices[-1] if self.choices else -1
        options = [self._option(tid) for tid in self.execution.runnable]
        return sorted(options, key=lambda option: option.tid != last) if not self.over else []

    def _option(self, tid: int) -> Option:
        thread = self.execution.threads[tid]
        effect = thread.pending
        assert effect is not None
        what = f"{effect.op} {key_text(effect.obj.key)}"
        place = here(thread.coro)
        where = f"{place.function}  {place.where}"
        return Option(tid, self.recording.name(thread), what, where)

    def waiting(self) -> list[Waiting]:
        """Who waits, and for what."""
        found = []
        for thread in self.execution.threads.values():
            effect = thread.pending
            if effect is None or thread.runnable:
                continue
            what = f"{effect.op} {key_text(effect.obj.key)}"
            found.append(Waiting(self.recording.name(thread), what, repr(effect.obj.state)))
        return found

    def take(self, tid: int) -> None:
        """Let a thread take its next step."""
        if self.over or tid not in self.execution.runnable:
            raise ValueError(f"thread {tid} cannot go")
        self.recording.choose = lambda runnable: tid
        self.recording(self.execution.runnable)
        self.choices.append(tid)
        self._told = 0
        self.execution.step(tid)
        self._follow()

    def _follow(self) -> None:
        """Tell the machine what happened; find out whether this was the end."""
        execution = self.execution
        if execution.failed is not None:
            self.error, self.over = execution.failed.error, True
        elif not execution.goes_on(len(self.choices)):
            self.error, self.over = self.staged.end(), True
        self.changes = []
        for event in self.steps[-1].events[self._told :]:
            self.changes += self.machine.apply(event)
        self._told = len(self.steps[-1].events)

    def back(self, count: int = 1) -> None:
        """As if the last steps had not been taken."""
        self.replay(self.choices[: max(0, len(self.choices) - count)])

    def stay(self, limit: int = 10_000) -> None:
        """The thread of the last step goes on until it cannot."""
        if not self.choices:
            return
        tid = self.choices[-1]
        for _ in range(limit):
            if self.over or tid not in self.execution.runnable:
                return
            self.take(tid)

    def finish(self, limit: int = 1_000_000) -> None:
        """To the end: each thread goes on until it cannot, then the lowest."""
        for _ in range(limit):
            if self.over:
                return
            options = self.options()
            self.take(options[0].tid)

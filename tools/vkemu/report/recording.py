"""A run watched step by step: who, what, on which object, from which line, after whom.

    recording = Recording(execution, choose)
    execution.run(recording, max_steps)         # with `emit` going to recording.emit

Exploration records nothing. What fails is replayed with this in place of its `choose`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from vkprotocol.effects import CLOCK, CURTHREAD, Key, key_text
from vkprotocol.events import EVENTS

from vkemu.executors.controlled import Choose, Execution
from vkemu.record.narrate import Event
from vkemu.record.vector_clock import Clocked
from vkemu.report.source import NOWHERE, caller, here

SETUP = "kernel"  # the actor of what happens before the first step
_FIELDS = {name: tuple(f.name for f in event.fields) for name, event in EVENTS.items()}


@dataclass(slots=True)
class Step:
    """One step of a run. Step 0 is the set-up: it has no effect."""

    number: int
    tid: int
    actor: str
    t: int = 0
    op: str = ""
    key: Key = ""
    write: bool = False
    also: tuple[tuple[Key, bool], ...] = ()
    function: str = ""
    where: str = ""
    clock: dict[str, int] = field(default_factory=dict)
    runnable: tuple[int, ...] = ()  # tids that could have gone instead, this one included
    events: list[Event] = field(default_factory=list)
    note: str = ""  # what it left behind, where that is told in place of events
    # Statements of a litmus test that are over with it: whose, and what they gave.
    said: list[tuple[str, str]] = field(default_factory=list)

    @property
    def effect(self) -> str:
        """`acquire map.3`."""
        return f"{self.op} {key_text(self.key)}" if self.op else ""

    @property
    def footprint(self) -> tuple[tuple[Key, bool], ...]:
        return ((self.key, self.write), *self.also) if self.op else ()


class Recording(Clocked):
    """A `choose` that writes down the step it is about to let happen.

    Of the steps before number `since` only the tid is kept, and no event: what the steps of a long
    run take is some kilobytes each, most of it their clocks.
    """

    def __init__(
        self, execution: Execution, choose: Choose, *, sources: bool = True, since: int = 0
    ) -> None:
        self.sources = sources
        self.since = since
        self.steps = [Step(0, -1, SETUP)]
        self._untold: dict[int, Step] = {}  # by tid
        super().__init__(execution, choose)

    @property
    def schedule(self) -> list[int]:
        return [step.tid for step in self.steps[1:]]

    def __call__(self, runnable: list[int]) -> int:
        if 0 < len(self.steps) < self.since:
            tid = self.choose(runnable)
            if tid not in self._untold:
                self._untold[tid] = Step(0, tid, self.name(self.execution.threads[tid]))
            self.steps.append(self._untold[tid])
            return tid
        tid = super().__call__(runnable)
        thread = self.execution.threads[tid]
        effect = thread.pending
        assert effect is not None
        function, where = here(thread.coro) if self.sources else NOWHERE
        self.steps.append(
            Step(
                number=len(self.steps),
                tid=tid,
                actor=self.name(thread),
                t=CLOCK[0],
                op=effect.op,
                key=effect.obj.key,
                write=effect.write,
                also=tuple((shared.key, write) for shared, write in effect.also),
                function=function,
                where=where,
                clock=self.clock,
                runnable=tuple(runnable),
            )
        )
        return tid

    def emit(self, name: str, *args: Any) -> None:
        """What the kernel says happened in the step under way."""
        step = self.steps[-1]
        if step.tid in self._untold and step is self._untold[step.tid]:
            return
        fields = dict(zip(_FIELDS[name], args, strict=True))
        thread = CURTHREAD[0]
        function, where = caller() if self.sources else NOWHERE
        step.events.append(
            {
                "seq": 0,
                "step": step.number,
                "t": CLOCK[0],
                "actor": SETUP if thread is None else self.name(thread),
                "event": name,
                "vc": step.clock,
                "function": function or step.function,
                "where": where or step.where,
                **fields,
            }
        )

    def events(self) -> list[Event]:
        """The events of all steps, numbered."""
        every = [event for step in self.steps for event in step.events]
        for seq, event in enumerate(every):
            event["seq"] = seq
        return every


def switches(steps: list[Step]) -> int:
    """Context switches: how often the next step is another actor's."""
    actors = [step.actor for step in steps if step.number]
    return sum(one != other for one, other in pairwise(actors))

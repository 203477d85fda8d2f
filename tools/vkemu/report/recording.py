"""A run watched step by step: who, what, on which object, from which line, after whom.

    recording = Recording(execution, choose)
    execution.run(recording, max_steps)         # with `emit` going to recording.emit

Exploration records nothing. What fails is replayed with this in place of its `choose`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from vkprotocol.effects import CLOCK, CURTHREAD, Key, Thread, key_text
from vkprotocol.events import EVENTS

from vkemu.controlled import Choose, Execution
from vkemu.inspect.narrate import Event
from vkemu.report.source import NOWHERE, caller, here
from vkemu.report.vector_clock import VectorClocks

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

    @property
    def effect(self) -> str:
        """`acquire map.3`."""
        return f"{self.op} {key_text(self.key)}" if self.op else ""

    @property
    def footprint(self) -> tuple[tuple[Key, bool], ...]:
        return ((self.key, self.write), *self.also) if self.op else ()


class Recording:
    """A `choose` that writes down the step it is about to let happen."""

    def __init__(self, execution: Execution, choose: Choose, *, sources: bool = True) -> None:
        self.execution = execution
        self.choose = choose
        self.sources = sources
        self.clocks = VectorClocks()
        self.steps = [Step(0, -1, SETUP)]
        self._names: dict[int, str] = {}
        self._t = CLOCK[0]
        self._spawned = execution.on_spawn
        execution.on_spawn = self._on_spawn
        for thread in execution.threads.values():
            self.clocks.spawned(self.name(thread), None)

    @property
    def schedule(self) -> list[int]:
        return [step.tid for step in self.steps[1:]]

    def name(self, thread: Thread) -> str:
        """Its name, made unique: a column each."""
        known = self._names.get(thread.tid)
        if known is None:
            known = thread.name
            if known in self._names.values() or known == SETUP:
                known = f"{thread.name}#{thread.tid}"
            self._names[thread.tid] = known
        return known

    def _on_spawn(self, thread: Thread) -> None:
        parent = CURTHREAD[0]
        self.clocks.spawned(self.name(thread), None if parent is None else self.name(parent))
        if self._spawned is not None:
            self._spawned(thread)

    def __call__(self, runnable: list[int]) -> int:
        tid = self.choose(runnable)
        thread = self.execution.threads[tid]
        effect = thread.pending
        assert effect is not None
        if CLOCK[0] != self._t:
            self._t = CLOCK[0]
            self.clocks.advanced()
        function, where = here(thread.coro) if self.sources else NOWHERE
        step = Step(
            number=len(self.steps),
            tid=tid,
            actor=self.name(thread),
            t=self._t,
            op=effect.op,
            key=effect.obj.key,
            write=effect.write,
            also=tuple((shared.key, write) for shared, write in effect.also),
            function=function,
            where=where,
            runnable=tuple(runnable),
        )
        step.clock = self.clocks.step(step.actor, step.footprint)
        self.steps.append(step)
        return tid

    def emit(self, name: str, *args: Any) -> None:
        """What the kernel says happened in the step under way."""
        step = self.steps[-1]
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


def attach(steps: list[Step], events: list[Event]) -> None:
    """Give each step its events, from a log whose lines say to which step they belong."""
    for step in steps:
        step.events = []
    for event in events:
        number = event.get("step") or 0
        if 0 <= number < len(steps):
            steps[number].events.append(event)


def switches(steps: list[Step]) -> int:
    """Context switches: how often the next step is another actor's."""
    actors = [step.actor for step in steps if step.number]
    return sum(one != other for one, other in pairwise(actors))


def steps_from_events(events: list[Event]) -> list[Step]:
    """Steps as far as a log without a recording tells them: actor, time, clock and events."""
    steps = [Step(0, -1, SETUP)]
    tids: dict[str, int] = {}
    last: object = None
    for event in events:
        number = event.get("step")
        key = event["seq"] if number is None else number
        if number == 0:
            steps[0].events.append(event)
            continue
        if key != last:
            actor = event["actor"]
            tid = tids.setdefault(actor, len(tids))
            step = Step(len(steps), tid, actor, t=event["t"], clock=event.get("vc") or {})
            steps.append(step)
            last = key
        steps[-1].events.append(event)
    return steps

"""Vector clocks say what the explorer's happens-before says, of the same runs."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.executors.controlled import Execution
from vkemu.exploration.reduction.footprint import Objects
from vkemu.exploration.reduction.trace import Trace
from vkemu.launch.outcome import recorded
from vkemu.record.vector_clock import VectorClocks, happens_before
from vkemu.report.causes import causes
from vkemu.report.recording import Recording
from vkprotocol.effects import CLOCK, Cell, Lock, pause

from tests.report import w07

Op = tuple[str, int]
OPS = st.tuples(
    st.sampled_from(["load", "store", "cmpset", "lock", "pause", "spawn"]), st.integers(0, 2)
)
PROGRAM = st.lists(st.lists(OPS, max_size=6), min_size=1, max_size=4)


class Program:
    """Threads of random operations on three cells and a lock; a thread may spawn the next."""

    def __init__(self, bodies: list[list[Op]]) -> None:
        self.execution = Execution()
        self.cells = [Cell(("x", i)) for i in range(3)]
        self.lock = Lock("l")

    def start(self, bodies: list[list[Op]]) -> None:
        for i, body in enumerate(bodies):
            self.execution.spawn(f"t{i}", self.run(body))

    async def run(self, body: list[Op], depth: int = 0) -> None:
        for op, i in body:
            if op == "lock":
                async with self.lock:
                    await self.cells[i].load()
            elif op == "pause":
                await pause(1 + i)
            elif op == "spawn" and depth < 2:
                self.execution.spawn("child", self.run(body[:2], depth + 1))
            else:
                await self.access(op, self.cells[i])

    async def access(self, op: str, cell: Cell) -> None:
        if op == "store":
            await cell.store(1)
        elif op == "cmpset":
            await cell.cmpset(0, 1)
        else:
            await cell.load()


class Both:
    """A chooser that also feeds the explorer's trace, the way the explorer does."""

    def __init__(self, execution: Execution, seed: int) -> None:
        self.execution = execution
        self.trace = Trace(Objects())
        self.rng = Random(seed)
        self.t = CLOCK[0]

    def __call__(self, runnable: list[int]) -> int:
        if CLOCK[0] != self.t:
            self.t = CLOCK[0]
            self.trace.advanced()
        tid = self.rng.choice(runnable)
        effect = self.execution.threads[tid].pending
        assert effect is not None
        self.trace.add(tid, effect)
        return tid


@pytest.mark.slow
@given(PROGRAM, st.integers(0, 1 << 32))
def test_the_clocks_agree_with_the_explorer(bodies: list[list[Op]], seed: int) -> None:
    program = Program(bodies)
    execution = program.execution
    both = Both(execution, seed)
    execution.on_spawn = both.trace.spawned
    recording = Recording(execution, both, sources=False)
    program.start(bodies)
    execution.run(recording, 10_000)
    clocks = both.trace.clocks
    steps = recording.steps[1:]

    assert len(clocks) == len(steps)
    for i, one in enumerate(steps):
        for j, other in enumerate(steps):
            explorer = i != j and bool(clocks[j] >> i & 1)
            assert happens_before(one.clock, one.actor, other.clock) == explorer, (i, j)


def test_a_load_does_not_order_a_load_and_a_store_does() -> None:
    clocks = VectorClocks()
    for actor, write in (("a", False), ("b", False), ("c", True)):
        clocks.step(actor, [("x", write)])

    assert not happens_before(clocks.of("a"), "a", clocks.of("b"))
    assert clocks.of("c") == {"a": 1, "b": 1, "c": 1}


def test_causes_are_the_missing_part_of_happens_before() -> None:
    """Program order and the arrows together give back every clock."""
    machine, _ = w07.find()
    steps = machine.recording.steps
    befores = causes(steps)
    previous: dict[str, int] = {}
    past: list[set[int]] = []
    for step in steps:
        mine = {step.number}
        for before in [*befores[step.number], previous.get(step.actor, 0)]:
            if before:
                mine |= past[before]
        past.append(mine)
        previous[step.actor] = step.number

    for one in steps[1:]:
        for other in steps[1:]:
            if one is not other:
                wanted = happens_before(one.clock, one.actor, other.clock)
                assert (one.number in past[other.number]) == wanted
    assert all(not befores[step.number] or step.number for step in steps)


def test_a_recording_replays_itself() -> None:
    first, violation = w07.find()
    again = w07.Machine(lambda execution: recorded(first.recording.schedule))

    assert str(again.run()) == str(violation)
    assert again.recording.events() == first.recording.events()
    assert [s.where for s in again.recording.steps] == [s.where for s in first.recording.steps]

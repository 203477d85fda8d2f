"""Of a forbidden outcome: the statements that wrote what its conditions read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from vkemu.executors.controlled import Execution
from vkemu.launch.outcome import recorded
from vkemu.litmus.file import Litmus
from vkemu.litmus.machine import Machine
from vkemu.litmus.statement import Statement
from vkemu.litmus.verbs import run_program
from vkemu.report.recording import Step

BODY: Final[Any] = run_program
WHOLE: Final = ("zero", "copy", "write_bytes")


class Said:
    """A schedule again, noting in which statement of which thread each of its steps is."""

    def __init__(self, schedule: Sequence[int]) -> None:
        self._choose = recorded(schedule)
        self.execution: Execution | None = None  # once there is one
        self.statements: list[tuple[str, Statement | None]] = [("", None)]  # step 0 is the set-up

    def __call__(self, runnable: list[int]) -> int:
        tid = self._choose(runnable)
        assert self.execution is not None
        thread = self.execution.threads[tid]
        frame = getattr(thread.coro, "cr_frame", None)
        says = frame.f_locals["statement"] if frame and frame.f_code is BODY.__code__ else None
        self.statements.append((thread.name, says))
        return tid


def written(litmus: Litmus, machine: Machine, said: Said, steps: list[Step]) -> Iterator[str]:
    """For every register and word that the outcome reads a line for each statement that wrote it,
    or that stored what went into the register, in the order of the execution. `machine` is as it
    was left."""
    for atom in litmus.atoms:
        head, dot, register = atom.partition(".")
        if dot:
            numbers = _of_register(said, head, register)
            numbers = sorted({*_read_by(steps, numbers), *numbers})
        else:
            name, _, index = atom.partition("[")
            frames = _frames_of(machine, litmus.frames[name], steps)
            numbers = _of_word(steps, frames, int(index.rstrip("]")))
        told: list[str] = []
        for number in numbers:
            actor, statement = said.statements[number]
            if statement is not None:
                told.append(f"{atom}  by {actor}: {statement.text}  step {number}")
        yield from told or [f"{atom}  by no statement: as set up"]


def _of_register(said: Said, actor: str, register: str) -> list[int]:
    """The last step of each statement that leaves its value there."""
    last: dict[str, int] = {}
    for number, (name, statement) in enumerate(said.statements):
        if name == actor and statement is not None and statement.target == register:
            last[statement.where] = number
    return sorted(last.values())


def _read_by(steps: list[Step], numbers: list[int]) -> Iterator[int]:
    """What these steps load from memory: the step that last stored it."""
    for number in numbers:
        for event in steps[number].events:
            if event["event"] == "mem.load":
                stores = _of_word(steps[:number], {event["pfn"]}, event["idx"])
                yield from stores[-1:]


def _of_word(steps: list[Step], frames: set[int], index: int) -> list[int]:
    """The steps that store there: through a TLB, by the host itself, or all of the page."""
    return [step.number for step in steps[1:] if _stores(step, frames, index)]


def _stores(step: Step, frames: set[int], index: int) -> bool:
    stores = ("mem.store", "mem.cmpset", "mem.emulate")
    for event in step.events:
        if event["event"] in stores and event["pfn"] in frames and event["idx"] == index:
            return bool(event.get("ok", True))
    match step.key:
        case ("word", pfn, idx):
            return step.write and pfn in frames and idx == index
        case ("frame", pfn):
            return step.op in WHOLE and pfn in frames
    return False


def _frames_of(machine: Machine, pindex: int, steps: list[Step]) -> set[int]:
    """All the page of the image ever was in."""
    found = {
        event["pfn"]
        for step in steps
        for event in step.events
        if event["event"] == "page.alloc"
        and (event["object"], event["pindex"]) == (machine.image.id, pindex)
    }
    resident = machine.image.memq.get(pindex)
    return found | {resident.pfn} if resident is not None else found

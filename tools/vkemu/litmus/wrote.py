"""Of a forbidden outcome: the statements that wrote what its conditions read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vkprotocol.effects import Key
from vkprotocol.events import EVENTS

from vkemu.exploration.program import Program
from vkemu.exploration.run import Run
from vkemu.litmus.machine import Machine
from vkemu.litmus.statement import Statement
from vkemu.litmus.verbs import run_program
from vkemu.litmus.vkernel import GuestMachine
from vkhost.kernel import Emit

if TYPE_CHECKING:
    from vkemu.litmus.decide import Test

FIELDS: Final = {name: tuple(f.name for f in event.fields) for name, event in EVENTS.items()}


class Taken(NamedTuple):
    """A step: in which statement of whom, what it announced, and what it said. Step 0 is the
    set-up."""

    number: int
    actor: str = ""
    statement: Statement | None = None
    op: str = ""
    key: Key = ""
    write: bool = False
    events: Sequence[Mapping[str, Any]] = ()


def wrote(make: Callable[[Emit], Test], schedule: Sequence[int], first: int = 1) -> Iterator[str]:
    """For every register and word that the outcome reads a line for each statement that wrote it,
    or that stored what went into the register, in the order of the execution: the schedule once
    more. `first` is the number that is told of its first step. Nothing when it does not end in a
    forbidden outcome."""
    events: list[Mapping[str, Any]] = []
    body: Any = run_program

    def emit(name: str, /, *fields: Any) -> None:
        events.append({"event": name, **dict(zip(FIELDS[name], fields, strict=True))})

    test = make(emit)
    run = Run(Program(test, {}), 0)
    run.begin()
    steps = [Taken(0, events=events)]
    going = run.settle()
    threads = run.execution.threads
    for tid in schedule:
        if not going:
            break
        if not run.execution.runnable:
            run.execution.advance()
        thread = threads[tid]
        effect = thread.pending
        assert effect is not None
        frame = getattr(thread.coro, "cr_frame", None)
        says = frame.f_locals["statement"] if frame and frame.f_code is body.__code__ else None
        events = []
        key, write = effect.obj.key, effect.write
        steps.append(Taken(len(steps), thread.name, says, effect.op, key, write, events))
        run.schedule.append(tid)
        going = run.execution.step(tid) or not run.thread_failed()
    if getattr(run.finish(), "forbidden", False):
        assert test.machine is not None
        for atom in test.litmus.atoms:
            told = [
                f"{atom}  by {step.actor}: {step.statement.text}  step {step.number - 1 + first}"
                for step in writers(test, test.machine, steps, atom)
                if step.statement is not None
            ]
            yield from told or [f"{atom}  by no statement: as set up"]


def writers(
    test: Test, machine: Machine | GuestMachine, steps: list[Taken], atom: str
) -> Iterator[Taken]:
    """`machine` is as it was left."""
    head, dot, register = atom.partition(".")
    if dot:
        numbers = _of_register(steps, head, register)
        numbers = sorted({*_read_by(steps, numbers), *numbers})
    else:
        assert isinstance(machine, Machine)  # a [guest] has no pages by name
        name, _, index = atom.partition("[")
        frames = _frames_of(machine, test.litmus.frames[name], steps)
        numbers = _of_word(steps, frames, int(index.rstrip("]")))
    return (steps[number] for number in numbers)


def _of_register(steps: list[Taken], actor: str, register: str) -> list[int]:
    """The last step of each statement that leaves its value there."""
    last: dict[str, int] = {}
    for step in steps:
        statement = step.statement
        if step.actor == actor and statement is not None and statement.target == register:
            last[statement.where] = step.number
    return sorted(last.values())


def _read_by(steps: list[Taken], numbers: list[int]) -> Iterator[int]:
    """What these steps load from memory: the step that last stored it."""
    for number in numbers:
        for event in steps[number].events:
            if event["event"] == "mem.load":
                stores = _of_word(steps[:number], {event["pfn"]}, event["idx"])
                yield from stores[-1:]


def _of_word(steps: list[Taken], frames: set[int], index: int) -> list[int]:
    """The steps that store there: through a TLB, by the host itself, or all of the page."""
    return [step.number for step in steps[1:] if _stores(step, frames, index)]


def _stores(step: Taken, frames: set[int], index: int) -> bool:
    stores = ("mem.store", "mem.cmpset", "mem.emulate")
    for event in step.events:
        if event["event"] in stores and event["pfn"] in frames and event["idx"] == index:
            return bool(event.get("ok", True))
    match step.key:
        case ("word", pfn, idx):
            return step.write and pfn in frames and idx == index
        case ("frame", pfn):
            return step.op in ("zero", "copy", "write_bytes") and pfn in frames
    return False


def _frames_of(machine: Machine, pindex: int, steps: list[Taken]) -> set[int]:
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

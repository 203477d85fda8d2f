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


class Done(NamedTuple):
    """A statement that is over, in that step: one without steps of its own in that of another."""

    number: int
    actor: str
    statement: Statement


def wrote(make: Callable[[Emit], Test], schedule: Sequence[int], first: int = 1) -> Iterator[str]:
    """For every register and word that the outcome reads a line for each statement that wrote it,
    or that stored what went into the register, in the order of the execution: the schedule once
    more. `first` is the number that is told of its first step. Nothing when it does not end in a
    forbidden outcome."""
    events: list[Mapping[str, Any]] = []
    steps = [Taken(0, events=events)]
    done: list[Done] = []
    body: Any = run_program

    def emit(name: str, /, *fields: Any) -> None:
        events.append({"event": name, **dict(zip(FIELDS[name], fields, strict=True))})

    def said(actor: str, statement: Statement, value: int | None) -> None:
        if value is not None:
            done.append(Done(steps[-1].number, actor, statement))

    test = make(emit)
    test.said = said
    run = Run(Program(test, {}), 0)
    run.begin()
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
        for atom in test.litmus.read:
            yield from lines(test, test.machine, steps, done, atom, first)


def lines(
    test: Test,
    machine: Machine | GuestMachine,
    steps: list[Taken],
    done: list[Done],
    atom: str,
    first: int,
) -> Iterator[str]:
    """`machine` is as it was left."""
    if isinstance(machine, GuestMachine):  # which instruction it was nobody has heard
        texts = [] if machine.value(atom) is None else test.litmus.writing(atom)
        yield (
            f"{atom}  by {atom.partition('.')[0]}: {' or '.join(texts)}"
            if texts
            else (f"{atom}  by no statement")
        )
        return
    found = writers(test, machine, steps, done, atom)
    for number, actor, statement in found:
        place = f"step {number - 1 + first}" if number else "before the first step"
        yield f"{atom}  by {actor}: {statement.text}  {place}"
    if not found:
        yield f"{atom}  by no statement{'' if '.' in atom else ': as set up'}"


def writers(
    test: Test, machine: Machine, steps: list[Taken], done: list[Done], atom: str
) -> list[Done]:
    """In the order of the execution."""
    head, dot, register = atom.partition(".")
    if dot:
        into = [d for d in done if d.actor == head and d.statement.target == register]
        numbers = _read_by(steps, [one.number for one in into])
    else:
        into = []
        name, _, index = atom.partition("[")
        frames = _frames_of(machine, test.litmus.frames[name], steps)
        numbers = iter(_of_word(steps, frames, int(index.rstrip("]"))))
    stored = (steps[number] for number in sorted({*numbers}))
    found = [Done(s.number, s.actor, s.statement) for s in stored if s.statement is not None]
    return sorted(found + into, key=lambda one: one.number)


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

"""Telling a failure of a Python program: the form of failure.txt, for what sends no events.

The steps are those that were recorded when the failing schedule was taken once more, with what
each left behind and its source line. Rows that conflict with another thread's are the story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vkemu.executors.controlled import StepBound
from vkemu.executors.deadlock import Deadlock
from vkemu.exploration.checking.access_order import DataRace, Place
from vkemu.exploration.failure.narration import StepRecord
from vkemu.exploration.result import Failure as Found
from vkemu.report.failure import Access, Failure
from vkemu.report.recording import SETUP, Step
from vkemu.report.relevance import BYSTANDER, STORY, STRONG


def tell_program(
    found: Found,
    program: Callable[[Any], object],
    *,
    name: str,
    max_steps: int,
    replay: str,
    measured: bool = True,
) -> Failure:
    """The failure of a program, its window measured where an access can be moved."""
    error = found.error
    failure = Failure(
        message=found.message,
        steps=list(steps_of(found.steps)),
        detail=tuple(f" waits:  {detail}" for detail in getattr(error, "details", ())),
        accesses=accesses_of(found),
        context={"program": name},
        replay=replay,
        weights=weights_of(found.steps),
    )
    unmeasurable = Deadlock | StepBound | DataRace  # no one access to move, or only when checked
    measured_steps = 2_000  # a longer execution is not taken again for its window
    if measured and not isinstance(error, unmeasurable) and len(found.steps) <= measured_steps:
        assert error is not None
        from vkemu.report.explored import rerun_of

        failure.measure(rerun_of(lambda emit: program, error, max_steps))
    return failure


def steps_of(records: list[StepRecord]) -> Iterator[Step]:
    """Numbered from 1: step 0 is the set-up. The clock of a step counts, of each thread, the steps
    before it in happens-before."""
    yield Step(0, -1, SETUP)
    clocks: list[dict[str, int]] = []
    latest: dict[int, int] = {}  # by thread
    names = actors_of(records)
    for record in records:
        clock: dict[str, int] = {}
        before = [other for other in record.conflicts if other < record.position]
        if record.tid in latest:
            before.append(latest[record.tid])
        for other in before:
            for actor, count in clocks[other].items():
                clock[actor] = max(clock.get(actor, 0), count)
        name = names[record.tid]
        clock[name] = clock.get(name, 0) + 1
        clocks.append(clock)
        latest[record.tid] = record.position
        yield Step(
            record.position + 1, record.tid, name, op=record.op, key=record.object,
            where=record.where, clock=clock, note=f": {record.value}  {record.where}",
        )  # fmt: skip


def actors_of(records: list[StepRecord]) -> dict[int, str]:
    """By number of the thread: its name, made unique."""
    names: dict[int, str] = {}
    for record in records:
        if record.tid not in names:
            taken = record.thread in names.values()
            names[record.tid] = f"{record.thread}#{record.tid}" if taken else record.thread
    return names


def weights_of(records: list[StepRecord]) -> dict[int, int]:
    """How much a step matters, by its number."""
    conflicting = [record.position + 1 for record in records if record.conflicts]
    weights = {record.position + 1: BYSTANDER for record in records}
    weights.update(dict.fromkeys(conflicting, STRONG))
    rows = 40  # of the conflicts the last ones are the story
    weights.update(dict.fromkeys(conflicting[-rows:], STORY))
    return weights


def accesses_of(found: Found) -> tuple[Access, ...]:
    """Those that collide: of a data race what it says, of a deadlock who took what is waited for,
    else the last pair of conflicting steps; of the thread that failed, if it is one thread's."""
    records = found.steps
    if isinstance(found.error, DataRace):
        race = found.error
        places = race.first, race.second
        return tuple(access_of_place(race.variable, place, records) for place in places)
    if isinstance(found.error, Deadlock):
        return tuple(map(access_of, taken_by_others(records, found.error)))
    late = [record for record in records if any(n < record.position for n in record.conflicts)]
    own = [record for record in late if found.message.startswith(f"{record.thread}: ")]
    if not late:
        return tuple(map(access_of, records[-1:]))
    second = (own or late)[-1]
    first = records[max(n for n in second.conflicts if n < second.position)]
    return access_of(first), access_of(second)


def access_of(record: StepRecord) -> Access:
    what = f"{record.object}: {record.value}" if record.op else record.object
    return Access(record.op, record.thread, record.position + 1, what, where=record.where)


def access_of_place(variable: str, place: Place, records: list[StepRecord]) -> Access:
    """An access of plain memory, with the step of its thread that it was part of."""
    steps = [record.position + 1 for record in records if record.thread == place.thread]
    number = steps[min(place.time, len(steps)) - 1] if steps else 0
    where = f"{place.file.rpartition('/')[2]}:{place.line}"
    role = "write" if place.write else "read"
    return Access(role, place.thread, number, variable, where=where)


def taken_by_others(records: list[StepRecord], error: Deadlock) -> Iterator[StepRecord]:
    """The last step on each object that somebody waits for."""
    for name in dict.fromkeys(error.objects):
        touched = [record for record in records if record.object == name]
        yield from touched[-1:]

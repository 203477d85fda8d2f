"""Run a mutant against its check, and the check without it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from vkemu.executors.chance import seeded
from vkemu.exploration import explore
from vkemu.exploration.run import Run
from vkemu.launch.assemble import assemble
from vkemu.launch.draw import drawn
from vkemu.launch.outcome import Recorder, conduct, headline
from vkemu.launch.scenario import Scenario, load
from vkemu.litmus.decide import Decision, Test
from vkemu.litmus.file import Litmus as File
from vkemu.litmus.file import build, load_litmus
from vkemu.mutation.guests import run_guest
from vkemu.mutation.places import EQUIVALENT, PLACES, Drawn, Guest, Litmus, Place
from vkguest.mutants import GUEST_MUTANTS

PROGRAMS: Final = Path(__file__).parent / "programs"
SECONDS: Final = 30.0  # a check that takes longer says nothing
Heard = tuple[str, str]  # verdict, and the first line of what went wrong


class Caught(msgspec.Struct, frozen=True):
    """What became of one mutant."""

    mutant: str
    status: str  # caught, survived, or equivalent
    by: str = ""
    said: str = ""  # what the check said; why it is equivalent
    control: str = ""  # the verdict of the same check without the mutant


def hunt(mutant: str) -> Caught:
    if mutant in EQUIVALENT:
        return Caught(mutant, "equivalent", said=EQUIVALENT[mutant])
    place = PLACES.get(mutant)
    if place is None:
        return Caught(mutant, "survived", said="no check is named for it")
    verdict, said = _run(place, mutant)
    control = _control(place)
    status = "caught" if verdict == "fail" and control != "fail" else "survived"
    return Caught(mutant, status, describe(place), said or verdict, control)


def describe(place: Place) -> str:
    if isinstance(place, Litmus):
        variant = f"+{place.variant}" if place.variant else ""
        return f"{place.test}{variant}[{place.policy}]"
    if isinstance(place, Drawn):
        return f"{place.scenario}[{place.policy}]"
    held = f", a vCPU held at {place.hold}" if place.hold else ""
    return f"guest {', '.join(place.workloads)}{held}"


@cache
def _control(place: Place) -> str:
    return _run(place, "")[0]


def _run(place: Place, mutant: str) -> Heard:
    if isinstance(place, Guest):
        return run_guest(place, mutant)
    if isinstance(place, Drawn):
        return _run_drawn(place, mutant)
    test = with_mutant(find(place), mutant)
    subject = Test(test, place.policy)

    def each(run: Run) -> None:
        subject.note(run)
        if run.error is not None:
            raise _Fails(run.error)

    heading = test.file.litmus
    try:
        result = explore(
            subject, strategy=place.strategy, each=each, max_executions=place.executions,
            max_seconds=SECONDS, max_steps=heading.max_steps, on_step_bound=heading.on_step_bound,
        )  # fmt: skip
    except _Fails as fails:
        return "fail", _first_line(str(fails.args[0]))
    if result.interrupted:
        raise KeyboardInterrupt
    decision = Decision(subject, result)
    failure = decision.failure
    return decision.verdict, "" if failure is None else _first_line(failure.message)


class _Fails(Exception):
    """An execution does; nobody reads it, so nobody need shrink it."""


def _run_drawn(place: Drawn, mutant: str) -> Heard:
    steps = 200_000
    for seed in range(place.seeds):
        scenario = drawn(load(place.scenario, (f"policy={place.policy}", f"seed={seed}")), seed)
        machine = assemble(_with_defect(scenario, mutant))
        outcome = conduct(machine.execution, Recorder(seeded(seed)), steps, machine.finish)
        if outcome.error is not None:
            return outcome.verdict, headline(outcome.error)
    return "pass", ""


def _with_defect(scenario: Scenario, mutant: str) -> Scenario:
    replace = msgspec.structs.replace
    if mutant in GUEST_MUTANTS:
        guests = [replace(guest, mutants=(*guest.mutants, mutant)) for guest in scenario.guest]
        return replace(scenario, guest=tuple(guests))
    return replace(scenario, mutants=(*scenario.mutants, mutant)) if mutant else scenario


def find(place: Litmus) -> File:
    own = PROGRAMS / f"{place.test}.toml"
    return load_litmus(str(own) if own.is_file() else place.test, place.variant)


def with_mutant(test: File, mutant: str) -> File:
    if not mutant:
        return test
    guest = test.file.guest
    if guest is not None:
        guest = msgspec.structs.replace(guest, mutants=(mutant,))
        return build(msgspec.structs.replace(test.file, guest=guest), test.where, test.variant)
    file = msgspec.structs.replace(test.file, mutants=(*test.file.mutants, mutant))
    return build(file, test.where, test.variant)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]

"""Run a mutant against its check, and the check without it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from vkemu.litmus.decide import decide
from vkemu.litmus.file import Litmus as Test
from vkemu.litmus.file import build, load_litmus
from vkemu.mutation.guests import run_guest
from vkemu.mutation.places import EQUIVALENT, PLACES, Guest, Litmus, Place

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
    held = f", a vCPU held at {place.hold}" if place.hold else ""
    return f"guest {', '.join(place.workloads)}{held}"


@cache
def _control(place: Place) -> str:
    return _run(place, "")[0]


def _run(place: Place, mutant: str) -> Heard:
    if isinstance(place, Guest):
        return run_guest(place, mutant)
    test = with_mutant(find(place), mutant)
    decision = decide(test, place.policy, max_seconds=SECONDS)
    failure = decision.failure
    return decision.verdict, "" if failure is None else _first_line(failure.message)


def find(place: Litmus) -> Test:
    own = PROGRAMS / f"{place.test}.toml"
    return load_litmus(str(own) if own.is_file() else place.test, place.variant)


def with_mutant(test: Test, mutant: str) -> Test:
    if not mutant:
        return test
    file = msgspec.structs.replace(test.file, mutants=(*test.file.mutants, mutant))
    return build(file, test.where, test.variant)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]

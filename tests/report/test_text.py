"""failure.txt, compared with what it said before: VKEMU_SNAPSHOTS=1 writes it anew."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.executors.deadlock import Deadlock
from vkemu.oracle.violation import Happening, Violation
from vkemu.report import text
from vkemu.report.failure import Failure

from tests.inspect.streams import fleet, steps_from_events
from tests.report import w07

SNAPSHOTS = Path(__file__).parent / "snapshots"


def same_as_snapshot(name: str, said: str) -> None:
    path = SNAPSHOTS / name
    if os.environ.get("VKEMU_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(said)
    assert said == path.read_text(), f"if it is meant: VKEMU_SNAPSHOTS=1, then look at {path}"


@pytest.fixture(scope="module")
def failure() -> Failure:
    return w07.failure()


def test_the_w07_story(failure: Failure) -> None:
    same_as_snapshot("w07.txt", text.render(failure))


def test_it_says_what_a_kernel_developer_asks_for(failure: Failure) -> None:
    said = text.render(failure)
    head = said.splitlines()

    assert head[0].startswith("BUG: vkemu: page 12 is written")
    assert "(invariant 2: no mapping of a free" in said
    assert re.search(r"free: +pagedaemon .* step \d+ +w07\.py:\d+", said)
    assert re.search(r"write: +vcpu0@guest1 .* step \d+ +w07\.py:\d+", said)
    assert re.search(r"moved:  \d+ of \d+ positions of the pagedaemon step fail", said)
    assert "closed by: policy pv_entry (0 of" in said
    assert said.count("<- window opens") == 1
    assert head[-1] == " replay: vkemu replay vk1.w07-in-miniature"


def test_a_run_that_was_not_measured_is_bracketed_by_its_accesses() -> None:
    machine, violation = w07.find()
    failure = Failure.of(violation, machine.recording.steps)
    bracket = failure.bracket

    assert bracket is not None
    assert (bracket.opens, bracket.closes) == tuple(access.step for access in failure.accesses)


def test_a_deadlock_has_no_window() -> None:
    machine, _ = w07.find()
    failure = Failure.of(Deadlock("deadlock: a waits\n  b waits"), machine.recording.steps)
    said = text.render(failure)

    assert said.startswith("BUG: vkemu: deadlock: a waits\n")
    assert "b waits" in said
    assert "window" not in said


def test_a_long_command_can_still_be_pasted() -> None:
    machine, violation = w07.find()
    command = "vkemu replay vk1." + "x" * 400
    said = text.render(Failure.of(violation, machine.recording.steps, replay=command))
    pasted = said[said.index(" replay: ") + len(" replay: ") :].replace("\\\n", "").strip()

    assert pasted == command


@pytest.mark.slow
@given(st.integers(0, 50), st.integers(1, 400), st.integers(1, 12), st.data())
def test_it_fits_whatever_the_run(seed: int, events: int, guests: int, data: st.DataObject) -> None:
    """120 columns, few rows, every shown step in order: for any run and any two accesses."""
    steps = steps_from_events(list(fleet(events, seed, guests)))
    flat = [event for step in steps for event in step.events if event["event"] != "vpte.read"]
    first = data.draw(st.integers(0, len(flat) - 1))
    second = data.draw(st.integers(0, len(flat) - 1))
    accesses = [happening_of(flat[i]) for i in sorted({first, second})]
    violation = Violation(
        2, "m" * 200, accesses=(accesses[0], accesses[-1]), frame=data.draw(st.integers(0, 300))
    )
    said = text.render(Failure.of(violation, steps, context={"scenario": "s" * 60}))
    lines = said.splitlines()
    numbers = [int(line[2:8]) for line in lines if line[2:8].strip().isdigit()]

    assert max(map(len, lines)) <= text.COLUMNS
    assert numbers == sorted(numbers)
    assert len(numbers) <= text.ROWS_MAX + 4


def happening_of(event: dict[str, object]) -> Happening:
    from vkprotocol.events import EVENTS

    name = str(event["event"])
    args = tuple(event.get(field.name, 0) for field in EVENTS[name].fields)
    return Happening(int(str(event["seq"])), str(event["actor"]), name, args)

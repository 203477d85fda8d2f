"""show, timeline, stats, diff: events as people read them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.inspect import show, stats
from vkemu.inspect.diff import first_difference, report
from vkemu.inspect.reader import Log
from vkemu.inspect.timeline import timeline
from vkemu.record.machine import Machine
from vkemu.record.narrate import narrate, pte_text, span
from vkprotocol.events import EVENTS, FIELDS, QUEUES

from tests.inspect import streams


def value(kind: str, name: str) -> st.SearchStrategy[Any]:
    if name in {"old", "new"} and kind == "int":
        return st.integers(0, len(QUEUES) - 1)
    return {
        "id": st.one_of(st.integers(0, 9), st.sampled_from(["g1.img", "o3"])),
        "int": st.integers(0, (1 << 64) - 1),
        "str": st.sampled_from(["hard", "enter", "active"]),
        "bool": st.booleans(),
        "bytes": st.just("z:eJw="),
    }[kind]


@st.composite
def any_event(draw: st.DrawFn) -> dict[str, Any]:
    event = draw(st.sampled_from(list(EVENTS.values())))
    fields = {field.name: draw(value(field.kind, field.name)) for field in event.fields}
    return {"seq": 0, "t": 0, "actor": "a", "event": event.name, **fields}


@pytest.mark.slow
@given(any_event())
def test_every_event_can_be_said_and_applied(event: dict[str, Any]) -> None:
    said = narrate(event)

    assert said
    assert "?" not in said
    Machine().apply(event)


@pytest.mark.slow
@given(any_event(), st.data())
def test_an_incomplete_event_is_still_said(event: dict[str, Any], data: st.DataObject) -> None:
    own = [name for name in event if name in FIELDS and name != "t"]
    if own:
        del event[data.draw(st.sampled_from(own))]

    assert narrate(event)
    Machine().apply(event)


@pytest.mark.slow
@given(st.lists(any_event(), max_size=30))
def test_changes_undo_each_other(events: list[dict[str, Any]]) -> None:
    """Backwards through the changes is the empty machine: what a viewer relies on."""
    machine = Machine()
    state: dict[tuple[str, str], str | None] = {}
    changes = [change for event in events for change in machine.apply(event)]
    for thing, attribute, before, after in changes:
        assert state.get((thing, attribute)) == before
        state[thing, attribute] = after
    assert {k: v for k, v in state.items() if v is not None} == {
        (thing, attribute): text
        for thing, attributes in machine.state.items()
        for attribute, text in attributes.items()
    }
    for thing, attribute, before, after in reversed(changes):
        assert state[thing, attribute] == after
        state[thing, attribute] = before
    assert set(state.values()) <= {None}


def test_a_pte_is_told_by_its_page() -> None:
    assert pte_text(0) == "-"
    assert pte_text(12 << 12 | 0x467) == "page 12 RW A M"
    assert span({"start": 0x5000, "end": 0x6000}) == "0x5000"
    assert span({"start": 0x5000, "end": 0x9000}) == "0x5000-0x9000"


def test_columns_stay_where_they_are(fleet_log: Path) -> None:
    events = list(Log(fleet_log).events())[:200]
    rows = [show.row(event, show.COLUMNS) for event in events]
    at = show.heading(show.COLUMNS).index("event")

    assert all(row[at:].startswith(e["event"]) for row, e in zip(rows, events, strict=True))


def test_first_and_last(fleet_log: Path) -> None:
    from vkemu.inspect.filter import Filter

    log, terms = Log(fleet_log), Filter(["event=page.busy"])
    every = [event["seq"] for event in terms.events(log)]

    assert [e["seq"] for e in show.selected(log, terms, first=3)] == every[:3]
    assert [e["seq"] for e in show.selected(log, terms, last=3)] == every[-3:]


def test_the_timeline_gives_every_actor_a_column(fleet_log: Path) -> None:
    events = list(Log(fleet_log).events())[:60]
    head, *rows = timeline(events, 120)
    actors = list(dict.fromkeys(event["actor"] for event in events))

    assert all(actor[:16] in head for actor in actors)
    numbered = [row for row in rows if row[:7].strip()]
    assert [int(row[:7]) for row in numbered] == [event["seq"] for event in events]
    for row, event in zip(numbered, events, strict=True):
        at = head.index(event["actor"][:16])
        assert row[at : at + 2].strip()
        assert not row[20:at].strip()


def test_stats_count(fleet_log: Path) -> None:
    events = list(Log(fleet_log).events())
    found = stats.stats(Log(fleet_log))

    assert found.events == len(events)
    assert found.by_event == Counter(event["event"] for event in events)
    assert found.by_actor == Counter(event["actor"] for event in events)
    assert found.duration_ns == events[-1]["t"] - events[0]["t"]
    assert str(len(events)) in stats.report(found)


def test_an_empty_log_has_no_statistics(tmp_path: Path) -> None:
    path = streams.write(tmp_path / "x.ndjson", [])

    assert stats.stats(Log(path)).events == 0


def test_two_equal_runs_differ_nowhere(fleet_log: Path, tmp_path: Path) -> None:
    other = [event | {"run": "another"} for event in Log(fleet_log).events()]
    path = streams.write(tmp_path / "x.ndjson", other)

    assert first_difference(Log(fleet_log), Log(path)) is None


@pytest.mark.parametrize("at", [0, 7, 1999])
def test_the_first_difference_is_found_in_context(fleet_log: Path, tmp_path: Path, at: int) -> None:
    other = list(Log(fleet_log).events())
    other[at] = other[at] | {"actor": "somebody else"}
    path = streams.write(tmp_path / "x.ndjson", other)
    found = first_difference(Log(fleet_log), Log(path), context=3)

    assert found is not None
    assert found.index == at
    assert found.fields == ["actor"]
    assert len(found.before) == min(at, 3)
    assert "somebody else" in report(found, Log(fleet_log), Log(path))


def test_a_run_that_is_over_first_differs_there(fleet_log: Path, tmp_path: Path) -> None:
    events = list(Log(fleet_log).events())
    path = streams.write(tmp_path / "x.ndjson", events[:10])
    found = first_difference(Log(fleet_log), Log(path))

    assert found is not None
    assert (found.index, found.b) == (10, [])
    assert "(over)" in report(found, Log(fleet_log), Log(path))

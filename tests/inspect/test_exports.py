"""Exports, each read back with the strictest reader there is for it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from vkemu.inspect.export import FORMATS
from vkemu.inspect.reader import Log
from vkemu.record.narrate import Event
from vkemu.record.slices import marks
from vkemu.record.vector_clock import happens_before
from vkemu.verdict import UsageError

from tests.inspect import streams


@pytest.fixture(scope="module")
def events(fleet_log: Path) -> list[Event]:
    return list(Log(fleet_log).events())


def export(name: str, events: list[Event]) -> bytes:
    out = io.BytesIO()
    FORMATS[name](events, out)
    return out.getvalue()


def test_slices_nest_and_locks_are_given_back(events: list[Event]) -> None:
    stacks: dict[str, list[str]] = {}
    held: set[tuple[str, str]] = set()
    count = 0
    for mark in marks(events):
        actor, name = mark.event["actor"], mark.event["event"]
        if mark.phase == "instant":
            continue
        count += 1
        if mark.lock is not None:
            key = actor, mark.lock
            assert (key in held) is (mark.phase == "end")
            held ^= {key}
        elif mark.phase == "begin":
            stacks.setdefault(actor, []).append(name)
        else:
            assert stacks[actor].pop().partition(".")[0] == name.partition(".")[0]
    assert count > 100


def test_an_end_without_its_beginning_is_an_instant(events: list[Event]) -> None:
    ends = [event for event in events if event["event"] in {"fault.end", "ilock.exit"}]

    assert {mark.phase for mark in marks(ends)} == {"instant"}


def test_chrome_is_valid_and_complete(events: list[Event]) -> None:
    document = json.loads(export("chrome", events))
    entries = document["traceEvents"]
    named = {e["tid"]: e["args"]["name"] for e in entries if e["ph"] == "M"}
    told = [e for e in entries if e["ph"] != "M"]

    assert [named[e["tid"]] for e in told] == [event["actor"] for event in events]
    assert [e["ts"] for e in told] == [event["seq"] for event in events]
    assert {e["ph"] for e in told} == {"B", "E", "b", "e", "i"}
    opened = [(e["id"], e["name"]) for e in told if e["ph"] == "b"]
    closed = [(e["id"], e["name"]) for e in told if e["ph"] == "e"]
    assert set(closed) <= set(opened)


def test_perfetto_reads_its_own_format(events: list[Event]) -> None:
    pb: Any = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    trace = pb.Trace()
    trace.ParseFromString(export("perfetto", events))
    tracks = {
        p.track_descriptor.uuid: p.track_descriptor
        for p in trace.packet
        if p.HasField("track_descriptor")
    }
    told = [p for p in trace.packet if p.HasField("track_event")]

    assert {t.name for t in tracks.values()} >= {event["actor"] for event in events}
    assert len(told) == len(events)
    assert all(p.track_event.track_uuid in tracks for p in told)
    assert all(not t.parent_uuid or t.parent_uuid in tracks for t in tracks.values())
    depth: dict[int, int] = {}
    for p in told:
        track = p.track_event.track_uuid
        kind = p.track_event.type
        change = {pb.TrackEvent.TYPE_SLICE_BEGIN: 1, pb.TrackEvent.TYPE_SLICE_END: -1}
        depth[track] = depth.get(track, 0) + change.get(kind, 0)
        assert depth[track] >= 0
    names = {a.name for p in told for a in p.track_event.debug_annotations}
    assert {"text", "t", "pfn", "va"} <= names
    assert any(p.track_event.flow_ids for p in told)


def test_shiviz_parses_with_its_default_expression(events: list[Event]) -> None:
    """And its clocks satisfy what ShiViz demands: every host counts its own events from 1."""
    text = export("shiviz", events).decode()
    parsed = re.findall(r"(.*)\n(\S*) (\{.*\})\n", text)
    own: dict[str, int] = {}
    clocks = []
    for said, host, clock in parsed:
        counts = json.loads(clock)
        own[host] = own.get(host, 0) + 1
        assert said
        assert counts[host] == own[host]
        assert all(count <= own.get(other, 0) for other, count in counts.items())
        clocks.append((host, counts))

    assert len(parsed) == len(events)
    recorded = [(event["actor"], event["vc"]) for event in events]
    for i in range(0, 400, 7):
        for j in range(i + 1, 400, 11):
            assert happens_before(clocks[i][1], clocks[i][0], clocks[j][1]) == happens_before(
                recorded[i][1], recorded[i][0], recorded[j][1]
            )


def test_shiviz_without_clocks_says_so(events: list[Event]) -> None:
    bare = [{k: v for k, v in event.items() if k != "vc"} for event in events]

    with pytest.raises(UsageError, match="vector clocks"):
        export("shiviz", bare)


MERMAID = re.compile(r"    (participant a\d+ as .+|Note over a\d+: .+|a\d+-->>a\d+: .+)")


def test_mermaid_is_a_sequence_diagram(events: list[Event]) -> None:
    head, *lines = export("mermaid", events[:60]).decode().splitlines()

    assert head == "sequenceDiagram"
    assert all(MERMAID.fullmatch(line) for line in lines)
    assert sum("participant" not in line for line in lines) == 60
    assert any("-->>" in line for line in lines)
    assert not any(sign in line for line in lines for sign in ";#")


def test_mermaid_refuses_what_nobody_could_read() -> None:
    with pytest.raises(UsageError, match="expected a filter"):
        export("mermaid", list(streams.fleet(1000)))

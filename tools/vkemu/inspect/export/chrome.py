"""Chrome's JSON trace format: opens in chrome://tracing, Perfetto and speedscope."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

import orjson

from vkemu.record.narrate import Event, narrate, own_fields
from vkemu.record.slices import Mark, marks

PID = 1


def export(events: Iterable[Event], out: IO[bytes]) -> None:
    out.write(b'{"displayTimeUnit":"ns","traceEvents":[\n')
    tids: dict[str, int] = {}
    separator = b""
    for mark in marks(events):
        actor = mark.event["actor"]
        if actor not in tids:
            tids[actor] = len(tids) + 1
            out.write(separator + orjson.dumps(_named(actor, tids[actor])))
            separator = b",\n"
        out.write(separator + orjson.dumps(_entry(mark, tids[actor]), default=str))
    out.write(b"\n]}\n")


def _named(actor: str, tid: int) -> dict[str, Any]:
    return {
        "ph": "M", "pid": PID, "tid": tid, "name": "thread_name", "args": {"name": actor},
    }  # fmt: skip


def _entry(mark: Mark, tid: int) -> dict[str, Any]:
    event = mark.event
    name, category = event["event"], event["event"].partition(".")[0]
    entry: dict[str, Any] = {
        "name": name.removesuffix(".begin").removesuffix(".end"), "cat": category,
        "pid": PID, "tid": tid, "ts": event["seq"],
        "args": {"text": narrate(event), "t": event["t"], **own_fields(event)},
    }  # fmt: skip
    if mark.lock is not None and mark.phase != "instant":
        # Asynchronous slices: a lock may be held across the calls around it.
        entry |= {"name": mark.lock, "ph": mark.phase[0], "id": f"{tid} {mark.lock}"}
    elif mark.phase == "instant":
        entry |= {"ph": "i", "s": "t"}
    else:
        entry["ph"] = mark.phase[0].upper()
    return entry

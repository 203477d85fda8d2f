"""A run folder of what was watched: an execution of a litmus test, or one taken by hand."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vkprotocol.events import EVENTS

from vkemu.record import rundir
from vkemu.record.line import timestamp
from vkemu.record.log import render
from vkemu.report.recording import Recording
from vkemu.report.told import Told


def keep(
    recording: Recording, root: Path, name: str, summary: dict[str, Any], told: Told | None
) -> tuple[Path, dict[str, Any]]:
    """Its folder below `root`, and what summary.json says. OSError where that cannot be written."""
    events = recording.events()
    counts = Counter(event["event"] for event in events)
    summary = {
        **summary,
        "threads": len({*recording.schedule}),
        "steps": len(recording.schedule),
        "events": len(events),
        "counts": dict(sorted(counts.items())),
        "version": version("vkemu"),
    }
    failure = None if told is None else told.failure
    if failure is not None and failure.bracket is not None:
        summary["window"] = failure.bracket.as_dict()
        if failure.width is not None:
            summary["moved"] = str(failure.width)
    with rundir.new_run(root, name) as folder:
        with folder.events() as out:
            for event in events:
                out.write(line(event, name))
        folder.write_json(rundir.SUMMARY, summary)
        if told is not None:
            folder.write_text(rundir.FAILURE, told.text)
            folder.write_text(rundir.REPORT, told.page)
    return folder.path, summary


def line(event: dict[str, Any], run: str) -> bytes:
    """As `record.log` has it. On which CPU, and for which guest, no watcher asks."""
    first = ("seq", "step", "t", "ts", "run", "actor", "cpu", "guest", "event", "level")
    unlogged = ("function", "where", "vc")
    level = EVENTS[event["event"]].level
    place = {"ts": timestamp(event["t"]), "run": run, "cpu": None, "guest": None, "level": level}
    known = {**place, **event}
    head = {key: known[key] for key in first}
    fields = {key: value for key, value in event.items() if key not in (*first, *unlogged)}
    return render(None, level, {**head, **fields, "vc": event["vc"]})

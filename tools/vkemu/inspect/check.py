"""`vkemu log check`: the oracle over a recorded log, whoever wrote it.

The oracle needs nothing but events. Each line is first held against the event table; one that does
not fit is malformed, as one that is no JSON is. What the oracle did not hear it cannot judge: from
the first hole on - a gap in `seq`, a `log.dropped`, an end that summary.json says there was - all
is unknown, and what the end should leave behind is looked for only in a log that is whole.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from vkprotocol.events import EVENTS, validate

from vkemu.inspect.reader import BadLog, Log
from vkemu.inspect.show import COLUMNS, row
from vkemu.oracle import CHECKS, DEFAULT_CHECKS, Oracle, Violation
from vkemu.record.narrate import Event
from vkemu.record.rundir import DROPPED, is_hidden
from vkemu.verdict import UsageError, Verdict

_FIELDS: Final = {
    name: tuple((f.name, f.kind) for f in event.fields) for name, event in EVENTS.items()
}


@dataclass(slots=True)
class Checked:
    """What the oracle said of a log. It stops at the first violation, as a live run does."""

    events: int = 0
    before: int = 0  # those before the first hole
    hole: str = ""  # where that is, and what is missing there; empty when nothing is
    missing: int = 0  # lines that `seq` and summary.json say there were
    checks: tuple[str, ...] = ()
    finished: bool = True  # whether the checks of the end were made
    line: int = 0  # where the violation is; 0: at the end
    violation: Violation | None = None
    event: Event | None = None
    skipped: list[str] = field(default_factory=list)
    dropped: tuple[int, int, int] | None = None  # count, first and last seq: heard up to there

    @property
    def verdict(self) -> Verdict:
        if self.hole:
            return "unknown"
        return "pass" if self.violation is None else "fail"

    def lacks(self, what: str) -> None:
        """The log has a hole here."""
        if not self.hole:
            self.hole, self.before = what, self.events


class Numbers:
    """The `seq` of the lines heard so far, against what they should be."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.last: int | None = None
        self._accounted = 0  # of the lines left out, those that were no events of this run

    def missing(self, seq: int) -> int:
        """How many events there were between the last one and this."""
        # Some count from 1.
        gap = seq - self.last - 1 if self.last is not None else seq * (seq > 1)
        self.last = seq
        if gap <= 0:
            self._accounted = self.log.skipped
        return max(gap, 0)

    def missing_at_end(self, summary: dict[str, Any]) -> int:
        dropped, events = summary.get("dropped"), summary.get("events")
        heard = -1 if self.last is None else self.last
        return max(
            dropped if isinstance(dropped, int) else 0,
            events - heard - 1 if isinstance(events, int) else 0,
        )

    @property
    def unaccounted(self) -> int:
        """Lines left out after which no `seq` says that they were none of the run's."""
        return self.log.skipped - self._accounted


def check(log: Log, checks: Iterable[str] | None = None) -> Checked:
    """Run the oracle over the log."""
    summary = beside(log.path, "summary.json")
    run = summary | beside(log.path, "scenario.json")
    wanted = tuple(checks or run.get("checks") or DEFAULT_CHECKS)
    unknown = [name for name in wanted if name not in CHECKS]
    if unknown:
        raise UsageError(f"no check {unknown[0]!r}, expected one of {', '.join(CHECKS)}")
    found = Checked(checks=wanted)
    oracle = Oracle(wanted)
    actor = ""
    oracle.actor = lambda: actor
    numbers = Numbers(log)
    later = ", and nothing after them can be judged"
    try:
        for number, event in log.numbered():
            args = arguments(event)
            wrong = args if isinstance(args, str) else validate(event["event"], args)
            if wrong is not None:
                skip(log, found, number, wrong)
                continue
            actor = str(event.get("actor", ""))
            here = event.get("seq")
            if event["event"] == DROPPED:
                count, first, last = found.dropped = event["count"], event["first"], event["last"]
                what = f"{count} were dropped from there to seq {last}"
                found.lacks(f"before seq {first}; {what}{later}")
                break
            if isinstance(here, int) and (gap := numbers.missing(here)):
                found.missing += gap
                found.lacks(f"before seq {here - gap}; {gap} events are missing there{later}")
            found.events += 1
            found.line, found.event = number, event
            oracle(event["event"], *args)
        found.line, found.event = 0, None
        if found.dropped is None:
            look_at_end(found, log, numbers, summary)
        found.finished = ends_properly(summary) and not found.hole
        if found.finished:
            oracle.finish()
    except Violation as violation:
        found.violation = violation
    return found


def look_at_end(found: Checked, log: Log, numbers: Numbers, summary: dict[str, Any]) -> None:
    """Whether the last line is the last event."""
    missing = numbers.missing_at_end(summary)
    found.missing += missing
    left_out = " (checks of the end left out)"
    if missing:
        found.lacks(f"that are there; {missing} events are missing at the end{left_out}")
    elif log.cut:
        found.lacks(f"that are there; the log is {log.cut}{left_out}")
    elif not summary and is_hidden(log.path.parent):
        found.lacks(f"that are there; the run is not complete{left_out}")
    elif numbers.unaccounted:
        lines = numbers.unaccounted
        found.lacks(f"that are there; {lines} lines left out may be events{left_out}")


def skip(log: Log, found: Checked, number: int, wrong: str) -> None:
    if not log.skip_malformed:
        raise BadLog(f"{log.path}:{number}: malformed line ({wrong})")
    log.skipped += 1
    found.skipped.append(f"{number}: {wrong}")


def arguments(event: Event) -> tuple[Any, ...] | str:
    """The event's fields in the order of `emit`; what is wrong, if they cannot be."""
    name = event.get("event")
    fields = _FIELDS.get(name) if isinstance(name, str) else None
    if fields is None:
        return f"{name}: no such event"
    args = []
    for field_name, kind in fields:
        if field_name not in event:
            return f"{name}: no {field_name}"
        value = event[field_name]
        if kind == "bytes" and isinstance(value, str):
            value = content(value)
        elif kind == "int" and isinstance(value, str):
            value = number(value)
        args.append(value)
    return tuple(args)


def content(text: str) -> bytes | str:
    """Page contents as the log writes them; the text itself when it is something else."""
    compressed = "z:"
    if not text.startswith(compressed):
        return text
    try:
        return zlib.decompress(base64.b64decode(text.removeprefix(compressed), validate=True))
    except (binascii.Error, zlib.error):
        return text


def number(text: str) -> int | str:
    """One of more than 64 bits, as the log writes it; the text itself when it is something else."""
    try:
        return int(text, 16)
    except ValueError:
        return text


def beside(path: Path, name: str) -> dict[str, Any]:
    """Another file of the run folder, if the log is in one."""
    try:
        document = json.loads((path.parent / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def ends_properly(summary: dict[str, Any]) -> bool:
    """Whether the run went on to its end, so that leftovers mean something.

    One that reached its step bound, deadlocked or panicked did not.
    """
    failure = summary.get("failure") or ""
    return summary.get("verdict", "pass") == "pass" or str(failure).startswith("invariant ")


def report(found: Checked, log: Log) -> str:
    if found.hole:
        return unknown(found, log)
    if found.violation is None:
        end = "" if found.finished else " (the run did not end; checks of the end left out)"
        return f"no violation in {found.events} events{end}"
    return violation_of(found, log)


def unknown(found: Checked, log: Log) -> str:
    lines = [f"unknown: no violation in the {found.before} events {found.hole}"]
    if found.violation is not None:
        lines += ["", "this comes after what is missing, and may come of it:"]
        lines += [violation_of(found, log)]
    return "\n".join(lines)


def violation_of(found: Checked, log: Log) -> str:
    where = f"{log.path}:{found.line}" if found.line else f"{log.path}: at the end"
    lines = [f"{where}: {found.violation}"]
    if found.event is not None:
        lines += ["", row(found.event, COLUMNS)]
    return "\n".join(lines)


def report_json(found: Checked) -> str:
    violation = found.violation
    document: dict[str, Any] = {
        "verdict": found.verdict,
        "events": found.events,
        "missing": found.missing,
        "checks": found.checks,
        "dropped": found.dropped,
        "violation": None,
    }
    if violation is not None:
        document["violation"] = {
            "invariant": violation.invariant,
            "check": violation.check,
            "message": violation.message,
            "frame": violation.frame,
            "line": found.line or None,
            "seq": None if found.event is None else found.event.get("seq"),
        }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()

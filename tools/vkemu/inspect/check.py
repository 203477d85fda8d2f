"""`vkemu log check`: the oracle over a recorded log, whoever wrote it.

The oracle needs nothing but events. Each line is first held against the event table; one that does
not fit is malformed, as one that is no JSON is. Lines that are missing (a gap in `seq`) are said,
since what the oracle did not hear it cannot judge; where the log itself says that events were
dropped the oracle stops, and what came after is unknown.
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

from vkemu.inspect.narrate import Event
from vkemu.inspect.reader import DROPPED, BadLog, Log
from vkemu.inspect.show import COLUMNS, row
from vkemu.oracle import CHECKS, DEFAULT_CHECKS, Oracle, Violation
from vkemu.verdict import UsageError, Verdict

COMPRESSED: Final = "z:"
_FIELDS: Final = {
    name: tuple((f.name, f.kind) for f in event.fields) for name, event in EVENTS.items()
}


@dataclass(slots=True)
class Checked:
    """What the oracle said of a log. It stops at the first violation, as a live run does."""

    events: int = 0
    missing: int = 0  # lines that `seq` says there were
    checks: tuple[str, ...] = ()
    finished: bool = True  # whether the checks of the end were made
    line: int = 0  # where the violation is; 0: at the end
    violation: Violation | None = None
    event: Event | None = None
    skipped: list[str] = field(default_factory=list)
    dropped: tuple[int, int, int] | None = None  # count, first and last seq: heard up to there

    @property
    def verdict(self) -> Verdict:
        if self.violation is not None:
            return "fail"
        return "pass" if self.dropped is None else "unknown"


def check(log: Log, checks: Iterable[str] | None = None) -> Checked:
    """Run the oracle over the log."""
    summary = beside(log.path, "summary.json")
    wanted = tuple(checks or beside(log.path, "scenario.json").get("checks") or DEFAULT_CHECKS)
    unknown = [name for name in wanted if name not in CHECKS]
    if unknown:
        raise UsageError(f"no check {unknown[0]!r}, expected one of {', '.join(CHECKS)}")
    found = Checked(checks=wanted)
    oracle = Oracle(wanted)
    actor = ""
    oracle.actor = lambda: actor
    seq: int | None = None
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
                found.dropped = event["count"], event["first"], event["last"]
                break
            if isinstance(here, int):
                if seq is not None and here > seq + 1:
                    found.missing += here - seq - 1
                seq = here
            found.events += 1
            found.line, found.event = number, event
            oracle(event["event"], *args)
        found.line, found.event = 0, None
        found.finished = ends_properly(summary) and not log.cut and found.dropped is None
        if found.finished:
            oracle.finish()
    except Violation as violation:
        found.violation = violation
    return found


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
        args.append(value)
    return tuple(args)


def content(text: str) -> bytes | str:
    """Page contents as the log writes them; the text itself when it is something else."""
    if not text.startswith(COMPRESSED):
        return text
    try:
        return zlib.decompress(base64.b64decode(text.removeprefix(COMPRESSED), validate=True))
    except (binascii.Error, zlib.error):
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
    lines = []
    if found.missing:
        lines.append(f"{log.path}: {found.missing} events are missing, the verdict may be wrong")
    if found.dropped is not None:
        count, first, last = found.dropped
        lines.append(
            f"unknown: no violation in the {found.events} events before seq {first}; {count} were"
            f" dropped from there to seq {last}, and nothing after them can be judged"
        )
        return "\n".join(lines)
    if found.violation is None:
        end = "" if found.finished else " (the run did not end; checks of the end left out)"
        lines.append(f"no violation in {found.events} events{end}")
        return "\n".join(lines)
    where = f"{log.path}:{found.line}" if found.line else f"{log.path}: at the end"
    lines += [f"{where}: {found.violation}"]
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

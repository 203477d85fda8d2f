"""The event log as users of structlog expect it: capture, bound values, processors, a console."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs
from structlog.typing import EventDict, Processor
from vkemu.record import log as event_log
from vkemu.record.log import Console, EventLog, Shown, render, renderer_for
from vkprotocol.effects import CLOCK, CURTHREAD

from tests.inspect.small import SMALL

COLOUR = "\x1b["


@pytest.fixture(autouse=True)
def outside_any_thread() -> Iterator[None]:
    """The log asks who acts, and when: nobody, at 0."""
    CURTHREAD[0], before = None, CLOCK[0]
    CLOCK[0] = 0
    yield
    CLOCK[0] = before


def logging(*processors: Processor, renderer: Processor | None = None) -> tuple[EventLog, Any]:
    out = io.BytesIO()
    log = EventLog(out, "test", processors=processors, renderer=renderer)
    return log, lambda: [json.loads(line) for line in out.getvalue().splitlines()]


def test_capture_logs_takes_the_events_with_their_head_and_the_file_gets_none() -> None:
    log, written = logging()
    log.emit("page.free", 3, 1)
    with capture_logs() as entries:
        log.emit("page.free", 4, 1)
    log.emit("page.free", 5, 1)

    (entry,) = entries
    assert entry["log_level"] == "debug"
    assert (entry["event"], entry["pfn"], entry["actor"], entry["seq"]) == (
        "page.free", 4, "kernel", 1,
    )  # fmt: skip
    assert [line["pfn"] for line in written()] == [3, 5]


def test_capture_logs_works_around_a_whole_run(tmp_path: Path) -> None:
    with capture_logs() as entries:
        SMALL.record(tmp_path)

    assert {"fault.begin", "page.alloc"} <= {entry["event"] for entry in entries}
    assert (tmp_path / "latest" / "events.ndjson").read_bytes() == b""


def test_capture_logs_runs_the_processors_it_is_given() -> None:
    def mark(_logger: Any, _level: str, event: EventDict) -> EventDict:
        return {**event, "marked": True}

    log, _ = logging()
    with capture_logs(processors=[mark]) as entries:
        log.emit("page.free", 4, 1)
    assert entries[0]["marked"]


def test_bound_values_are_in_the_lines_of_a_run(tmp_path: Path) -> None:
    with bound_contextvars(experiment="e7", attempt=3):
        SMALL.record(tmp_path)

    written = (tmp_path / "latest/events.ndjson").read_bytes()
    lines = [json.loads(line) for line in written.splitlines()]
    assert len(lines) > 100
    assert all((line["experiment"], line["attempt"]) == ("e7", 3) for line in lines)


def test_a_bound_value_takes_no_name_from_the_head_or_the_fields() -> None:
    log, written = logging()
    with bound_contextvars(seq=77, pfn=77, actor="me", vc="no"):
        log.emit("page.free", 4, 1)

    (line,) = written()
    assert (line["seq"], line["pfn"], line["actor"]) == (0, 4, "kernel")


def test_a_user_s_processor_changes_and_drops_events() -> None:
    def only_even(_logger: Any, _level: str, event: EventDict) -> EventDict:
        if event["pfn"] % 2:
            raise structlog.DropEvent
        return {**event, "by": "me"}

    log, written = logging(only_even)
    for pfn in range(4):
        log.emit("page.free", pfn, 1)

    assert [(line["pfn"], line["by"]) for line in written()] == [(0, "me"), (2, "me")]


def test_a_line_is_the_same_with_processors_and_without(tmp_path: Path) -> None:
    def same(_logger: Any, _level: str, event: EventDict) -> EventDict:
        return event

    SMALL.record(tmp_path / "without")
    SMALL.record(tmp_path / "with", processors=[same])
    bare, passed = (
        (tmp_path / root / "latest/events.ndjson").read_bytes() for root in ("without", "with")
    )

    assert b'"event":"tlb.fill"' in bare
    assert bare == passed


def test_the_documented_chain_is_the_chain() -> None:
    log, _ = logging(structlog.processors.add_log_level)
    names = [getattr(p, "__name__", str(p)) for p in log.processors]
    documented = re.findall(r"^\d\. `(?:EventLog\.|structlog\.contextvars\.)?(\w+)`",
                            event_log.__doc__ or "", re.MULTILINE)  # fmt: skip

    assert documented == ["head", "merge_contextvars", "captured", "processors", "render"]
    assert names == ["head", "merge_contextvars", "captured", "add_log_level", "render"]


def test_the_console_names_actor_and_fields_and_leaves_out_what_repeats() -> None:
    out = io.BytesIO()
    log = EventLog(out, "test", renderer=Console(colours=False))
    log.emit("page.free", 4, 1)
    log.emit("page.write", 4, bytes(4096))

    first, second = out.getvalue().decode().splitlines()
    assert re.fullmatch(
        r"0 \[debug +\] page.free +\[kernel\] cpu=None guest=None pfn=4 gen=1", first
    )
    assert second.endswith("content='4096 bytes'")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_stream_gets_lines_and_a_terminal_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert renderer_for(io.StringIO()) is render
    for no_color, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        shown: list[bytes] = []
        log, written = logging(Shown(renderer_for(Terminal()), shown.append))
        log.emit("page.free", 4, 1)

        assert (COLOUR.encode() in shown[0]) is coloured
        assert [line["pfn"] for line in written()] == [4]  # and the log is what it was


@pytest.mark.slow
@pytest.mark.parametrize("no_color", ["", "1"])
def test_run_events_on_a_terminal_and_in_a_file(no_color: str, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL.text)
    command = [sys.executable, "-m", "vkemu", "run", "small.toml", "--events"]
    env = {**os.environ, "NO_COLOR": no_color}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=theirs, env=env
    ) as process:
        os.close(theirs)
        seen = b""
        while piece := read(ours):
            seen += piece
    os.close(ours)

    assert process.returncode == 0
    text = seen.decode()
    assert "fault.begin" in text
    assert (COLOUR in text) is not bool(no_color)
    if no_color:
        piped = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, env=env)
        assert piped.stderr == (tmp_path / "runs/latest/events.ndjson").read_bytes()
        assert b"pass: small" in piped.stdout


def read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # Linux says EIO when the other side is closed
        return b""

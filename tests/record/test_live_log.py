"""The log of a live host: it never waits, what it drops is counted and said."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from vkemu.commands.cli import main
from vkemu.inspect.check import check, report, report_json
from vkemu.inspect.reader import Log
from vkemu.inspect.show import row
from vkemu.inspect.stats import report as stats_report
from vkemu.inspect.stats import stats
from vkemu.inspect.windows import Window, find
from vkemu.record.live_log import LiveLog, Writer, open_log, to_stream, zstd_pack
from vkemu.record.rundir import RunFolder
from vkprotocol.effects import CURTHREAD

from tests.inspect import streams

PATIENCE = 30.0  # seconds; nothing here takes a fraction of one


@pytest.fixture(autouse=True)
def outside_any_thread() -> None:
    CURTHREAD[0] = None


class Slow:
    """A file whose writes wait until they are allowed."""

    def __init__(self) -> None:
        self.content = b""
        self.asked = threading.Event()
        self.allowed = threading.Event()

    def write(self, data: bytes) -> int:
        self.asked.set()
        assert self.allowed.wait(PATIENCE)
        some = bytes(data[:1000])  # and never takes everything
        self.content += some
        return len(some)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.content.splitlines()]


class Watched(Writer):
    """A test may wait until all is written."""

    def __init__(self, write_some: Callable[[bytes], int], **options: Any) -> None:
        self.written = threading.Event()
        super().__init__(write_some, **options)

    def _batch(self) -> bool:
        going = super()._batch()
        self.written.set()
        return going

    def flush(self) -> None:
        while True:
            self.written.clear()
            if not self.lines:
                break
            assert self.written.wait(PATIENCE)


@contextmanager
def stalled(limit: int = 500) -> Iterator[tuple[Slow, LiveLog]]:
    """A log with room for about three events, whose writer hangs in the first write."""
    file = Slow()
    log = LiveLog(Watched(file.write, limit=limit), "live")
    log.emit("page.alloc", 1, 1, "o", 0)
    assert file.asked.wait(PATIENCE)
    yield file, log
    file.allowed.set()
    log.close()


def test_everything_is_written_when_there_is_room() -> None:
    file = Slow()
    file.allowed.set()
    log = LiveLog(Writer(file.write), "live")
    for pfn in range(1000):
        log.emit("page.free", pfn, 1)

    assert log.close() == ""
    assert (log.dropped, log.seq) == (0, 1000)
    assert [line["pfn"] for line in file.lines] == list(range(1000))


def test_a_stalled_writer_costs_events_and_no_time() -> None:
    with stalled() as (file, log):
        begin = time.monotonic()
        for pfn in range(5000):
            log.emit("page.free", pfn, 1)
        assert time.monotonic() - begin < PATIENCE / 2
        kept = 5001 - log.dropped
        assert kept < 10
        file.allowed.set()
        assert isinstance(log.writer, Watched)
        log.writer.flush()
        log.emit("page.free", 7, 2)
        assert log.close() == f"{log.dropped} events are not in the log"

    lines = file.lines
    gap = lines[kept]
    assert (gap["event"], gap["level"]) == ("log.dropped", "warning")
    assert (gap["count"], gap["first"], gap["last"]) == (log.dropped, kept, 5000)
    assert [line["seq"] for line in lines] == [*range(kept), 5001, 5002]
    assert lines[-1]["pfn"] == 7
    assert log.counts["page.free"] == 5001  # they happened


def test_what_is_dropped_at_the_end_is_said_in_the_log_too() -> None:
    with stalled() as (file, log):
        for pfn in range(100):
            log.emit("page.free", pfn, 1)
        file.allowed.set()
        log.close()

    assert file.lines[-1]["event"] == "log.dropped"
    assert file.lines[-1]["last"] == 100


def test_a_writer_that_never_comes_back_does_not_hold_up_the_end() -> None:
    with stalled() as (_, log):
        for pfn in range(100):
            log.emit("page.free", pfn, 1)
        assert log.close(seconds=0.01) == (
            "102 events are not in the log: it could not be written within 0.01 s"
        )


def test_a_full_disk_ends_the_log_and_not_the_host() -> None:
    def full(_data: bytes) -> int:
        raise OSError(28, "No space left on device")

    log = LiveLog(Writer(full), "live")
    log.emit("page.free", 1, 1)
    log.writer._thread.join(PATIENCE)
    for pfn in range(10):
        log.emit("page.free", pfn, 1)
    assert log.close() == "11 events are not in the log: No space left on device"


def test_a_compressed_log_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    pytest.importorskip("backports.zstd")
    path = tmp_path / "events.ndjson.zst"
    with path.open("wb", 0) as file:
        writer = Watched(file.write, pack=zstd_pack())
        log = LiveLog(writer, "live")
        log.emit("page.free", 1, 1)
        writer.flush()
        part = Log(path, skip_malformed=True)
        assert [event["pfn"] for event in part.events()] == [1]
        assert part.cut
        log.emit("page.free", 2, 1)
        log.close()
    assert [event["pfn"] for event in Log(path).events()] == [1, 2]


def test_a_log_may_be_kept_shown_or_both(tmp_path: Path) -> None:
    shown = StringIO()
    folder = RunFolder(tmp_path, "serve")
    for where in (folder, None):
        with open_log("live", where, shown=shown) as log:
            log.emit("page.free", 1, 1)
    line = (folder.path / "events.ndjson").read_text()
    assert shown.getvalue() == line * 2
    with open_log("live", folder) as log:
        log.emit("page.free", 1, 1)
    assert (folder.path / "events.ndjson").read_text() == line


def test_what_is_told_comes_between_events_that_are_shown() -> None:
    """Both go to standard error, and a full pipe takes half a line."""
    file = Slow()
    log = LiveLog(Writer(file.write), "live")
    log.beside = log.writer
    log.emit("page.free", 1, 1)
    assert file.asked.wait(PATIENCE)
    log.tell("a guest left")
    log.emit("page.free", 2, 1)
    file.allowed.set()
    log.close()

    one, told, two = file.content.decode().splitlines()
    assert (json.loads(one)["pfn"], told, json.loads(two)["pfn"]) == (1, "a guest left", 2)


def test_what_is_only_shown_may_be_dropped_alone() -> None:
    file = Slow()
    writer = Writer(file.write, limit=10)
    for line in (b"0123456789\n", b"x\n", b"y\n"):
        writer.offer(line)
    file.allowed.set()
    assert writer.close() == 2
    assert file.content == b"0123456789\n"


@pytest.mark.parametrize("error", [ValueError("closed file"), RuntimeError("zstd")])
@pytest.mark.parametrize("where", ["write", "pack", "both"])
def test_whatever_ends_the_writer_is_kept_and_told(error: Exception, where: str) -> None:
    """Not OSError alone: a closed stream and a compressor raise others."""

    def fails(*_: object, **__: object) -> Any:
        raise error

    writers = {
        "write": lambda: Writer(fails),
        "pack": lambda: Writer(len, pack=fails),
        "both": lambda: Writer(fails, end=fails),
    }
    log = LiveLog(writers[where](), "live")
    log.emit("page.free", 1, 1)
    log.writer._thread.join(PATIENCE)
    assert log.writer.error is error
    log.emit("page.free", 2, 1)

    assert log.close() == f"2 events are not in the log: {type(error).__name__}: {error}"
    assert log.dropped == 2


def test_a_file_that_cannot_be_closed_is_told() -> None:
    def full() -> None:
        raise OSError(122, "Disk quota exceeded")

    log = LiveLog(Writer(len, end=full), "live")
    log.emit("page.free", 1, 1)
    assert log.close() == "the log may lack its end: Disk quota exceeded"


def test_a_writer_that_has_ended_keeps_nothing() -> None:
    """`tell` asks nobody whether there is room."""
    stream = StringIO()
    log = LiveLog(Writer(to_stream(stream)), "live")
    log.beside = log.writer
    stream.close()
    log.tell("first")
    log.writer._thread.join(PATIENCE)
    for _ in range(100):
        log.tell("a guest left")

    assert not log.writer._waiting
    assert log.writer.close() == 101


def test_what_was_not_shown_is_told_at_the_end(tmp_path: Path) -> None:
    """The log has all of it, the console has not."""
    file = Slow()
    log = open_log("live", RunFolder(tmp_path, "serve"), shown=StringIO())
    assert log.beside is not None
    log.beside._write_some = file.write
    log.beside.limit = 1
    for pfn in range(4):
        log.emit("page.free", pfn, 1)
    file.allowed.set()

    assert log.close() == "3 lines were not shown"
    assert log.dropped == 0


def test_a_stream_without_a_file_is_written_to() -> None:
    stream = StringIO()
    assert to_stream(stream)(memoryview(b"text\n")) == 5  # type: ignore[arg-type]
    assert stream.getvalue() == "text\n"


# What the readers make of the gap.


@pytest.fixture
def gapped(tmp_path: Path) -> Path:
    """Ten events, then 40 were dropped, then what looks like a violation and a window."""
    emit = streams.Stream()
    events = [emit("a", "ipi.ack", cpu=0) for _ in range(8)]
    events.append(emit("a", "inval.begin", pmap=1, start=0, end=4096))
    events.append(emit("a", "page.alloc", pfn=1, gen=1, object="o", pindex=0))
    emit.seq += 40
    events.append(emit("a", "log.dropped", count=40, first=10, last=49))
    events.append(emit("a", "inval.end", pmap=1, start=0, end=4096))
    events.append(emit("a", "page.alloc", pfn=1, gen=9, object="o", pindex=0))
    return streams.write(tmp_path / "events.ndjson", events)


def test_check_judges_up_to_the_gap_and_says_so(
    gapped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(gapped)
    found = check(log)

    assert (found.verdict, found.events, found.dropped) == ("unknown", 10, (40, 10, 49))
    assert report(found, log) == (
        "unknown: no violation in the 10 events before seq 10; 40 were dropped from there to"
        " seq 49, and nothing after them can be judged"
    )
    assert json.loads(report_json(found))["verdict"] == "unknown"
    assert main(["log", "check", str(gapped)]) == 3
    assert capsys.readouterr().out.startswith("unknown: ")


def test_a_violation_before_the_gap_is_one(gapped: Path) -> None:
    emit = streams.Stream()
    early = [emit("a", "page.alloc", pfn=1, gen=1, object="o", pindex=0)]
    early.append(emit("a", "page.flags", pfn=1, set=0x20, clear=0))
    early.append(emit("a", "pte.write", pmap=1, va=4096, old=0, new=0x1407, why="enter"))
    early.append(emit("b", "page.free", pfn=1, gen=1))
    gapped.write_bytes(b"".join(map(streams.line, early)) + gapped.read_bytes())

    assert check(Log(gapped)).verdict == "fail"


def test_windows_do_not_span_the_gap(gapped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found: list[Window] = []
    finder = find(Log(gapped), found.append)
    assert found == []
    assert (finder.gaps, finder.cut) == (1, 1)
    assert main(["log", "windows", str(gapped)]) == 0
    assert "events were dropped at 1 place: 1 open window left out" in capsys.readouterr().out


def test_stats_and_show_say_it(gapped: Path) -> None:
    found = stats(Log(gapped))
    assert (found.events, found.dropped) == (13, 40)
    assert "40 events more were dropped" in stats_report(found)
    (gap,) = [event for event in Log(gapped).events() if event["event"] == "log.dropped"]
    assert "40 events are not in the log, seq 10 to 49" in row(gap, ("text",))

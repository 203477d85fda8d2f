"""`vkemu log check`: what the oracle says of a log is what it said of the run."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from vkemu.commands.cli import main
from vkemu.inspect.check import arguments, check, content, report, report_json
from vkemu.inspect.reader import BadLog, Log
from vkemu.launch.outcome import recorded
from vkemu.litmus.decide import Test as LitmusTest
from vkemu.litmus.decide import decide
from vkemu.litmus.file import Litmus, load_litmus, shipped
from vkemu.oracle.violation import Violation
from vkemu.record.line import plain
from vkemu.record.rundir import new_run
from vkemu.report.explored import Observed
from vkemu.verdict import UsageError
from vkprotocol.events import EVENTS, validate

from tests.inspect.small import SMALL
from tests.inspect.streams import Stream, write

POLICIES = ("vptmapped", "extent_scan", "pv_entry")


def litmus_tests() -> Iterator[Any]:
    for path in shipped():
        litmus = load_litmus(str(path))
        for test in (litmus, *litmus.variants()):
            yield pytest.param(test, id=test.name)


def run_of(litmus: Litmus, policy: str, folder: Path) -> tuple[BaseException | None, Path]:
    """One run of a litmus test, failing if it can fail within a few executions; and its log."""
    decision = decide(litmus, policy, max_executions=40)
    failure = decision.failure
    choose = min if failure is None else recorded(failure.schedule)
    observed = Observed(lambda emit: LitmusTest(litmus, policy, emit), choose, record=True)
    error = observed.run(litmus.file.litmus.max_steps)
    assert observed.recording is not None
    path = folder / f"{policy}.ndjson"
    lines = [orjson.dumps(event, default=plain) + b"\n" for event in observed.recording.events()]
    path.write_bytes(b"".join(lines))
    if observed.cut or not isinstance(error, Violation | None):
        # As a run folder says it: this run did not come to a proper end.
        (folder / "summary.json").write_bytes(orjson.dumps({"verdict": "unknown"}))
    return error, path


ALL = list(litmus_tests())
FEW = [one for one in ALL[::3] if one.id != "W31-clear-install+frame"]  # a third of all the time
MORE = [
    pytest.param(*one.values, marks=pytest.mark.long, id=one.id) for one in ALL if one not in FEW
]


@pytest.mark.slow
@pytest.mark.parametrize("litmus", [*FEW, *MORE])
def test_the_log_of_a_litmus_test_gives_the_same_verdict(litmus: Litmus, tmp_path: Path) -> None:
    checks = litmus.file.litmus.checks or None
    for policy in POLICIES if not litmus.variant else POLICIES[:1]:
        folder = tmp_path / policy
        folder.mkdir()
        error, path = run_of(litmus, policy, folder)
        found = check(Log(path), checks)
        if isinstance(error, Violation):
            assert str(found.violation) == str(error)
        else:
            assert found.violation is None


FREED: list[tuple[str, str, dict[str, Any]]] = [
    ("a", "page.alloc", {"pfn": 3, "gen": 1, "object": "o", "pindex": 0}),
    ("a", "page.flags", {"pfn": 3, "set": 0x20, "clear": 0}),
    ("a", "pte.write", {"pmap": 1, "va": 0x5000, "old": 0, "new": 0x3407, "why": "enter"}),
    ("b", "page.free", {"pfn": 3, "gen": 1}),
]


def foreign(tmp_path: Path, *extra: bytes) -> Path:
    """A log nobody of ours wrote: the least a line needs."""
    lines = [
        orjson.dumps({"seq": i, "t": 0, "actor": actor, "event": name, **fields}) + b"\n"
        for i, (actor, name, fields) in enumerate(FREED)
    ]
    path = tmp_path / "foreign.ndjson"
    path.write_bytes(b"".join([*lines[:1], *extra, *lines[1:]]))
    return path


def test_a_foreign_log_with_a_violation_is_found(tmp_path: Path) -> None:
    log = Log(foreign(tmp_path))
    found = check(log)

    assert found.violation is not None
    assert found.violation.invariant == 2
    assert found.line == 4
    assert report(found, log).startswith(f"{log.path}:4: invariant 2")
    second = found.violation.accesses[1] or found.violation.accesses[0]
    assert second is not None
    assert second.actor in {"a", "b"}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"seq":9\n', "truncated line"),
        (b'{"event":"no.such"}\n', "no such event"),
        (b'{"event":"page.free","pfn":3}\n', "no gen"),
        (b'{"event":"page.free","pfn":"x","gen":1}\n', "pfn is 'x', not int"),
        (b'{"seq":1}\n', "no such event"),
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: bytes, what: str) -> None:
    path = foreign(tmp_path, line)

    with pytest.raises(BadLog, match=what) as raised:
        check(Log(path))
    assert f"{path}:2: " in str(raised.value)
    log = Log(path, skip_malformed=True)
    found = check(log)
    assert found.violation is not None
    assert found.line == 5
    assert log.skipped == 1


def test_missing_lines_are_said(tmp_path: Path) -> None:
    emit = Stream()
    events = [emit("a", "ipi.ack", cpu=0) for _ in range(10)]
    log = Log(write(tmp_path / "x.ndjson", [*events[:3], *events[7:]]))
    found = check(log)

    assert found.missing == 4
    assert found.verdict == "unknown"
    assert report(found, log) == (
        "unknown: no violation in the 3 events before seq 3; 4 events are missing there, and"
        " nothing after them can be judged"
    )


def test_a_violation_after_missing_lines_is_unknown_and_said(tmp_path: Path) -> None:
    emit = Stream()
    events = [emit("a", "ipi.ack", cpu=0) for _ in range(3)]
    events += [emit(who, name, **of) for who, name, of in FREED]
    whole = Log(write(tmp_path / "whole.ndjson", events))
    assert check(whole).verdict == "fail"
    for log in (
        Log(write(tmp_path / "hole.ndjson", [events[0], *events[2:]])),
        Log(write(tmp_path / "head.ndjson", events[2:])),
    ):
        found = check(log)
        assert (found.verdict, found.line) == ("unknown", len(list(log.events())))
        assert json.loads(report_json(found))["verdict"] == "unknown"
        told = report(found, log)
        assert told.startswith(f"unknown: no violation in the {found.before} events before seq ")
        assert "this comes after what is missing, and may come of it:" in told
        assert f"{found.line}: invariant 2" in told


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that passes."""
    return SMALL.record(tmp_path_factory.mktemp("runs")).folder


def without_tail(passing: Path, tmp_path: Path, kept: int, **summary: int) -> Path:
    lines = (passing / "events.ndjson").read_bytes().splitlines(keepends=True)
    (tmp_path / "events.ndjson").write_bytes(b"".join(lines[:kept]))
    (tmp_path / "summary.json").write_bytes(orjson.dumps({"verdict": "pass", **summary}))
    return tmp_path


@pytest.mark.parametrize("tenths", [1, 3, 6, 9])
@pytest.mark.parametrize("counter", ["dropped", "events"])
def test_a_log_without_its_tail_is_unknown(
    passing: Path, tmp_path: Path, tenths: int, counter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk, or the 5 s at the end: no event says it, only summary.json."""
    count = len((passing / "events.ndjson").read_bytes().splitlines())
    kept = count * tenths // 10
    number = {"dropped": count - kept, "events": count}[counter]
    folder = without_tail(passing, tmp_path, kept, **{counter: number})

    assert main(["log", "check", str(folder)]) == 3
    assert capsys.readouterr().out == (
        f"unknown: no violation in the {kept} events that are there; {count - kept} events are"
        " missing at the end (checks of the end left out)\n"
    )


def test_the_log_of_a_run_that_goes_on_is_unknown(passing: Path, tmp_path: Path) -> None:
    """As `vkemu serve` says where it is."""
    count = len((passing / "events.ndjson").read_bytes().splitlines())
    with new_run(tmp_path, "serve") as folder:
        without_tail(passing, folder.path, count // 2)
        (folder.path / "summary.json").unlink()
        found = check(Log(folder.path))
        assert (found.verdict, found.finished, found.before) == ("unknown", False, count // 2)
        assert "the run is not complete (checks of the end left out)" in found.hole


def test_a_whole_log_is_judged_to_its_end(passing: Path, tmp_path: Path) -> None:
    count = len((passing / "events.ndjson").read_bytes().splitlines())
    folder = without_tail(passing, tmp_path, count, dropped=0, events=count)

    found = check(Log(folder))
    assert (found.verdict, found.finished, found.events) == ("pass", True, count)


def test_a_last_line_cut_in_two_leaves_out_the_end(passing: Path, tmp_path: Path) -> None:
    lines = (passing / "events.ndjson").read_bytes().splitlines(keepends=True)
    path = tmp_path / "x.ndjson"
    path.write_bytes(b"".join(lines[:200]) + lines[200][:30])
    found = check(Log(path, skip_malformed=True))

    assert (found.verdict, found.finished, found.before) == ("unknown", False, 200)
    path.write_bytes(b"no event\n" + b"".join(lines))
    assert check(Log(path, skip_malformed=True)).verdict == "pass"


def test_an_unknown_check_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no check 'nonsense'"):
        check(Log(foreign(tmp_path)), ["nonsense"])


def test_page_contents_survive_the_log() -> None:
    page = bytes(range(256)) * 16

    assert content(plain(page)) == page
    assert content("z:!") == "z:!"
    assert content("z:" + base64.b64encode(b"no zlib").decode()) != page
    assert len(plain(bytes(4096))) < 60
    assert zlib.decompress(base64.b64decode(plain(page)[2:])) == page


def test_every_event_of_the_table_reads_back() -> None:
    samples = {"id": "g1", "int": 1, "str": "active", "bool": True, "bytes": b"\0" * 8}
    for name, event in EVENTS.items():
        args = tuple(samples[field.kind] for field in event.fields)
        fields = dict(zip((f.name for f in event.fields), args, strict=True))
        line = orjson.loads(orjson.dumps({"event": name, **fields}, default=plain))
        read = arguments(line)
        assert read == args
        assert isinstance(read, tuple)
        assert validate(name, read) is None

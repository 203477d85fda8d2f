"""`vkemu log` as a user types it: what is printed, and the exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from vkemu.commands.cli import main
from vkemu.verdict import Status

from tests.inspect import streams


def log(*args: object) -> int:
    return main(["log", *map(str, args)])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_show_filters(fleet_log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert log("show", fleet_log, "event=page.*", "pfn=32", "--first", 3) == Status.PASS
    head, *rows = said(capsys).splitlines()

    assert head.split() == ["seq", "t", "actor", "event", "text"]
    assert len(rows) == 3
    assert all("page." in row and "page 32" in row for row in rows)


def test_show_columns_and_json(fleet_log: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    log("show", fleet_log, "--columns", "seq,pfn,guest", "--last", 2)
    assert len(capsysbinary.readouterr().out.splitlines()) == 3
    log("show", fleet_log, "event=tlb.fill", "--json", "--first", 1)
    assert json.loads(capsysbinary.readouterr().out)["event"] == "tlb.fill"


def test_colours_only_when_asked(fleet_log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log("show", fleet_log, "event=page.busy", "--first", 1)
    assert "\x1b[" not in said(capsys)
    log("show", fleet_log, "event=page.busy", "--first", 1, "--color", "always")
    assert "\x1b[" in said(capsys)


def test_the_latest_run_is_meant_when_none_is_named(
    fleet_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "runs" / "latest"
    folder.mkdir(parents=True)
    (folder / "events.ndjson").write_bytes(fleet_log.read_bytes())
    monkeypatch.chdir(tmp_path)

    assert log("show", "event=page.busy", "--first", 1) == Status.PASS
    assert "page.busy" in said(capsys)
    assert log("stats") == Status.PASS


@pytest.mark.parametrize(
    "args",
    [
        ["show", "nowhere"], ["stats", "nowhere"], ["windows", "nowhere"], ["check", "nowhere"],
        ["timeline", "nowhere"], ["diff", "nowhere", "nowhere"], ["query", "nowhere", "SELECT 1"],
        ["export", "--format", "chrome", "nowhere"], ["export", "nowhere"], ["nothing"], [],
        ["show", "nowhere", "t>soon"],
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_status_2(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert log(*args) == Status.USAGE
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_malformed_line_is_status_2_and_skipped_when_asked(
    fleet_log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.ndjson"
    lines = fleet_log.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:10], b"{torn\n", *lines[10:]]))

    for command in ("show", "stats", "windows", "timeline"):
        assert log(command, path) == Status.USAGE
        assert f"{path}:11: " in capsys.readouterr().err
        assert log(command, path, "--skip-malformed") == Status.PASS
        assert "1 malformed lines left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        b'{"seq":9,"t":1}', b'{"hello":[1]}', b"7", b'{"seq":"x","t":null,"actor":5,"event":7}',
        b'{"seq":9,"t":1,"actor":null,"event":"page.free"}', b'{"seq":9,"t":1,"actor":"a"}',
    ],
)  # fmt: skip
def test_a_foreign_line_that_is_no_event_of_any_log_is_named(
    line: bytes, fleet_log: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """It is JSON, but has not what every line has."""
    path = tmp_path / "x.ndjson"
    lines = fleet_log.read_bytes().splitlines(keepends=True)[:30]
    path.write_bytes(b"".join([*lines[:10], line, b"\n", *lines[10:]]))
    commands: list[list[Any]] = [
        ["show", path], ["show", path, "seq>=0"], ["timeline", path], ["stats", path],
        ["windows", path], ["diff", path, fleet_log], ["diff", fleet_log, path],
        *(["export", path, "--format", name] for name in ("chrome", "shiviz", "mermaid")),
    ]  # fmt: skip
    for command in commands:
        assert log(*command) == Status.USAGE, command
        assert f"{path}:11: malformed line".encode() in capsysbinary.readouterr().err
        assert log(*command, "--skip-malformed") in {Status.PASS, Status.VIOLATION}, command
        assert b"1 malformed lines left out" in capsysbinary.readouterr().err


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_violation(fleet_log: Path) -> None:
    command = [sys.executable, "-m", "vkemu", "log", "show", str(fleet_log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode != Status.VIOLATION


def test_windows_stats_timeline_query(fleet_log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert log("windows", fleet_log) == Status.PASS
    assert "walk-to-enter" in said(capsys)
    assert log("windows", fleet_log, "--json") == Status.PASS
    assert {"kind", "opened", "closed", "steps"} <= set(json.loads(said(capsys).splitlines()[0]))
    assert log("stats", fleet_log, "--json") == Status.PASS
    assert json.loads(said(capsys))["events"] > 1900
    assert log("timeline", fleet_log, "seq<30", "--width", 100) == Status.PASS
    assert max(map(len, said(capsys).splitlines())) <= 140
    pytest.importorskip("duckdb")
    assert log("query", fleet_log, "SELECT count(*) AS n FROM events", "--csv") == Status.PASS
    assert said(capsys).splitlines()[0] == "n"


def test_diff_has_a_status(
    fleet_log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert log("diff", fleet_log, fleet_log) == Status.PASS
    other = tmp_path / "x.ndjson"
    other.write_bytes(fleet_log.read_bytes().replace(b'"seq":50,', b'"seq":50,"new":1,'))
    assert log("diff", fleet_log, other) == Status.VIOLATION
    assert "part at event 50" in said(capsys)


def test_check_has_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    emit = streams.Stream()
    fine = [emit("a", "page.alloc", pfn=1, gen=1, object="o", pindex=0)]
    path = streams.write(tmp_path / "x.ndjson", fine)
    assert log("check", path) == Status.PASS
    assert "no violation in 1 events" in said(capsys)
    fine.append(emit("a", "page.flags", pfn=1, set=0x20, clear=0))
    fine.append(emit("a", "pte.write", pmap=1, va=4096, old=0, new=0x1407, why="enter"))
    fine.append(emit("b", "page.free", pfn=1, gen=1))
    streams.write(path, fine)
    assert log("check", path, "--json") == Status.VIOLATION
    assert json.loads(said(capsys))["violation"]["line"] == 4


def test_export_writes_a_file(fleet_log: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.json"

    assert log("export", fleet_log, "seq<100", "--format", "chrome", "-o", out) == Status.PASS
    assert json.loads(out.read_text())["traceEvents"]


def test_shipped_files_are_where_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert log("shipped", "--jq") == Status.PASS
    assert (Path(said(capsys).strip()) / "vkemu.jq").is_file()
    assert log("shipped") == Status.PASS
    assert "vkemu_log.json" in said(capsys)


def test_follow_takes_the_options_of_show(
    fleet_log: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "x.ndjson"
    lines = fleet_log.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"{torn\n", b"{}\n", *lines[1:4]]))
    options = ["--follow", "--json", "--first", 3]

    assert log("show", path, *options, "--skip-malformed") == Status.PASS
    out, err = capsysbinary.readouterr()
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [0, 1, 2]
    assert b"2 malformed lines left out" in err
    assert log("show", path, *options) == Status.USAGE
    assert f"{path}:2: ".encode() in capsysbinary.readouterr().err


@pytest.mark.slow
def test_follow_prints_what_arrives(fleet_log: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    lines = fleet_log.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    command = [sys.executable, "-m", "vkemu", "log", "show", "--follow", str(path)]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(3)]
        with path.open("ab") as f:
            f.write(lines[3][:20])
            f.flush()
            time.sleep(0)
            f.write(lines[3][20:])
        fourth = process.stdout.readline()
        process.terminate()

    assert [int(line.split()[0]) for line in [*first, fourth]] == [0, 1, 2, 3]

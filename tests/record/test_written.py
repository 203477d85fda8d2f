"""Run folders as they are written: plain or compressed, and everything that reads them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from vkemu.commands.cli import main
from vkemu.inspect.reader import BadLog, Log
from vkemu.verdict import UsageError

from tests.inspect.small import SMALL

zstd: Any = pytest.importorskip(
    "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small-1` plain, `small-2` compressed."""
    root = tmp_path_factory.mktemp("runs")
    SMALL.record(root)
    SMALL.record(root, zstd=True)
    return root


def test_a_compressed_run_has_the_same_lines(runs: Path) -> None:
    packed = runs / "small-2" / "events.ndjson.zst"
    assert not (runs / "small-2" / "events.ndjson").exists()
    content = (runs / "small-1" / "events.ndjson").read_bytes()
    assert zstd.decompress(packed.read_bytes()) == content
    assert packed.stat().st_size < len(content) / 5


def test_every_log_command_takes_a_compressed_run(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [
        ["show", "event=page.*"], ["windows"], ["timeline", "seq<50"], ["stats"], ["check"],
        ["export", "--format", "chrome"], ["show", "--json"],
    ]  # fmt: skip
    pytest.importorskip("duckdb")
    commands.append(["query", "SELECT count(*) FROM events"])
    for command, *rest in commands:
        outputs = []
        for run in ("small-1", "small-2"):
            assert main(["log", command, str(runs / run), *rest]) == 0
            outputs.append(capsys.readouterr().out)
        assert outputs[0] == outputs[1], command
    assert main(["log", "diff", str(runs / "small-1"), str(runs / "small-2")]) == 0


@pytest.mark.slow
def test_run_and_replay_write_zst_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL.text)

    assert main(["run", "small.toml", "--zstd"]) == 0
    first = Path("runs/latest/events.ndjson.zst").read_bytes()
    assert main(["replay", "runs/latest", "--zstd"]) == 0
    assert Path("runs/latest/events.ndjson.zst").read_bytes() == first
    assert main(["replay", "runs/latest"]) == 0
    assert Path("runs/latest/events.ndjson").read_bytes() == zstd.decompress(first)


def test_a_cut_zst_is_one_line_with_what_was_read(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that was decompressed is told, and the checks of the end are not made."""
    whole = (runs / "small-2" / "events.ndjson.zst").read_bytes()
    path = tmp_path / "events.ndjson.zst"
    path.write_bytes(whole[: len(whole) * 9 // 10])
    log = Log(path, skip_malformed=True)
    read = len(list(log.events()))
    assert log.cut == f"cut off after {read} lines"
    assert read > 100
    assert log.skipped == 0

    for command in ("show", "windows", "timeline", "stats", "check"):
        assert main(["log", command, str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"{path}: cut off after {read} lines (--skip-malformed takes those)"
        status = 3 if command == "check" else 0  # what is not there may be a violation
        assert main(["log", command, str(path), "--skip-malformed"]) == status
        out, err = capsys.readouterr()
        assert err == f"{path}: cut off after {read} lines\n"
        assert command != "check" or "checks of the end left out" in out
    path.write_bytes(whole[:4])
    with pytest.raises(BadLog, match="cut off before the first line"):
        list(Log(path).events())
    path.write_bytes(whole[:-9] + b"\xff" * 9)
    with pytest.raises(BadLog, match=r"cannot be decompressed|cut off"):
        list(Log(path).events())


def test_without_the_library_the_option_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("compression", "backports", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"--zstd needs `pip install 'vkemu\[zstd\]'`"):
        SMALL.record(tmp_path, zstd=True)
    assert list(tmp_path.iterdir()) == []


def test_a_summary_does_not_depend_on_how_the_log_was_written(runs: Path) -> None:
    one, other = (json.loads((runs / f"small-{n}/summary.json").read_text()) for n in (1, 2))
    assert one == other

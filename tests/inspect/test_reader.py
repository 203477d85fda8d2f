"""Recorded events, streamed; what is malformed is said by its line."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.inspect import reader
from vkemu.inspect.reader import BadLog, Line, Log, locate

from tests.inspect import streams

zstd: Any = pytest.importorskip(
    "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd"
)


def three(path: Path, *damaged: bytes) -> Path:
    lines = [streams.line(event) for event in streams.fleet(3)][:3]
    path.write_bytes(b"".join([lines[0], *damaged, *lines[1:]]))
    return path


def test_a_run_folder_or_its_log_may_be_named(tmp_path: Path) -> None:
    path = three(tmp_path / "events.ndjson")

    assert locate(tmp_path) == path
    assert locate(path) == path


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_what_is_no_log_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(BadLog, match=r"no such file|no events\.ndjson"):
        locate(name)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (b"{\n", "truncated"),
        (b"nonsense\n", "malformed"),
        (b'{"seq":1}\n', "missing required field"),
        (b'{"seq":"x","t":0,"actor":"a","event":"b"}\n', "Expected `int`"),
        (b"[1,2]\n", "Expected `object`"),
        (b"\xff\xfe\n", "malformed"),
    ],
)
def test_a_damaged_line_is_named_and_left_out_only_when_asked(
    tmp_path: Path, damage: bytes, what: str
) -> None:
    path = three(tmp_path / "x.ndjson", damage)

    with pytest.raises(BadLog, match=what) as raised:
        list(Log(path).rows(Line))
    assert str(raised.value).startswith(f"{path}:2: ")
    log = Log(path, skip_malformed=True)
    assert [row.seq for row in log.rows(Line)] == [0, 1, 2]
    assert log.skipped == 1


def test_the_number_of_a_line_is_right_in_later_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHUNK_BYTES", 1000)
    events = list(streams.fleet(100))
    lines = [streams.line(event) for event in events]
    lines[70] = b'{"seq": 70\n'
    path = tmp_path / "x.ndjson"
    path.write_bytes(b"".join(lines))

    with pytest.raises(BadLog, match=r"x\.ndjson:71: "):
        list(Log(path).rows(Line))
    with pytest.raises(BadLog, match=r"x\.ndjson:71: "):
        list(Log(path).numbered())
    log = Log(path, skip_malformed=True)
    assert [n for n, _ in log.numbered()] == [n for n in range(1, len(lines) + 1) if n != 71]


def test_a_truncated_last_line_is_named(tmp_path: Path) -> None:
    path = three(tmp_path / "x.ndjson")
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(BadLog, match=r"x\.ndjson:3: truncated line"):
        list(Log(path).events())


def test_empty_lines_and_a_missing_last_newline_are_fine(tmp_path: Path) -> None:
    path = three(tmp_path / "x.ndjson", b"\n")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))

    assert len(list(Log(path).events())) == 3
    assert [number for number, _ in Log(path).numbered()] == [1, 3, 4]


def test_zst_is_read_as_it_is(tmp_path: Path) -> None:
    plain = streams.write(tmp_path / "x.ndjson", streams.fleet(500))
    packed = tmp_path / "x.ndjson.zst"
    packed.write_bytes(zstd.compress(plain.read_bytes()))

    assert list(Log(packed).events()) == list(Log(plain).events())


def test_a_cut_zst_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson.zst"
    content = b"".join(streams.line(event) for event in streams.fleet(5000))
    path.write_bytes(zstd.compress(content)[:-100])

    log = Log(path, skip_malformed=True)
    read = len(list(log.events()))
    assert log.cut == f"cut off after {read} lines"
    with pytest.raises(BadLog, match=log.cut):
        list(Log(path).events())


def test_what_is_no_zst_is_said(tmp_path: Path) -> None:
    path = three(tmp_path / "x.ndjson.zst")

    with pytest.raises(BadLog, match="cannot be decompressed"):
        list(Log(path).events())


@pytest.mark.slow
@given(st.lists(st.integers(0, 1 << 62), max_size=30), st.integers(1, 400), st.booleans())
def test_chunks_lose_nothing(values: list[int], chunk: int, last_newline: bool) -> None:
    """However the file is cut, the lines are the lines."""
    import tempfile

    content = b"".join(orjson.dumps({"v": v}) + b"\n" for v in values)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "x.ndjson"
        path.write_bytes(content if last_newline else content.rstrip(b"\n"))
        patch.setattr(reader, "CHUNK_BYTES", chunk)

        assert [event["v"] for event in Log(path).rows(dict)] == values


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    """Ten times the log takes no more memory."""
    peaks = []
    for n in (5_000, 50_000):
        path = streams.write(tmp_path / f"{n}.ndjson", streams.fleet(n))
        tracemalloc.start()
        for _ in Log(path).rows(Line):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 1.5 * peaks[0]

"""SQL over events."""

from __future__ import annotations

import builtins
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from vkemu.inspect.query import query
from vkemu.inspect.reader import Log
from vkemu.verdict import UsageError

from tests.inspect import streams

pytest.importorskip("duckdb")


@pytest.mark.slow
def test_counts_agree(fleet_log: Path) -> None:
    names, rows = query(fleet_log, "SELECT event, count(*) AS n FROM events GROUP BY event")

    assert names == ["event", "n"]
    assert dict(rows) == Counter(event["event"] for event in Log(fleet_log).events())


def test_zst_is_read_as_it_is(fleet_log: Path, tmp_path: Path) -> None:
    version = "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd"
    zstd: Any = pytest.importorskip(version)
    packed = tmp_path / "x.ndjson.zst"
    packed.write_bytes(zstd.compress(fleet_log.read_bytes()))
    (row,) = query(packed, "SELECT max(seq), max(t), min(ts) FROM events")[1]

    last = list(Log(fleet_log).events())[-1]
    assert row == (last["seq"], last["t"], "2000-01-01T00:00:00.000000000Z")


def test_words_of_64_bits_and_clocks(tmp_path: Path) -> None:
    emit = streams.Stream()
    event = emit("a", "mem.store", cpu=0, pmap="g1", va=-1, pfn=1, idx=0, value=(1 << 64) - 1)
    path = streams.write(tmp_path / "it's.ndjson", [event])
    (row,) = query(path, "SELECT value, va, pmap, vc->>'$.a' FROM events")[1]

    assert row == ((1 << 64) - 1, -1, "g1", "1")


@pytest.mark.slow
def test_a_field_that_comes_late_is_a_column(tmp_path: Path) -> None:
    """DuckDB alone would not have seen it in the lines it looks at first."""
    emit = streams.Stream()
    events = [emit("a", "ipi.ack", cpu=0) for _ in range(30_000)]
    path = streams.write(tmp_path / "x.ndjson", [*events, emit("a", "page.free", pfn=7, gen=1)])

    assert list(query(path, "SELECT pfn FROM events WHERE pfn IS NOT NULL")[1]) == [(7,)]


def test_what_a_run_has_bound_and_fields_of_one_event_are_columns(tmp_path: Path) -> None:
    emit = streams.Stream()
    events = [emit("a", "ipi.ack", cpu=0), emit("a", "log.dropped", count=3, first=2, last=4)]
    for event in events:
        event |= {"experiment": "e7", "it's": 1}
    path = streams.write(tmp_path / "x.ndjson", events)
    sql = 'SELECT experiment, "it\'s", first FROM events WHERE last = 4'

    assert list(query(path, sql)[1]) == [("e7", "1", 2)]


def test_wrong_sql_is_one_line(fleet_log: Path) -> None:
    with pytest.raises(UsageError, match="vkemu log query: "):
        query(fleet_log, "SELECT nothing FROM nowhere")


def test_a_malformed_line_is_said(fleet_log: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(fleet_log.read_bytes() + b"{nonsense\n")

    with pytest.raises(UsageError, match="vkemu log query: "):
        list(query(path, "SELECT count(*) FROM events")[1])


def test_without_duckdb_it_says_what_to_install(
    fleet_log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "duckdb":
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "duckdb", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(UsageError, match=r"vkemu\[analyze\]"):
        query(fleet_log, "SELECT 1")

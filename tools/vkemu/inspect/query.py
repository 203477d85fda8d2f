"""`vkemu log query`: SQL over the events, through DuckDB.

The table is `events`: the head of every line and every field of the event table as columns, NULL
where an event has none; and as text what else the first line has, which the run has bound. `.zst`
is read as it is. Ids are text, since some are numbers and others names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vkprotocol.events import EVENTS

from vkemu.inspect.reader import BadLog, Log
from vkemu.verdict import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# A 64-bit word may have its top bit set, and -1 stands for "all": only HUGEINT holds both.
_SQL_TYPES: Final = {
    "id": "VARCHAR", "int": "HUGEINT", "str": "VARCHAR", "bool": "BOOLEAN", "bytes": "VARCHAR",
}  # fmt: skip
_HEAD: Final = {
    "seq": "BIGINT", "t": "BIGINT", "ts": "VARCHAR", "run": "VARCHAR", "step": "BIGINT",
    "actor": "VARCHAR", "cpu": "BIGINT", "guest": "VARCHAR", "event": "VARCHAR",
    "level": "VARCHAR", "vc": "JSON",
}  # fmt: skip
# Of different types in one log, or in two: whatever it is, as text.
_MIXED: Final = {"old": "VARCHAR", "new": "VARCHAR", "mask": "VARCHAR"}


def columns(path: Path | None = None) -> dict[str, str]:
    """Column -> SQL type."""
    own = {f.name: _SQL_TYPES[f.kind] for event in EVENTS.values() for f in event.fields}
    known = {**own, **_MIXED, **_HEAD}
    return {**dict.fromkeys(first_line(path) if path else {}, "VARCHAR"), **known}


def first_line(path: Path) -> dict[str, Any]:
    try:
        return next(Log(path).rows(dict), {})
    except BadLog:
        return {}  # DuckDB says it, with the rest of what is wrong


def connect(path: Path) -> DuckDBPyConnection:
    """A database in memory whose table `events` is the log."""
    try:
        import duckdb
    except ImportError:
        raise UsageError(
            "vkemu log query: needs DuckDB, `pip install 'vkemu[analyze]'`;"
            " `vkemu log show FIELD=VALUE ...` filters without it"
        ) from None
    db = duckdb.connect()
    types = ", ".join(f"{_quoted(name)}: '{kind}'" for name, kind in columns(path).items())
    db.execute(
        f"CREATE VIEW events AS SELECT * FROM read_json({_quoted(str(path))}, "
        f"format='newline_delimited', columns={{{types}}})"
    )
    return db


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def query(path: Path, sql: str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """The names of the result's columns, and its rows as they come."""
    db = connect(path)
    import duckdb

    try:
        result = db.execute(sql)
    except duckdb.Error as error:
        raise UsageError(f"vkemu log query: {str(error).splitlines()[0]}") from None
    if not result.description:
        return [], iter(())
    return [column[0] for column in result.description], _rows(db)


def _rows(db: DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    import duckdb

    rows_at_once = 1000
    try:
        while batch := db.fetchmany(rows_at_once):
            yield from batch
    except duckdb.Error as error:
        raise UsageError(f"vkemu log query: {str(error).splitlines()[0]}") from None

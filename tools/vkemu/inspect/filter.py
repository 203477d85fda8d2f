"""Filters: `event=page.* pfn=12,13 t>=1000` - every term must hold.

`=` and `!=` take alternatives separated by commas, and globs for words; numbers may be written
0x500000. `name~text` means the field contains the text. A term about a field an event does not
have is false of it, `!=` included.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec
from vkprotocol.events import EVENTS

from vkemu.inspect.reader import Log
from vkemu.verdict import UsageError

Test = Callable[[Any], bool]
REQUIRED: Final[dict[str, type]] = {"seq": int, "t": int, "actor": str, "event": str}  # see Line

HEADER: Final = (
    "seq", "t", "ts", "run", "step", "actor", "cpu", "guest", "event", "level", "vc",
)  # fmt: skip
_TERM: Final = re.compile(r"([A-Za-z_][\w.]*)(!=|<=|>=|=|<|>|~)(.*)", re.DOTALL)
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_WORDS: Final[dict[str, Any]] = {"null": None, "true": True, "false": False}


def number(text: str) -> int | None:
    """`12`, `0x500000`, `1_000`; None for a word."""
    try:
        return int(text, 0)
    except ValueError:
        return None


class Filter:
    """The terms of a filter, and the columns they look at."""

    def __init__(self, terms: Iterable[str]) -> None:
        parsed = [term for text in terms for term in (parse(word) for word in text.split())]
        # What decides most often is asked first: the event's name costs least and says most.
        self.terms = sorted(parsed, key=lambda term: term[0] not in {"event", "actor"})

    @property
    def fields(self) -> list[str]:
        return list(dict.fromkeys(field for field, _ in self.terms))

    def columns(self) -> type[msgspec.Struct]:
        """A Struct of just these fields, and of those every line must have. A field may be named
        like a Python keyword: `pass`."""
        types: dict[str, Any] = dict(REQUIRED)
        types |= {field: Any for field in self.fields if field not in REQUIRED}
        names = {self._column(field): field for field in types}
        fields = [
            (name, types[field]) if field in REQUIRED else (name, types[field], msgspec.UNSET)
            for name, field in names.items()
        ]
        return msgspec.defstruct("Columns", fields, rename=names, gc=False)

    def _column(self, field: str) -> str:
        return f"f{self.fields.index(field)}" if field in self.fields else field

    def matches(self, event: dict[str, Any]) -> bool:
        return all(field in event and test(event[field]) for field, test in self.terms)

    def lines(self, log: Log) -> Iterator[bytes]:
        """The lines of the log that match, as they are in the file."""
        if not self.terms:
            for chunk in log.chunks() if not log.skip_malformed else _checked(log):
                yield from filter(None, chunk.split(b"\n"))
            return
        get = {field: operator.attrgetter(f"f{i}") for i, field in enumerate(self.fields)}
        for rows, chunk in log.batches(self.columns()):
            kept: Sequence[int] = range(len(rows))
            for field, test in self.terms:
                column = get[field]
                kept = [i for i in kept if test(column(rows[i]))]
            if kept:
                lines = chunk.split(b"\n")
                if len(lines) != len(rows) + 1:
                    lines = [line for line in lines if line.strip()]
                yield from (lines[i] for i in kept)

    def events(self, log: Log) -> Iterator[dict[str, Any]]:
        """The events of the log that match."""
        if not self.terms:
            yield from log.events()
            return
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        for line in self.lines(log):
            yield decode(line)

    def unknown_fields(self) -> list[str]:
        """Notes on fields no event of the table has; a run may have bound others."""
        notes = []
        known = [*HEADER, *(f.name for event in EVENTS.values() for f in event.fields)]
        for field in self.fields:
            if field not in known:
                close = get_close_matches(field, known, 1)
                hint = f", did you mean {close[0]}?" if close else ""
                notes.append(f"no event of the table has a field {field}{hint}")
        return notes


def _checked(log: Log) -> Iterator[bytes]:
    for _, chunk in log.batches(dict):
        yield chunk


def parse(word: str) -> tuple[str, Test]:
    """One term: the field and what must hold of its value."""
    match = _TERM.fullmatch(word)
    if match is None:
        raise UsageError(f"filter {word!r}: expected FIELD=VALUE, one of = != < <= > >= ~ between")
    field, op, text = match.groups()
    if op in _ORDER:
        bound = number(text)
        if bound is None:
            raise UsageError(f"filter {word!r}: {op} compares numbers, and {text!r} is none")
        return field, _ordered(_ORDER[op], bound)
    if op == "~":
        return field, lambda value: isinstance(value, str) and text in value
    test = _equals(text.split(","))
    if op == "!=":
        return field, lambda value: value is not msgspec.UNSET and not test(value)
    return field, test


def _ordered(compare: Callable[[Any, Any], bool], bound: int) -> Test:
    def test(value: Any) -> bool:
        return isinstance(value, (int, float)) and compare(value, bound)

    return test


def _equals(texts: list[str]) -> Test:
    exact: set[Any] = set()
    globs = []
    for text in texts:
        if any(sign in text for sign in "*?["):
            globs.append(text)
        exact.add(text)
        value = number(text)
        if value is not None:
            exact.add(value)
        if text in _WORDS:
            exact.add(_WORDS[text])
    if not globs:
        if len(exact) == 1:
            (only,) = exact
            return lambda value: bool(value == only)
        return lambda value: not isinstance(value, (dict, list)) and value in exact
    # Words repeat: each is matched against the globs once.
    known: dict[str, bool] = {}

    def test(value: Any) -> bool:
        if not isinstance(value, str):
            return not isinstance(value, (dict, list)) and value in exact
        seen = known.get(value)
        if seen is None:
            seen = known[value] = value in exact or any(fnmatchcase(value, g) for g in globs)
        return seen

    return test

"""Scenario files drawn from their own types: one thing wrong is one line with its place, and what
is not refused boots."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect
from vkemu.executors.chance import seeded
from vkemu.launch.draw import drawn
from vkemu.launch.scenario import Scenario, read
from vkemu.report.trial import attempt
from vkemu.verdict import UsageError

Document = dict[str, Any]
PATH = Path("drawn.toml")
LONG = 10**40
EXPECTED = re.compile("expected|at most|no instruction|no parameter|no register")
# One of every table.
WHOLE: Document = {
    "policy": "pv_entry",
    "checks": ["content"],
    "mutants": [],
    "host": {"pages": 300, "shootdown": "stream"},
    "quirks": {},
    "guest": [
        {
            "name": "g1",
            "memory": "512K",
            "vcpus": 1,
            "workloads": ["touch:pages=1"],
            "process": [
                {
                    "program": "li r0, sys.exit\nsyscall\n",
                    "region": [{"start": 0x500000, "size": 4096}],
                }
            ],
            "file": [{"name": "f", "words": 3}],
            "mutants": [],
        }
    ],
    "native": [{"name": "n", "memory": "4p"}],
    "fault": [{"kind": "late-ipi", "at": 1, "cpu": 0}],
}
# By the name of a key: what no file may have there, although its type may.
NAMES: dict[str, tuple[object, ...]] = {
    "policy": ("nope", "", "pv_entry "),
    "policies": (["nope"],),
    "checks": (["nope"], ["content", ""], ["content", "content"]),
    "mutants": (["nope"], [""], ["lazy-tlb", "lazy-tlb"]),
    "workloads": (
        ["nope"],
        ["touch:pages=x"],
        ["touch:nope=1"],
        ["touch:"],
        ["touch:pages=1,pages=1"],
        ["idle:rounds=99999999999999999999"],
        [""],
    ),
    "memory": ("", "4097", "-1", "x", "1T", "0", "999G", 0, -4096, LONG),
    "swap": ("4097", "-1", "x", "999G", -4096, LONG),
    "size": ("", "0", "x", 0, -4096, 4097),
    "data": ("", "0", "x", "999G"),
    "start": (1, 0x400000, 1 << 47, LONG),
    "program": ("mov r1", "li r99, 1", "no/such.elf"),
}


def places(kind: type[Any], document: Any, place: tuple[Any, ...] = ()) -> Iterator[Any]:
    """(where, its type) of every key that a table has or could have, tables below it included."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        if field.encode_name == "blobs":  # no key of a file
            continue
        here = (*place, field.encode_name)
        yield here, field.type
        for one in field.type.types if isinstance(field.type, inspect.UnionType) else [field.type]:
            inner = one.item_type if isinstance(one, inspect.VarTupleType) else one
            if isinstance(inner, inspect.StructType):
                below = document.get(field.encode_name, {})
                if inner is one:
                    yield from places(inner.cls, below, here)
                elif below:
                    yield from places(inner.cls, below[0], (*here, 0))


def wrong_for(kind: inspect.Type, name: str) -> list[object]:
    """Values of no such type, or outside of what it allows."""
    found: list[object] = list(NAMES.get(name, ()))
    types = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    plain = {type(one) for one in types}
    if inspect.IntType not in plain:
        found += [] if inspect.FloatType in plain else [7]
    if inspect.StrType not in plain and inspect.LiteralType not in plain:
        found += ["seven", ""]
    if inspect.BoolType not in plain:
        found.append(True)
    if inspect.FloatType not in plain:
        found += [7.5, math.nan, math.inf]
    found += [] if inspect.VarTupleType in plain else [[], [1]]
    found += [] if plain & {inspect.StructType, inspect.DictType} else [{}, {"x": 1}]
    for one in types:
        if isinstance(one, inspect.IntType | inspect.FloatType):
            found += [one.ge - 1] if one.ge is not None else []
            found += [one.le + 1, LONG] if one.le is not None else []
        if isinstance(one, inspect.LiteralType):
            found += ["nope", "", str(one.values[0]).upper() + "x"]
        if isinstance(one, inspect.StrType) and one.pattern:
            found += ["a b", "", "x" * 99, "a\n", "é"]
    return found


ALL = list(places(Scenario, WHOLE))
PLACES = [
    (place, wrong)
    for place, kind in ALL
    for wrong in wrong_for(kind, place[-1])
    # A number may have any seed and any text is about something.
    if not (place[-1] == "seed" and wrong == LONG)
]


def put(place: tuple[Any, ...], value: object) -> Document:
    found = copy.deepcopy(WHOLE)
    table: Any = found
    for part in place[:-1]:
        table = table[part] if isinstance(part, int) else table.setdefault(part, {})
    table[place[-1]] = value
    return found


def text_of(place: tuple[Any, ...]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).removeprefix(".")


def test_the_whole_one_is_right() -> None:
    read(copy.deepcopy(WHOLE), PATH)


def said(found: Document) -> str:
    try:
        read(found, PATH)
    except UsageError as error:
        return str(error)
    return ""


def test_one_thing_wrong_is_one_line_with_its_place() -> None:
    """Every key, with everything that is none of its values."""
    taken = []
    for place, value in PLACES:
        line = said(put(place, value))
        right = line.startswith(f"drawn.toml:{text_of(place)}") and len(line) < 900
        if not right or not EXPECTED.search(line):
            taken.append(f"{text_of(place)} = {value!r}: {line or 'is taken'}")
    assert len(PLACES) > 500
    assert taken == []


@settings(max_examples=30)
@given(st.sampled_from(sorted({place[:-1] for place, _ in ALL}, key=str)), st.text(max_size=8))
def test_a_key_that_is_none_is_named(table: tuple[Any, ...], key: str) -> None:
    if key not in {place[-1] for place, _ in ALL if place[:-1] == table} | {"blobs"}:
        assert "unknown key, expected one of" in said(put((*table, key), 1))


NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 7, 16, 63, 64, 65, 255, 256, 257, 1 << 16, 1 << 24, (1 << 31) - 1, 1 << 31,
     (1 << 63) - 1, 1 << 63, (1 << 64) - 1, LONG, -1, -(1 << 63)]
)  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(["", "g1", "n", "a b", "x" * 5000, "\0", "é", "512K", "1p", "touch", "late"]),
    st.text(max_size=6),
)
VALUES = st.one_of(NUMBERS, TEXTS, st.booleans(), st.floats(), st.lists(TEXTS, max_size=3))


@st.composite
def values_of(draw: st.DrawFn) -> tuple[tuple[Any, ...], object]:
    """Of a type that it may have, mostly."""
    place, kind = draw(st.sampled_from(ALL))
    types = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    one = draw(st.sampled_from(types))
    if isinstance(one, inspect.LiteralType):
        return place, draw(st.sampled_from(one.values))
    if isinstance(one, inspect.BoolType):
        return place, draw(st.booleans())
    if isinstance(one, inspect.IntType):
        return place, draw(NUMBERS)
    if isinstance(one, inspect.StrType):
        return place, draw(TEXTS)
    return place, draw(VALUES)


@settings(max_examples=20, deadline=None)
@given(st.lists(values_of(), min_size=1, max_size=3))
def test_what_is_not_refused_boots(changes: list[tuple[tuple[Any, ...], object]]) -> None:
    """A verdict, or one line: anything else is raised as a bug of ours."""
    found = copy.deepcopy(WHOLE)
    for place, value in changes:
        table: Any = found
        for part in place[:-1]:
            if isinstance(part, int):
                table = table[part] if isinstance(table, list) and table else {}
            else:
                table = table.setdefault(part, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict):
            table[place[-1]] = value
    line = said(found)
    if line:
        assert line.startswith("drawn.toml:")
        return
    scenario = read(found, PATH)
    if scenario.host.pages > 1 << 12 or sum(g.memory_pages for g in scenario.guest) > 1 << 12:
        return  # it takes a while
    shorter = msgspec.structs.replace(scenario, max_steps=min(scenario.max_steps, 300))
    try:
        attempt(drawn(shorter, 1), seeded(1))
    except UsageError:
        return

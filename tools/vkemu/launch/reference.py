"""The keys of a file, out of the Structs that decode it: `vkemu run --keys`, docs/scenarios.md."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from vkemu.launch.scenario import (
    Guest,
    Host,
    NativeTable,
    Process,
    QuirkTable,
    Region,
    Scenario,
)
from vkguest.quirks import Quirks as GuestQuirks
from vkhost.fault_injection import InjectedFault

TABLES: tuple[tuple[str, Any], ...] = (
    ("", Scenario),
    ("[[guest]]", Guest),
    ("[[guest.process]]", Process),
    ("[[guest.process.region]]", Region),
    ("[guest.quirks]", GuestQuirks),
    ("[[native]]", NativeTable),
    ("[[fault]]", InjectedFault),
    ("[host]", Host),
    ("[quirks]", QuirkTable),
)


class Key(NamedTuple):
    """`about` is the comment beside the field."""

    name: str
    values: str
    default: str
    about: str


def keys(table: Any) -> Iterator[Key]:
    """The keys of a table, in the order of its Struct."""
    about = comments(table)
    for field in msgspec.inspect.type_info(table).fields:  # type: ignore[attr-defined]
        default = "required" if field.required else shown(field)
        name = field.encode_name
        if about.get(name, "").startswith("no key"):
            continue
        yield Key(name, values(field.type), default, about.get(name, ""))


def shown(field: Any) -> str:
    if field.default is msgspec.NODEFAULT:
        made = field.default_factory()
        return "a table" if isinstance(made, msgspec.Struct) else repr(made)
    default = field.default
    if isinstance(default, msgspec.Struct):
        return "a table"
    if default is None:
        return "unset"
    return str(default).lower() if isinstance(default, bool) else repr(default).replace("()", "[]")


def values(kind: Any) -> str:
    """What may stand there."""
    i = msgspec.inspect
    match kind:
        case i.UnionType():
            return " or ".join(values(t) for t in kind.types if not isinstance(t, i.NoneType))
        case i.LiteralType():
            return ", ".join(repr(value) for value in kind.values)
        case i.IntType():
            bounds = [f">= {kind.ge}"] if kind.ge is not None else []
            bounds += [f"<= {kind.le}"] if kind.le is not None else []
            return " ".join(["int", *bounds])
        case i.StrType():
            return "name" if kind.pattern else "string"
        case i.BoolType():
            return "true, false"
        case i.VarTupleType() | i.ListType():
            return f"list of {values(kind.item_type)}"
        case i.DictType():
            return f"table of {values(kind.value_type)} by name"
        case i.StructType():
            return "table"
        case _:
            return type(kind).__name__.removesuffix("Type").lower()


def comments(table: Any) -> dict[str, str]:
    """What stands beside the fields, in the class or in the one it is made of."""
    found: dict[str, str] = {}
    for cls in reversed(table.__mro__):
        if cls.__module__.startswith("vk"):
            for name, text in re.findall(
                r"^    (\w+): [^#\n]*#(?! type)(.*)$", inspect.getsource(cls), re.MULTILINE
            ):
                found[name] = text.strip()
    return found


def markdown(tables: tuple[tuple[str, Any], ...]) -> Iterator[str]:
    for title, table in tables:
        about = " ".join((table.__doc__ or "").split())
        yield f"### `{title}`" if title else "### Top level"
        yield ""
        yield re.sub(r"^\[+[\w.]+\]+:? ?", "", about)
        yield ""
        yield "| Key | Value | Default | |"
        yield "| --- | --- | --- | --- |"
        for key in keys(table):
            yield f"| `{key.name}` | {key.values} | {key.default} | {key.about} |".replace(
                "|  |", "| |"
            )
        yield ""


def text(tables: tuple[tuple[str, Any], ...]) -> Iterator[str]:
    """For a terminal."""
    for title, table in tables:
        yield title or "(top level)"
        for key in keys(table):
            about = f"  {key.about}" if key.about else ""
            yield f"    {key.name:<22} {key.values} ({key.default}){about}"
        yield ""

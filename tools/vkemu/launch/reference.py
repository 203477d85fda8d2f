"""The keys of a file, out of the Structs that decode it: `vkemu run --keys`, docs/scenarios.md."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from vkemu.launch.scenario import (
    DataFile,
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
    ("[[guest.file]]", DataFile),
    ("[guest.quirks]", GuestQuirks),
    ("[[native]]", NativeTable),
    ("[[fault]]", InjectedFault),
    ("[host]", Host),
    ("[quirks]", QuirkTable),
)


class Key(NamedTuple):
    """`about` is the comment at the field; `example` a line of TOML."""

    name: str
    values: str
    default: str
    about: str
    example: str


def keys(title: str, table: Any) -> Iterator[Key]:
    """The keys of a table, in the order of its Struct."""
    about = comments(table)
    for field in msgspec.inspect.type_info(table).fields:  # type: ignore[attr-defined]
        default = "required" if field.required else shown(field)
        name = field.encode_name
        if about.get(name, "").startswith("no key"):
            continue
        yield Key(name, values(field.type), default, about.get(name, ""), example(title, field))


# Where the type does not say what one would write.
EXAMPLES: dict[str, Any] = {
    "name": "mine",
    "about": "what it shows",
    "policy": "vptmapped",
    "checks": ["content"],
    "mutants": ["first-pte-only"],
    "memory": "4M",
    "size": "64K",
    "data": "2p",
    "swap": "12p",
    "workloads": ["touch:pages=2", "forkcow"],
    "program": "li r0, sys.exit\nsyscall\n",
    "args": ["10"],
    "programs": ["prog.elf"],
    "path": "data.bin",
    "words": 8,
    "start": 0x500000,
    "policies": ["pv_entry", "vptmapped"],
    "reason": "it is about the flag",
    "na": {"nested": "no PTE of a VPTE is kept"},
    "na_where": {"wired": "fork_copies_wired_vpagetable"},
    "spare": 0,
    "frame": 20,
    "tunables": {"prefault_pages": 0},
    "window": "W06",
    "title": "a race",
    "breaks": "a frame is freed under a PTE",
    "va": 0x400000,
    "page": "X",
    "bits": "V|RW|U",
    "tlb": [0],
    "written": 7,
    "[[before]] thread": "G",
    "run": ["r0 = peek a"],
    "forbidden": "G.r0 == 99",
    "allowed": ["G.r0 == 1"],
    "required": "X[0] == 1",
    "[page.NAME] words": [1, 2],
    "[guest] swap": 4,
    "[guest] data": 3,
    "[guest] mutants": ["inval-before-edit"],
    "cpu": 0,
    "[[variant]] host": {"interlock": False},
    "[[variant]] quirks": {"unbounded_object": True},
    "[[variant]] guest": {"swap": 4},
    "before": ["store x 1"],
    "at": 3,
    "kind": "paused-cpu",
    "[[thread]] kind": "user",
    "[[native]] seed": 7,
    "guest": "g1",
    "[[fault]] cpu": 0,
    "[host] cpus": 4,
    "free_min": 4,
    "cache_min": 0,
    "page_max_wired": 40,
    "max_launder": 8,
    "[[guest]] mutants": ["inval-before-edit"],
    "chance": 0.5,
    "expect": "fail",
}


def example(title: str, field: Any) -> str:
    """A line of TOML; of a key that is a table, nothing."""
    name = field.encode_name
    if any(isinstance(inner(kind), msgspec.inspect.StructType) for kind in types_of(field)):
        return ""
    value = EXAMPLES.get(f"{title} {name}", EXAMPLES.get(name))
    if value is None:
        value = other(field)
    return f"{name} = {toml(value)}"


def types_of(field: Any) -> tuple[Any, ...]:
    return getattr(field.type, "types", (field.type,))


def inner(kind: Any) -> Any:
    """Of a list or a table by names, what is in it."""
    return getattr(kind, "item_type", getattr(kind, "value_type", kind))


def other(field: Any) -> Any:
    """Another value than the default."""
    default = None if field.default is msgspec.NODEFAULT else field.default
    for kind in types_of(field):
        match kind:
            case msgspec.inspect.LiteralType():
                return next(value for value in kind.values[::-1] if value not in (default, ""))
            case msgspec.inspect.BoolType():
                return not default
            case msgspec.inspect.IntType():
                return default or kind.ge or 1
    return default


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(one)}' for key, one in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0x10000:
        return hex(value)
    return json.dumps(value)


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
    """What stands beside the fields or above them, in the class or in the one it is made of."""
    found: dict[str, str] = {}
    for cls in reversed(table.__mro__):
        if cls.__module__.startswith("vk"):
            above: list[str] = []
            for line in inspect.getsource(cls).splitlines():
                if comment := re.match(r"^    # (.*)$", line):
                    above.append(comment[1])
                    continue
                field = re.match(r"^    (\w+): [^#\n]*(?:# (?!type)(.*))?$", line)
                if field and (field[2] or above):
                    found[field[1]] = (field[2] or " ".join(above)).strip()
                above = []
    return found


def markdown(tables: tuple[tuple[str, Any], ...]) -> Iterator[str]:
    for title, table in tables:
        about = " ".join((table.__doc__ or "").split())
        yield f"### `{title}`" if title else "### Top level"
        yield ""
        yield re.sub(r"^\[+[\w.]+\]+:? ?", "", about)
        yield ""
        yield "| Key | Value | Default | | Example |"
        yield "| --- | --- | --- | --- | --- |"
        for key in keys(title, table):
            cells = (key.values, key.default, key.about, f"`{key.example}`" if key.example else "")
            yield f"| `{key.name}` | {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |"
        yield ""


def text(tables: tuple[tuple[str, Any], ...]) -> Iterator[str]:
    """For a terminal."""
    for title, table in tables:
        yield title or "(top level)"
        for key in keys(title, table):
            yield f"    {key.name:<22} {key.values} ({key.default})  {key.about}"
            if key.example:
                yield f"    {'':<22} {key.example}"
        yield ""

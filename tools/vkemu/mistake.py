"""msgspec's errors as one line: `file:guest[0].vcpus: got str, expected int`."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from vkemu.verdict import UsageError

T = TypeVar("T")

_TYPES = re.compile(r"^Expected (?P<want>.*?), got (?P<got>.*)$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<key>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<key>.*)`$")
_REFUSED = re.compile(r"^(?P<key>\w+) = (?P<got>.*): expected (?P<want>.*)$")  # a __post_init__
_INVALID = re.compile(r"^Invalid (?P<kind>.*?) (?P<got>'.*'|`.*`)$", re.DOTALL)


def convert(document: Any, kind: type[T], where: str) -> T:
    """`document` as a `kind`, or a UsageError that names the key."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}:{explain(str(error), document, kind)}") from None


def explain(message: str, document: Any, kind: Any) -> str:
    what, _, path = message.rpartition(" - at `$")
    if not what:
        what, path = message, ""
    key = path.rstrip("`").lstrip(".")
    table = _struct_at(kind, key)
    if unknown := _UNKNOWN.match(what):
        fields = ", ".join(table.__struct_encode_fields__) if table else "a known key"
        return f"{_join(key, unknown['key'])}: unknown key, expected one of {fields}"
    if missing := _MISSING.match(what):
        return f"{_join(key, missing['key'])}: missing, expected a value"
    if refused := _REFUSED.match(what):
        return f"{_join(key, refused['key'])}: {refused['got']}, expected {refused['want']}"
    value = _value_at(document, key)
    if types := _TYPES.match(what):
        want = types["want"].replace(" | null", "")  # which TOML has not
        return f"{key}: got {types['got']} {value}, expected {want}".replace("`", "")
    if _INVALID.match(what):
        return f"{key}: {value} is not allowed, expected {_choices(kind, key)}"
    what = what.replace("`", "").removeprefix("Expected ")
    return f"{key}: {value}, expected {what}"


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key


def _parts(key: str) -> list[str]:
    return re.findall(r"[^.\[\]]+", key)


def _value_at(document: Any, key: str) -> str:
    value = document
    for part in _parts(key):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (LookupError, TypeError, ValueError):
            return "?"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _types_at(kind: Any, key: str) -> list[msgspec.inspect.Type]:
    """What the type at `key` may be, unions opened."""
    types = [msgspec.inspect.type_info(kind)]
    for part in ["", *_parts(key)]:
        if part:
            types = [inner for outer in types for inner in _inner(outer, part)]
        types = [
            member
            for outer in types
            for member in (outer.types if isinstance(outer, msgspec.inspect.UnionType) else [outer])
        ]
    return types


def _inner(outer: msgspec.inspect.Type, part: str) -> list[msgspec.inspect.Type]:
    if isinstance(outer, msgspec.inspect.StructType):
        return [field.type for field in outer.fields if field.encode_name == part]
    if isinstance(outer, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
        return [outer.item_type]
    if isinstance(outer, msgspec.inspect.DictType):
        return [outer.value_type]
    return []


def _struct_at(kind: Any, key: str) -> Any:
    for found in _types_at(kind, key):
        if isinstance(found, msgspec.inspect.StructType):
            return found.cls
    return None


def _choices(kind: Any, key: str) -> str:
    for found in _types_at(kind, key):
        if isinstance(found, msgspec.inspect.LiteralType):
            return "one of " + ", ".join(str(value) for value in found.values)
        if isinstance(found, msgspec.inspect.EnumType):
            return "one of " + ", ".join(str(member.value) for member in found.cls)
    return "another value"

"""msgspec's errors as one line: `file:guest[0].vcpus: got str, expected int`."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from vkemu.verdict import UsageError

T = TypeVar("T")
Place: TypeAlias = tuple[str, ...]  # keys and indices, from the top

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
    what, _, path = message.rpartition(" - at ")
    if not what:
        what, path = message, ""
    path = path.strip("`")
    if path.startswith("key` in `"):
        place = _place(path.partition("$")[2], document, kind)
        return _wrong_key(what, document, kind, place)
    place = _place(path.partition("$")[2], document, kind)
    key = _text(place)
    table = _struct_at(kind, place)
    if unknown := _UNKNOWN.match(what):
        fields = ", ".join(table.__struct_encode_fields__) if table else "a known key"
        return f"{_text((*place, unknown['key']))}: unknown key, expected one of {fields}"
    if missing := _MISSING.match(what):
        return f"{_text((*place, missing['key']))}: missing, expected a value"
    if refused := _REFUSED.match(what):
        here = _text((*place, refused["key"]))
        return f"{here}: {refused['got']}, expected {refused['want']}"
    value = _shown(_value_at(document, place))
    if types := _TYPES.match(what):
        want = types["want"].replace(" | null", "")  # which TOML has not
        return f"{key}: got {types['got']} {value}, expected {want}".replace("`", "")
    if _INVALID.match(what):
        return f"{key}: {value} is not allowed, expected {_choices(kind, place)}"
    what = what.replace("`", "").removeprefix("Expected ")
    return f"{key}: {value}, expected {what}"


def _wrong_key(what: str, document: Any, kind: Any, place: Place) -> str:
    """Of a table whose keys are names: which of them is none."""
    expected = what.replace("`", "").removeprefix("Expected ")
    for name in _value_at(document, place):
        try:
            msgspec.convert({name: 0}, dict[_key_type(kind, place), Any])  # type: ignore[misc]
        except msgspec.ValidationError:
            return f"{_text(place)}: {_shown(name)}, expected a name: {expected}"
    return f"{_text(place)}: expected names: {expected}"


def _place(path: str, document: Any, kind: Any) -> Place:
    """`.guest[0].vcpus` as its parts. Of a table by names msgspec says `[...]`, not which name:
    the first whose value is none."""
    place: Place = ()
    for part in re.findall(r"[^.\[\]]+|\.\.\.", path):
        place = (*place, _first_wrong(document, kind, place) if part == "..." else part)
    return place


def _first_wrong(document: Any, kind: Any, place: Place) -> str:
    values = _value_at(document, place)
    for name in values:
        try:
            msgspec.convert(values[name], _value_type(kind, place))
        except msgspec.ValidationError:
            return str(name)
    return "?"


def _text(place: Place) -> str:
    text = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in place)
    return text.removeprefix(".")


def _value_at(document: Any, place: Place) -> Any:
    value = document
    for part in place:
        value = value[int(part)] if isinstance(value, list | tuple) else value[part]
    return value


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of too many digits
        return "a number too long"
    return text if len(text) <= 60 else text[:57] + "..."


_type_info = cache(msgspec.inspect.type_info)


def _types_at(kind: Any, place: Place) -> list[msgspec.inspect.Type]:
    """What the type at `place` may be, unions opened."""
    types = [_type_info(kind)]
    for part in ["", *place]:
        if part:
            types = [inner for outer in types for inner in _inner(outer, part)]
        types = [
            member
            for outer in types
            for member in (outer.types if isinstance(outer, msgspec.inspect.UnionType) else [outer])
        ]
    return types


def is_text(kind: Any, place: Place) -> bool:
    """Whether there is text at `place`, and nothing else."""
    types = [t for t in _types_at(kind, place) if not isinstance(t, msgspec.inspect.NoneType)]
    return bool(types) and all(
        isinstance(t, msgspec.inspect.StrType)
        or (isinstance(t, msgspec.inspect.LiteralType) and isinstance(t.values[0], str))
        for t in types
    )


def _value_type(kind: Any, place: Place) -> Any:
    """Of the values of a table by names."""
    for found in _types_at(kind, place):
        if isinstance(found, msgspec.inspect.DictType):
            value = found.value_type
            if isinstance(value, msgspec.inspect.StructType):
                return value.cls
            return int if isinstance(value, msgspec.inspect.IntType) else str
    return Any


def _key_type(kind: Any, place: Place) -> Any:
    for found in _types_at(kind, place):
        if isinstance(found, msgspec.inspect.DictType) and isinstance(
            found.key_type, msgspec.inspect.StrType
        ):
            key = found.key_type
            return Annotated[str, msgspec.Meta(pattern=key.pattern, max_length=key.max_length)]
    return str


def _inner(outer: msgspec.inspect.Type, part: str) -> list[msgspec.inspect.Type]:
    if isinstance(outer, msgspec.inspect.StructType):
        return [field.type for field in outer.fields if field.encode_name == part]
    if isinstance(outer, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
        return [outer.item_type]
    if isinstance(outer, msgspec.inspect.DictType):
        return [outer.value_type]
    return []


def _struct_at(kind: Any, place: Place) -> Any:
    for found in _types_at(kind, place):
        if isinstance(found, msgspec.inspect.StructType):
            return found.cls
    return None


def _choices(kind: Any, place: Place) -> str:
    for found in _types_at(kind, place):
        if isinstance(found, msgspec.inspect.LiteralType):
            return "one of " + ", ".join(str(value) or "''" for value in found.values)
        if isinstance(found, msgspec.inspect.EnumType):
            return "one of " + ", ".join(str(member.value) for member in found.cls)
    return "another value"

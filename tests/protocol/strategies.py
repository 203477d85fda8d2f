"""Hypothesis strategies for every message, derived from the types that validate them."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from hypothesis import strategies as st
from msgspec import inspect
from vkprotocol import limits
from vkprotocol.messages import (
    AnyMessage,
    AnyRequest,
)

REQUESTS: tuple[type[Any], ...] = get_args(AnyRequest)
MESSAGES: tuple[type[Any], ...] = get_args(AnyMessage)
# Long arrays show nothing that short ones do not; their bounds are tested one by one.
LENGTH_MAX = 6


def _integers(spec: inspect.IntType) -> st.SearchStrategy[int]:
    low = -(1 << 63) if spec.ge is None and spec.gt is None else None
    low = spec.ge if low is None and spec.ge is not None else low
    low = spec.gt + 1 if low is None and spec.gt is not None else low
    high = limits.U64 if spec.le is None else spec.le
    high = high if spec.lt is None else spec.lt - 1
    assert low is not None
    step = spec.multiple_of or 1
    return st.integers(-(-low // step), high // step).map(lambda n: n * step)


def _of(spec: inspect.Type) -> st.SearchStrategy[Any]:
    if isinstance(spec, inspect.Metadata):
        return _of(spec.type)
    if isinstance(spec, inspect.IntType):
        return _integers(spec)
    if isinstance(spec, inspect.BoolType):
        return st.booleans()
    if isinstance(spec, inspect.NoneType):
        return st.none()
    if isinstance(spec, inspect.StrType):
        return st.text(max_size=min(spec.max_length or LENGTH_MAX, LENGTH_MAX))
    if isinstance(spec, inspect.BytesType):
        return st.binary(max_size=min(spec.max_length or LENGTH_MAX, LENGTH_MAX))
    if isinstance(spec, inspect.EnumType):
        return st.sampled_from(list(spec.cls))
    if isinstance(spec, inspect.UnionType):
        return st.one_of(*map(_of, spec.types))
    if isinstance(spec, inspect.VarTupleType):
        low = spec.min_length or 0
        high = max(low, min(spec.max_length or LENGTH_MAX, LENGTH_MAX))
        return st.lists(_of(spec.item_type), min_size=low, max_size=high).map(tuple)
    if isinstance(spec, (inspect.NamedTupleType, inspect.StructType)):
        fields = {field.name: _of(field.type) for field in spec.fields}
        return st.builds(spec.cls, **fields)
    raise AssertionError(f"no strategy for {spec}")


@cache
def message_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    return _of(inspect.type_info(kind))


def messages() -> st.SearchStrategy[AnyMessage]:
    return st.sampled_from(MESSAGES).flatmap(message_of)


def bounded_fields() -> list[tuple[type[Any], str, str, int]]:
    """(type, field, which bound, its value) of every integer field of every message."""
    found = []
    for kind in MESSAGES:
        info = inspect.type_info(kind)
        assert isinstance(info, inspect.StructType)
        for field in info.fields:
            spec = field.type.type if isinstance(field.type, inspect.Metadata) else field.type
            if isinstance(spec, inspect.IntType):
                for bound in ("ge", "gt", "le", "lt"):
                    value = getattr(spec, bound)
                    if value is not None:
                        found.append((kind, field.encode_name, bound, value))
    return found


def tag_of(kind: type[Any]) -> str:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str)
    return tag

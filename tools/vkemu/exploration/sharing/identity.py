"""Which program that is: what a search that was saved means nothing without.

A program that says so itself has an `identity`. Of a function it is its code, the code of the
functions of its module that it calls, and the numbers, texts and functions it refers to; of what
else it refers to only the type, for that may change, or look otherwise in another process.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

PLAIN: Final = (bool, int, float, complex, str, bytes, type(None), type(...))


def identity_of(program: Any) -> str:
    said = getattr(program, "identity", None)
    if said is not None:
        return str(said)
    if not isinstance(program, (FunctionType, MethodType, partial)):
        program = type(program).__call__
    digest = 0
    for word in words(program, set()):
        digest = zlib.crc32(f"{word}\n".encode(), digest)
    return f"{digest:08x}"


def words(value: Any, seen: set[CodeType]) -> Iterator[str]:
    """All that `value` consists of, in an order that is the same in every process."""
    yield type(value).__qualname__
    match value:
        case partial():
            yield from words(value.func, seen)
            yield from words(value.args, seen)
            yield from words(tuple(value.keywords.items()), seen)
        case MethodType():
            yield from words(value.__func__, seen)
        case FunctionType():
            yield from words_of_function(value, seen)
        case CodeType() if value not in seen:
            seen.add(value)
            yield value.co_code.hex()
            yield " ".join((value.co_name, *value.co_names, *value.co_varnames))
            yield from words(value.co_consts, seen)
        case tuple():
            for item in value:
                yield from words(item, seen)
        case frozenset():
            yield from sorted(" ".join(words(item, seen)) for item in value)
        case _ if isinstance(value, PLAIN):
            yield repr(value)


def words_of_function(function: FunctionType, seen: set[CodeType]) -> Iterator[str]:
    """With what it refers to, as far as that is its module's own."""
    if function.__code__ in seen:
        return
    yield from words(function.__code__, seen)
    yield from words(function.__defaults__, seen)
    yield from words(tuple((function.__kwdefaults__ or {}).items()), seen)
    for cell in function.__closure__ or ():
        try:
            yield from words(cell.cell_contents, seen)
        except ValueError:  # nothing in it yet
            yield "empty"
    for name in names_in(function.__code__):
        value = function.__globals__.get(name)
        own = isinstance(value, FunctionType) and value.__module__ == function.__module__
        if own or isinstance(value, PLAIN):
            yield name
            yield from words(value, seen)


def names_in(code: CodeType) -> Iterator[str]:
    """Of globals and attributes, in this and in the functions inside of it."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from names_in(const)

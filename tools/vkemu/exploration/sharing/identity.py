"""Which program that is: what a search that was saved means nothing without.

A program that says so itself has an `identity`. Of any other it is all that it can reach, by value:
its code, the code it calls, and the numbers, texts, containers and objects it refers to, wherever
they are kept. Of what nobody it belongs to has written - the standard library, installed packages,
vkemu - it is the name. Where something has no value that can be told, it is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from re import Pattern
from types import CodeType, FunctionType, ModuleType
from typing import Any

from vkemu.exploration.inside import PLAIN, not_its_own
from vkemu.exploration.reach import OPEN, Reach
from vkemu.exploration.result import ExplorationError


def identity_of(program: Any) -> str:
    said = getattr(program, "identity", None)
    if said is not None:
        return str(said)
    things_max = 1_000_000  # that a program may refer to
    reach = Reach(program, not_its_own, things_max)
    if OPEN & reach.names.keys():  # to who knows which field
        reach = Reach(program, not_its_own, things_max, whole=True)
    outside = ("environ", "getenv", "argv")  # of the process
    unknown = reach.unknown or next((name for name in outside if name in reach.names), None)
    if unknown is not None:
        raise ExplorationError(
            f"checkpoint: the program refers to {unknown}, of which nobody can tell whether "
            "it is the same another day; give the program an attribute `identity`, a text"
        )
    digest = 0
    for name, thing in reach.things:
        for word in (name, *words(thing)):
            digest = zlib.crc32(f"{word}\n".encode(errors="surrogatepass"), digest)
    return f"{digest:08x}"


def words(thing: Any) -> Iterator[str]:
    """The thing itself, but for what is inside of it."""
    kind = type(thing)
    yield f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(thing, FunctionType):
        yield f"{thing.__module__}.{thing.__qualname__}"
        if not not_its_own(thing):
            yield from words_of_code(thing.__code__)
    elif isinstance(thing, (type, ModuleType)) or not_its_own(thing):
        yield f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
    elif isinstance(thing, Enum):
        yield thing.name
    elif isinstance(thing, int):
        yield hex(thing)
    elif isinstance(thing, PLAIN):
        base: Any = next(base for base in kind.__mro__ if base in PLAIN)
        yield base.__repr__(thing)
    elif isinstance(thing, (range, slice, Pattern, Decimal, Fraction)):
        yield repr(thing)
    elif isinstance(thing, CodeType):
        yield from words_of_code(thing)
    elif isinstance(thing, (list, tuple, dict, set, frozenset)):
        yield str(len(thing))


def words_of_code(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield " ".join((code.co_name, *code.co_names, *code.co_varnames, *code.co_freevars))
    for const in code.co_consts:
        yield from words_of_const(const)


def words_of_const(const: Any) -> Iterator[str]:
    yield type(const).__name__
    match const:
        case CodeType():
            yield from words_of_code(const)
        case tuple():
            for item in const:
                yield from words_of_const(item)
        case frozenset():
            yield from sorted(" ".join(words_of_const(item)) for item in const)
        case int():
            yield hex(const)
        case _:
            yield repr(const)

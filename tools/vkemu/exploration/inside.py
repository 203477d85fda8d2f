"""What is inside of a thing of Python: parts, and fields that count when they are named.

Of functions, classes, objects and containers it is known, and of what holds nothing that changes;
of all else nobody knows, and whoever asks has to expect the worst.
"""

from __future__ import annotations

import builtins
import dis
import operator
import os
import re
import sys
import sysconfig
import types
from abc import ABC
from collections import (  # type: ignore[attr-defined]
    Counter,
    OrderedDict,
    _tuplegetter,
    defaultdict,
    deque,
)
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cache, partial, partialmethod
from re import Pattern
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, Generic, NamedTuple, TypeAlias

HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by Python code
PLAIN: Final = (int, float, complex, str, bytes, bool, type(None), type(...), type(NotImplemented))
# What holds nothing that changes.
CONSTANT: Final = (
    *PLAIN, range, slice, Pattern, Decimal, Fraction, CodeType, types.GenericAlias,
    types.MethodDescriptorType, types.WrapperDescriptorType,
    types.MemberDescriptorType, types.GetSetDescriptorType, types.ClassMethodDescriptorType,
    _tuplegetter,
)  # fmt: skip
CONSTANTS: Final = frozenset(CONSTANT)
# Modules whose functions and classes depend on their arguments alone, and change nothing else.
PURE: Final = frozenset(
    [
        "builtins", "math", "cmath", "operator", "_operator", "itertools", "functools",
        "_functools", "collections", "_collections", "_collections_abc", "collections.abc",
        "typing", "statistics", "re", "string", "textwrap", "types", "dataclasses", "enum", "copy",
        "decimal", "_decimal", "fractions", "numbers", "abc", "json", "struct", "_struct", "zlib",
        "hashlib", "bisect", "_bisect", "heapq", "_heapq", "__future__",
    ]
)  # fmt: skip
# But for those that see more than they are given.
IMPURE: Final = frozenset(
    [
        "eval", "exec", "globals", "locals", "vars", "dir", "open", "input", "__import__",
        "getattr", "compile", "breakpoint",
    ]
)  # fmt: skip
NAMERS: Final = (operator.attrgetter, operator.methodcaller)
OURS: Final = frozenset({"vkemu", "vkhost", "vkguest", "vkprotocol"})
STANDARD: Final = (
    *(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib")), "<frozen",
)  # fmt: skip
Parts: TypeAlias = list[tuple[str, Any]]


class Inside(NamedTuple):
    """What is inside of a thing: parts, and fields that count when they are named."""

    parts: Parts = []  # noqa: RUF012 - never changed
    fields: tuple[Mapping[str, Any], ...] = ()
    names: tuple[str, ...] = ()  # which this thing names
    changes: bool = False  # the parts can become others


NOTHING_INSIDE: Final = Inside()


def inside(thing: Any) -> Inside | None:
    """None where nobody knows."""
    kind = type(thing)
    known = KNOWN.get(kind)
    if known is not None:
        return known(thing)
    if isinstance(thing, CONSTANT) and (not kind.__flags__ & HEAP_TYPE or kind in CONSTANT):
        return NOTHING_INSIDE
    if isinstance(thing, type):
        return _class(thing)
    return _object(thing)


def is_ours(names: Mapping[str, Any]) -> bool:
    """Whether these are the globals of one of our own modules."""
    return ours(str(names.get("__name__", "")))


@cache
def ours(module: str) -> bool:
    return module.partition(".")[0] in OURS


def is_foreign(code: CodeType) -> bool:
    """Of the standard library, or of something installed."""
    return code.co_filename.startswith(STANDARD)


def not_its_own(thing: Any) -> bool:
    """Whether it is a function, class or module that no user has written."""
    if not isinstance(thing, (FunctionType, type, ModuleType, types.BuiltinFunctionType)):
        return False
    name: str | None = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__
    if name is None:
        return False
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        return name.partition(".")[0] in sys.stdlib_module_names and name != "__main__"
    return name.partition(".")[0] in OURS or str(file).startswith(STANDARD)


def _function(function: FunctionType) -> Inside | None:
    code = function.__code__
    if function.__module__ in PURE and not code.co_freevars:
        return NOTHING_INSIDE
    found: Parts = []
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # nothing in it yet
            return None
    if function.__module__ in PURE:
        return Inside(found)
    found += [(f"{function.__name__}()", value) for value in function.__defaults__ or ()]
    found += (function.__kwdefaults__ or {}).items()
    names = names_in(code)
    space = function.__globals__
    for name in names:
        if name in space:
            found.append((name, space[name]))
        elif name in vars(builtins):
            found.append((name, vars(builtins)[name]))
    for name in imported_in(code):
        if name not in sys.modules:
            return None
        found.append((name, sys.modules[name]))
    return Inside(found, (function.__dict__,), names, bool(code.co_freevars))


@cache
def names_in(code: CodeType) -> tuple[str, ...]:
    """Of globals and attributes, also as texts, in this and in the functions inside of it."""
    return tuple(dict.fromkeys((*code.co_names, *_named(code.co_consts))))


def _named(consts: Iterable[Any]) -> Iterator[str]:
    for const in consts:
        if isinstance(const, CodeType):
            yield from names_in(const)
        elif isinstance(const, tuple):  # the fields of a pattern
            yield from _named(const)
        elif isinstance(const, str):
            if "{" in const:  # a format
                yield from re.findall(r"[.[]([^\W\d]\w*)", const)
            elif len(const) < 100:
                yield from filter(str.isidentifier, const.split("."))


@cache
def imported_in(code: CodeType) -> tuple[str, ...]:
    found = [at.argval for at in dis.get_instructions(code) if at.opname == "IMPORT_NAME"]
    for const in code.co_consts:
        if isinstance(const, CodeType):
            found += imported_in(const)
    return tuple(dict.fromkeys(found))


def _method(method: MethodType) -> Inside:
    return Inside([("self", method.__self__), (method.__name__, method.__func__)])


def _builtin(function: Any) -> Inside | None:
    bound = function.__self__
    if bound is None or isinstance(bound, ModuleType):
        pure = function.__module__ in PURE and function.__name__ not in IMPURE
        return NOTHING_INSIDE if pure else None
    return Inside([("self", bound)])


def _partial(made: Any) -> Inside:
    return Inside([("func", made.func), *_numbered(made.args), *made.keywords.items()])


def _numbered(things: Iterable[Any]) -> Parts:
    return [(str(place), part) for place, part in enumerate(things)]


def _fixed(things: Any) -> Inside:
    return Inside(_numbered(things))


def _changing(things: Any) -> Inside:
    return Inside(_numbered(things), changes=True)


def _unordered(things: Any) -> Inside:
    """In an order that is the same in every process, where the things have one."""
    if all(isinstance(thing, PLAIN) for thing in things):
        things = sorted(things, key=lambda thing: (type(thing).__name__, repr(thing)))
    return Inside(_numbered(things), changes=not isinstance(things, frozenset))


def _mapping(things: Any) -> Inside:
    keys = _numbered(things)
    values = [(str(key) if isinstance(key, str) else "[]", value) for key, value in things.items()]
    return Inside(keys + values, changes=True)


def _defaulting(things: Any) -> Inside:
    found = _mapping(things)
    return found._replace(parts=[("default_factory", things.default_factory), *found.parts])


def _module(module: ModuleType) -> Inside:
    if module.__name__ in PURE:
        return NOTHING_INSIDE
    asked = vars(module).get("__getattr__")
    return Inside([] if asked is None else [("__getattr__", asked)], (vars(module),))


def _property(made: property) -> Inside:
    return Inside([("fget", made.fget), ("fset", made.fset), ("fdel", made.fdel)])


def _wrapped(made: Any) -> Inside:
    return Inside([(made.__func__.__name__, made.__func__)])


def _class(kind: type) -> Inside | None:
    if kind in NAMERS:
        return None
    own = [base for base in kind.__mro__ if base.__flags__ & HEAP_TYPE]
    own = [base for base in own if base.__module__ not in PURE]
    special: Parts = [
        (name, part)
        for base in own
        for name, part in vars(base).items()
        if name.startswith("__") and isinstance(part, (FunctionType, *WRAPPED))
    ]
    if not not_its_own(type(kind)):
        special.append(("class", type(kind)))
    places = [name for base in own for name in vars(base).get("__match_args__", ())]
    return Inside(special, tuple(vars(base) for base in own), tuple(places))


def is_fixed(thing: Any) -> bool:
    """Whether nothing in it can change; False where it is not worth the while to find out."""
    if isinstance(thing, tuple):
        return all(map(is_fixed, thing))
    return type(thing) in CONSTANT


def loose(things: Sequence[Any]) -> bool:
    """Whether there is something in one of them, or in tuples there, that may change."""
    while not CONSTANTS.issuperset(map(type, things)):
        others = set(map(type, things)) - CONSTANTS
        if not all(issubclass(kind, tuple) for kind in others):
            return True
        wide = [thing for thing in things if isinstance(thing, tuple)]
        things = [*{id(part): part for thing in wide for part in thing}.values()]
    return False


WRAPPED: Final = (classmethod, staticmethod, property, partialmethod)


def _object(thing: Any) -> Inside | None:
    """Of an object of a class in Python: its fields, what it holds, and the class."""
    kind = type(thing)
    if isinstance(thing, Enum):
        return Inside([("class", kind), ("value", thing.value)], (vars(thing),))
    parts: Parts = [("class", kind)]
    changing = False
    for base in kind.__mro__:
        if base in KNOWN:
            found = KNOWN[base](thing)
            if found is None:
                return None
            parts += found.parts
            changing = found.changes
        elif base not in BASES and not_its_own(base):
            return None
    if not_its_own(kind):
        return None
    fields: list[Mapping[str, Any]] = [getattr(thing, "__dict__", {})]
    if slots_of(kind):  # type: ignore[arg-type]
        fields.append(Slots(thing))
    return Inside(parts, tuple(fields), (), changing)


BASES: Final = (object, ABC, Generic, Exception, BaseException, *PLAIN)


@cache
def slots_of(kind: Any, /) -> dict[str, Any]:
    return {
        name: field
        for base in reversed(kind.__mro__)
        for name, field in vars(base).items()
        if isinstance(field, types.MemberDescriptorType)
    }


class Slots(Mapping[str, Any]):
    """The fields of an object that has no dictionary."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        self.slots = slots_of(type(thing))  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Any:
        try:
            return self.slots[name].__get__(self.thing, type(self.thing))
        except AttributeError:  # not bound yet
            raise KeyError(name) from None

    def __iter__(self) -> Any:
        return filter(self.__contains__, self.slots)

    def __len__(self) -> int:
        return sum(map(self.__contains__, self.slots))


KNOWN: Final[Mapping[type, Callable[[Any], Inside | None]]] = {
    FunctionType: _function,
    MethodType: _method,
    types.BuiltinFunctionType: _builtin,
    types.MethodWrapperType: lambda bound: Inside([("self", bound.__self__)]),
    ModuleType: _module,
    partial: _partial,
    partialmethod: _partial,
    property: _property,
    classmethod: _wrapped,
    staticmethod: _wrapped,
    tuple: _fixed,
    frozenset: _unordered,
    list: _changing,
    set: _unordered,
    deque: _changing,
    bytearray: _changing,
    dict: _mapping,
    Counter: _mapping,
    OrderedDict: _mapping,
    defaultdict: _defaulting,
    types.MappingProxyType: _mapping,
}

"""What rewritten code calls before it calls something: what is called, and with what.

A function that is rewritten notes for itself what it touches. Of all others only what they are
given is known: functions of C and of the standard library change it, unless they are known to read.
"""

from __future__ import annotations

import asyncio.tasks
import builtins
import functools
import sys
from collections.abc import Callable
from contextvars import Context
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Final

from vkemu.worlds.accesses import (
    ITERATORS,
    WRITTEN,
    behind,
    holder_of,
    look,
    opaque,
    tested,
    written_late,
    written_on_class,
)
from vkemu.worlds.known import (
    BLIND,
    ITEM_READS,
    ITEM_WRITES,
    MUTATING,
    PURE_MODULES,
    PUTTING,
    READING,
    RUNTIME,
    TAKING,
)
from vkemu.worlds.noting import (
    DICTS,
    HERE,
    IMMUTABLE,
    KEYED,
    KINDS,
    LISTS,
    LOG,
    MADE,
    NO_CONTAINER,
    SETS,
    item,
    name_all,
    whole,
)
from vkemu.worlds.overriding import field_of, overridden

# Functions that have rewritten code, as far as they were there then; and what to do
# about a function that is called and not rewritten, yet.
FOLLOWED: Final[dict[int, FunctionType]] = {}
LATE: Final[list[Callable[[Any], bool]]] = []
PASSING: Final[dict[int, FunctionType]] = {}  # by id: functions of what the worlds note themselves


def called(function: Any, *args: Any) -> None:
    kind = type(function)
    if kind is MethodType:  # what is rewritten notes for itself
        inner = function.__func__
        if id(inner) in FOLLOWED or (type(inner) is FunctionType and id(inner.__code__) in MADE):
            return
    elif kind is FunctionType and id(function.__code__) in MADE:
        return
    if HERE.on:
        handler = CALLS.get(kind)
        if handler is not None:
            handler(function, args)
        elif isinstance(function, type):
            call_class(function, args)


# The same for so many arguments, which are packed when they are needed.


def called_0(function: Any) -> None:
    kind = type(function)
    if kind is MethodType:
        inner = id(function.__func__)
        if inner in FOLLOWED:
            return
        if inner in PASSING:
            pass_on(function.__self__)
            return
    elif kind is BuiltinFunctionType:
        if HERE.on:
            obj = function.__self__
            if KINDS[type(obj)] == LISTS and function.__name__ in TAKING:
                LOG.note(obj, "[]", True)
            else:
                call_builtin(function, ())
        return
    called(function)


def called_1(function: Any, one: Any) -> None:
    kind = type(function)
    if kind is MethodType:
        inner = id(function.__func__)
        if inner in FOLLOWED:
            return
        if inner in PASSING:
            pass_on(function.__self__, one)
            return
    elif kind is BuiltinFunctionType:
        if HERE.on:
            obj = function.__self__
            if KINDS[type(obj)] == LISTS and function.__name__ in PUTTING:
                LOG.note(obj, "[]", True)
                if id(one) not in LOG.names and type(one) not in IMMUTABLE:
                    name_all(one)
            else:
                call_builtin(function, (one,))
        return
    called(function, one)


def called_2(function: Any, one: Any, other: Any) -> None:
    kind = type(function)
    if kind is MethodType:
        inner = id(function.__func__)
        if inner in FOLLOWED:
            return
        if inner in PASSING:
            pass_on(function.__self__, one, other)
            return
    called(function, one, other)


def pass_on(*args: Any) -> None:
    if HERE.on:
        names = LOG.names
        for arg in args:
            if id(arg) not in names and type(arg) not in IMMUTABLE:
                name_all(arg)


CALLED: Final[dict[int, Callable[..., None]]] = {0: called_0, 1: called_1, 2: called_2}


def called_with(function: Any, args: Any, named: Any = None) -> None:
    """f(*args, **named)."""
    if HERE.on:
        look(args, False, 0)
        given = list(args) if isinstance(args, (list, tuple)) else []
        if isinstance(named, dict):
            given += named.values()
        called(function, *given)


def call_python(function: Any, args: tuple[Any, ...]) -> None:
    if id(function.__code__) in MADE:
        return
    module = function.__globals__.get("__name__") or ""
    stem = _stems.get(module)
    if stem is None:
        stem = _stems[module] = module.partition(".")[0]
    if stem in RUNTIME:
        PASSING[id(function)] = function
        pass_on(*args)
    elif stem in PURE_MODULES:
        for arg in args:
            look(arg, False)
    elif not (LATE and LATE[0](function)):
        for arg in args:
            look(arg, True)


_stems: dict[str, str] = {}
PUTTING_OR_TAKING: Final = PUTTING | TAKING


def call_method(function: Any, args: tuple[Any, ...]) -> None:
    inner = function.__func__
    if type(function.__self__) in KEYED:  # a weak one: its methods are in Python
        call_on(function.__self__, type(function.__self__), function.__name__, args)
    elif type(inner) is FunctionType:
        call_python(inner, (function.__self__, *args))
    else:
        called(inner, function.__self__, *args)


def call_partial(function: Any, args: tuple[Any, ...]) -> None:
    called(function.func, *function.args, *args, *function.keywords.values())


def call_builtin(function: Any, args: tuple[Any, ...]) -> None:
    """A function of C, or a bound method of an object of C."""
    obj = function.__self__
    kind = type(obj)
    if obj is None or kind is ModuleType:
        if function in BLIND:
            return
        special = SPECIAL.get(function)
        if special is not None:
            special(*args)
            return
        reads = function in READING or function.__module__ in PURE_MODULES
        for arg in args:
            look(arg, not reads)
            if not reads and type(arg) is FunctionType:
                call_python(arg, ())
        return
    call_on(obj, kind, function.__name__, args)


def call_on(obj: Any, kind: type, name: str, args: tuple[Any, ...]) -> None:
    if kind is CoroutineType:
        return
    which = KINDS[kind]
    if which == NO_CONTAINER:
        if kind is Context and name == "run":
            called(*args)
        else:
            call_on_other(obj, kind, args)
    elif which in (LISTS, SETS) and name in PUTTING_OR_TAKING:
        LOG.note(obj, "[]", True)
        if name in PUTTING and args:
            arg = args[-1]
            if id(arg) not in LOG.names and type(arg) not in IMMUTABLE:
                name_all(arg)
    else:
        if which == DICTS and args and name in ITEM_READS:
            item(obj, args[0], False)
        elif which == DICTS and args and name in ITEM_WRITES:
            item(obj, args[0], True, structure=(args[0] in obj) == (name == "pop"))
        else:
            whole(obj, name in MUTATING)
        for arg in args:
            name_all(arg)
            look(arg, False, 0)


def call_on_other(obj: Any, kind: type, args: tuple[Any, ...]) -> None:
    if kind in IMMUTABLE:
        for arg in args:
            look(arg, False, 0)
    elif isinstance(obj, type):
        called(obj, *args)  # dict.fromkeys, say
    elif kind in GENERATORS:
        LOG.note(obj, "at", True)
    elif opaque(kind):
        LOG.note(obj, "*", True)
        for arg in args:
            look(arg, True)


def call_wrapper(function: Any, args: tuple[Any, ...]) -> None:
    """`super().__setitem__` and the like: a slot of C, called by name."""
    obj = function.__self__
    name = function.__name__
    if KINDS[type(obj)] != NO_CONTAINER:
        call_on(obj, type(obj), name, args)
    elif name == "__setattr__" and len(args) == 2:
        set_attribute(obj, *args)
    elif name == "__next__" and function is not NAMES_TASKS:
        takes_next(obj)


def call_descriptor(function: Any, args: tuple[Any, ...]) -> None:
    """`list.append(l, x)`."""
    if args:
        if function.__name__ == "__setattr__" and len(args) == 3:
            set_attribute(*args)
        else:
            call_on(args[0], type(args[0]), function.__name__, args[1:])


def call_class(kind: type, args: tuple[Any, ...]) -> None:
    if kind is type or kind is super:
        return
    heap_type = 1 << 9  # Py_TPFLAGS_HEAPTYPE
    if kind.__flags__ & heap_type and type(vars(kind).get("__init__")) is FunctionType:
        call_python(vars(kind)["__init__"], ())
        return
    for arg in args:
        name_all(arg)
        look(arg, False, 0)


GENERATORS: Final = (GeneratorType, AsyncGeneratorType)
NAMES_TASKS: Final = getattr(asyncio.tasks, "_task_name_counter", None)  # it has no meaning

CALLS: Final[dict[type, Callable[[Any, tuple[Any, ...]], None]]] = {
    FunctionType: call_python,
    MethodType: call_method,
    BuiltinFunctionType: call_builtin,
    functools.partial: call_partial,
    MethodWrapperType: call_wrapper,
    WrapperDescriptorType: call_descriptor,
    type(list.append): call_descriptor,
    type: call_class,
}


def get_attribute(obj: Any, name: Any = "", *default: Any) -> None:
    if name in WRITTEN:
        asked = type(obj), name
        if asked not in _of_code:
            _of_code[asked] = holder_of(*asked) is True
        if not _of_code[asked]:
            LOG.note(obj, field_of(type(obj), name), False)


_of_code: dict[tuple[type, str], bool] = {}  # whether attributes are methods, or properties


def set_attribute(obj: Any, name: Any = "", value: Any = None) -> None:
    name_all(value)
    if isinstance(obj, type):
        written_on_class(obj, name)
    overridden(type(obj), name)
    if name in WRITTEN:
        LOG.note(obj, field_of(type(obj), name), True)
    elif LOG.name(obj)[:2] != LOG.step:
        written_late(name)


def dictionary_of(obj: Any = None) -> None:
    """vars(obj): all of it, and who knows for what."""
    for name in sorted(map(str, getattr(obj, "__dict__", {}))):
        written_late(name)
        LOG.note(obj, field_of(type(obj), name), True)


def takes_next(iterator: Any = None, *default: Any) -> None:
    threads = sys.modules.get("trio._threads")
    if threads is not None and iterator is threads._thread_counter:  # names, as NAMES_TASKS
        return
    if type(iterator) in ITERATORS or type(iterator) is GeneratorType or opaque(type(iterator)):
        LOG.note(iterator, "at", True)
        behind(iterator, write=False)


SPECIAL: Final[dict[Any, Callable[..., None]]] = {
    builtins.getattr: get_attribute,
    builtins.hasattr: get_attribute,
    builtins.setattr: set_attribute,
    builtins.delattr: set_attribute,
    builtins.vars: dictionary_of,
    builtins.next: takes_next,
    builtins.len: tested,
}

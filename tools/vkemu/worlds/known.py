"""What is known of C types and of libraries: which do not change, and what only reads."""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import datetime
import decimal
import operator
import re
import sys
import types
import weakref
from typing import Any, Final

MUTATING: Final = frozenset(
    [
        "append", "appendleft", "extend", "extendleft", "insert", "pop", "popleft", "popitem",
        "remove", "discard", "add", "clear", "sort", "reverse", "rotate", "update", "setdefault",
        "difference_update", "intersection_update", "move_to_end", "subtract",
        "symmetric_difference_update", "__setitem__", "__delitem__", "__iadd__", "__ior__",
        "__iand__", "__init__", "__setstate__",
    ]
)  # fmt: skip
# Of those, what puts in one object, the last argument, and what puts in none.
PUTTING: Final = frozenset(["append", "appendleft", "insert", "add"])
TAKING: Final = frozenset(
    ["pop", "popleft", "popitem", "remove", "discard", "clear", "reverse", "rotate"]
)
ITEM_READS: Final = frozenset(["get", "__getitem__", "__contains__"])
ITEM_WRITES: Final = frozenset(["pop", "setdefault", "__setitem__", "__delitem__"])

# Functions of C that only read what they are given, whatever it is.
READING: Final[frozenset[Any]] = frozenset(
    getattr(builtins, name)
    for name in [
        "abs",
        "all",
        "any",
        "ascii",
        "bin",
        "callable",
        "chr",
        "divmod",
        "format",
        "hash",
        "hex",
        "id",
        "isinstance",
        "issubclass",
        "iter",
        "len",
        "max",
        "min",
        "oct",
        "ord",
        "pow",
        "print",
        "repr",
        "round",
        "sorted",
        "sum",
        "__build_class__",
    ]
) | frozenset(f for f in vars(operator).values() if type(f) is type(len))

# Functions of C that look at nothing their arguments hold.
BLIND: Final[frozenset[Any]] = frozenset([isinstance, issubclass, callable, id]) | frozenset(
    function
    for name in ("enter", "leave", "register", "unregister")
    if (function := getattr(asyncio.tasks, f"_{name}_task", None)) is not None
)

# Types of C whose objects do not change, or change only what belongs to one task.
HARMLESS_TYPES: Final[frozenset[type]] = frozenset(
    [
        re.Pattern, re.Match, datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
        datetime.timezone, decimal.Decimal, contextvars.ContextVar, contextvars.Context,
        contextvars.Token, weakref.ref, weakref.ProxyType, types.FunctionType, types.MethodType,
        types.CellType, types.FrameType, types.TracebackType, types.CoroutineType,
        types.AsyncGeneratorType, types.GeneratorType, types.MappingProxyType, types.GenericAlias,
        types.UnionType, types.CodeType, types.MethodWrapperType, types.WrapperDescriptorType,
        types.MethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
        types.ClassMethodDescriptorType, property, staticmethod, classmethod, super, object,
        memoryview, asyncio.Handle,
    ]
)  # fmt: skip

# Modules whose functions change nothing that a program could see: they are not rewritten, and
# what they are given counts as read.
PURE_MODULES: Final = frozenset(
    [
        "abc", "ast", "attr", "attrs", "base64", "binascii", "builtins", "calendar", "certifi",
        "charset_normalizer", "codecs", "colorama", "copyreg", "dataclasses", "datetime",
        "decimal", "dis", "email", "encodings", "enum", "errno", "exceptiongroup", "fnmatch",
        "fractions", "functools", "genericpath", "hashlib", "hpack", "html", "http", "hyperframe",
        "idna", "importlib", "inspect", "io", "ipaddress", "itertools", "json", "keyword",
        "linecache", "locale", "logging", "marshal", "math", "mimetypes", "msgspec", "numbers",
        "operator", "opcode", "orjson", "os", "outcome", "pathlib", "platform", "posixpath",
        "pprint", "re", "reprlib", "signal", "sniffio", "sre_compile", "sre_parse", "ssl", "stat",
        "string", "stringprep", "struct", "sys", "textwrap", "time", "token", "tokenize",
        "traceback", "types", "typing", "typing_extensions", "unicodedata", "urllib", "uuid",
        "warnings", "zlib", "_abc", "_bisect_not", "_codecs", "_collections_abc", "_contextvars",
        "_functools", "_json", "_operator", "_pydecimal", "_sre", "_struct", "_thread", "_weakref",
        "pytest", "_pytest", "pluggy", "hypothesis",
        "bytecode", "vkemu", "vkprotocol", "vkhost", "vkguest",
        # To print is all they are for.
        "certifi", "click", "markdown_it", "mdurl", "pygments", "rich",
    ]
)  # fmt: skip
# Of those some have objects of C that do change.
CHANGING: Final = frozenset(["io", "itertools", "hashlib", "zlib"])
# Those whose insides the worlds note themselves: what they are given is passed on, not touched.
RUNTIME: Final = frozenset(["anyio", "asyncio", "concurrent", "trio"])
# Of the libraries that the worlds drive, and of the standard library: these are rewritten too.
PRIMITIVES: Final = (
    "trio._sync", "trio._channel", "trio._core._parking_lot", "trio._core._unbounded_queue",
    "trio._core._local", "trio._threads", "trio._highlevel_generic", "trio._highlevel_socket",
    "trio._highlevel_open_tcp_listeners", "trio._highlevel_open_tcp_stream",
    "trio._highlevel_serve_listeners", "trio._socket",
    "trio.testing._memory_streams", "trio.testing._sequencer",
    "asyncio.locks", "asyncio.queues", "asyncio.futures", "asyncio.tasks", "asyncio.timeouts",
    "asyncio.taskgroups", "asyncio.streams", "asyncio.staggered",
    "anyio", "async_timeout", "collections", "contextlib", "copy", "heapq", "queue",
)  # fmt: skip


def eligible(name: str) -> bool:
    stem = name.partition(".")[0]
    return not (
        stem in PURE_MODULES
        or stem in RUNTIME
        or stem in sys.stdlib_module_names
        or stem.startswith("_pytest")
    ) or name.startswith(PRIMITIVES)


def unfollowed(cls: type) -> bool:
    """A class of Python code that is not rewritten, and may change its objects."""
    module = str(cls.__module__)
    stem = module.partition(".")[0]
    return not (stem in PURE_MODULES or stem in RUNTIME or eligible(module))

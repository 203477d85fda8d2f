"""What rewritten code calls before it touches something: every access, with its real operands.

What is known to be immutable, or to be only read, is told apart; whatever is not known counts as
written: an object of a C type, an argument of a C function.
"""

from __future__ import annotations

import collections
import gc
import itertools
from collections.abc import Callable
from enum import EnumType
from threading import local
from types import (
    CellType,
    GeneratorType,
    ModuleType,
)
from typing import Any, Final

from vkemu.worlds.known import (
    CHANGING,
    HARMLESS_TYPES,
    PURE_MODULES,
    unfollowed,
)
from vkemu.worlds.noting import (
    BYTES,
    CONTAINER_TYPES,
    CONTAINERS,
    DICTS,
    HERE,
    IMMUTABLE,
    KINDS,
    LISTS,
    LOG,
    MADE_ANEW,
    NO_CONTAINER,
    TOUCHED,
    item,
    name_all,
    whole,
)
from vkemu.worlds.overriding import RELIED_ON, TOGETHER, field_of, overridden
from vkemu.worlds.workers import current

Hook = Callable[..., None]
ITERATORS: Final = frozenset(
    type(iter(x))  # type: ignore[var-annotated]
    for x in (
        [], {}, {}.items(), {}.values(), set(), collections.deque(), bytearray(),
        collections.OrderedDict(), reversed([]), enumerate(()), zip(), map(len, ()),
        filter(None, ()), itertools.chain(), itertools.islice((), 0),
    )
)  # fmt: skip
VIEWS: Final[tuple[type, ...]] = (type({}.keys()), type({}.values()), type({}.items()))


def opaque(kind: type) -> bool:
    """An object of a type that nobody knows, of C or the standard library: whatever is done to it
    may change it."""
    known = _opaque.get(kind)
    if known is None and isinstance(kind, EnumType):
        known = _opaque[kind] = False  # its members are constants
    if known is None:
        order = kind.__mro__
        at = next(n for n, cls in enumerate(order) if not made_by_class_statement(cls))
        base = order[at]
        module = base.__module__.lstrip("_")
        known = _opaque[kind] = any(map(unfollowed, order[:at])) or not (
            base in IMMUTABLE
            or base in HARMLESS_TYPES
            or issubclass(kind, (*CONTAINERS, tuple, str, int, float, bytes, BaseException, type))
            or kind in ITERATORS
            or kind in VIEWS
            or (module in PURE_MODULES and module not in CHANGING)
        )
    return known


def made_by_class_statement(cls: type) -> bool:
    """Or it keeps nothing that the class it derives from does not."""
    if any(name in vars(cls) for name in ("__dict__", "__slots__", "__weakref__")):
        return True
    heap_type = 1 << 9  # Py_TPFLAGS_HEAPTYPE
    base = cls.__base__
    return base is not None and bool(cls.__flags__ & heap_type) and layout(cls) == layout(base)


def layout(cls: type) -> tuple[int, int]:
    return cls.__basicsize__, cls.__itemsize__


_opaque: dict[type, bool] = {}


def read_whole(obj: Any) -> None:
    if HERE.on:
        look(obj, False)


def write_whole(obj: Any) -> None:
    if HERE.on:
        look(obj, True)


def look(obj: Any, write: bool, depth: int = 3) -> None:
    """All of an object, as far as it is a container or unknown; what it holds too, when read."""
    kind = type(obj)
    if kind in IMMUTABLE:
        return
    which = KINDS[kind]
    if which != NO_CONTAINER:
        if which == DICTS:
            whole(obj, write)
        else:
            LOG.note(obj, "[]", write)
            if write and which == LISTS:
                LOG.filled.append(obj)
        if depth and which != BYTES:
            for each in list(obj.values() if which == DICTS else obj):
                if type(each) in CONTAINER_TYPES:
                    look(each, False, depth - 1)
    elif kind is tuple:
        for each in obj:
            if type(each) in CONTAINER_TYPES:
                look(each, write, depth - 1)
    elif kind in ITERATORS or kind in VIEWS:
        behind(obj, write=kind in ITERATORS)
    elif kind is memoryview:
        look(obj.obj, write)
    elif opaque(kind):
        LOG.note(obj, "*", write)


def behind(iterator: Any, *, write: bool, depth: int = 3) -> None:
    """An iterator moves, and reads the container it is over."""
    if write and depth == 3 and id(iterator) in LOG.names:
        LOG.note(iterator, "at", True)
    for each in gc.get_referents(iterator):
        if KINDS[type(each)] != NO_CONTAINER:
            whole(each, False)
        elif depth and type(each) in ITERATORS:
            behind(each, write=False, depth=depth - 1)


# -- attributes ----------------------------------------------------------------------------------


def reader(name: str) -> Hook:
    """The hook for reads of attribute `name`."""
    seen, dirty = TOUCHED.setdefault(name, {}), LOG.dirty
    classes: dict[type, Any] = {}  # True: code, a method or property; a class: data of that class
    together = name in TOGETHER

    def read(obj: Any) -> None:
        i = id(obj)
        if i in seen:
            return
        kind = type(obj)
        holder = classes.get(kind)
        if holder is None:
            holder = classes[kind] = holder_of(kind, name)
        if holder is True or not HERE.on or (holder is local and current() is not None):
            return
        if together:
            LOG.note(obj, field_of(kind, name), False)
        elif i in LOG.names and LOG.told is None:  # as `note` does it, without a call
            if not seen:
                dirty.append((name, seen))
            seen[i] = False
        else:
            LOG.note(obj, name, False)
        if holder is not False and name in OF_CLASSES and holder is not local:
            LOG.note(holder, name, False)

    return read


def holder_of(kind: type, name: str) -> Any:
    """True when instances of `kind` find code under `name`, a class when data of that class;
    `local` where each thread has its own, and a worker's nobody else sees."""
    if issubclass(kind, local):
        return local
    if kind in CONTAINER_TYPES or kind in IMMUTABLE or kind in HARMLESS_TYPES:
        return kind is not ModuleType
    if issubclass(kind, type):
        return False
    for cls in kind.__mro__:
        if name in vars(cls):
            found = vars(cls)[name]
            if type(found).__name__ in {"member_descriptor", "getset_descriptor"}:
                return False
            return True if hasattr(type(found), "__get__") else cls
    return False


def writer(name: str) -> Hook:
    seen, dirty = TOUCHED.setdefault(name, {}), LOG.dirty
    plain: dict[type, bool] = {}  # neither classes nor what each thread has of its own
    together = name in TOGETHER

    def write(obj: Any, value: Any) -> None:
        i = id(obj)
        if type(value) in IMMUTABLE:
            if seen.get(i) or not HERE.on:
                return
        elif HERE.on:
            if id(value) not in LOG.names or type(value) in MADE_ANEW:
                name_all(value)
        else:
            return
        kind = type(obj)
        if kind not in plain:
            plain[kind] = not issubclass(kind, (type, local))
            overridden(kind, name)
        if not plain[kind]:
            if isinstance(obj, type):
                written_on_class(obj, name)
            elif current() is not None:
                return
        if together:
            LOG.note(obj, field_of(kind, name), True)
        elif i in LOG.names and LOG.told is None:
            if not seen:
                dirty.append((name, seen))
            seen[i] = True
        else:
            LOG.note(obj, name, True)

    return write


def first_writer(name: str) -> Hook:
    """In `__init__`, of what is written nowhere else: it is not followed, while that is so."""

    def write(obj: Any, value: Any) -> None:
        if HERE.on:
            log = LOG
            made = log.names.get(id(obj)) or log.name(obj)
            if made[:2] != log.step:
                written_late(name)
            if name in RELIED_ON:
                overridden(type(obj), name)
            if type(value) not in IMMUTABLE and (
                id(value) not in log.names or type(value) in MADE_ANEW
            ):
                name_all(value)

    return write


def written_late(name: str) -> None:
    """Attribute `name` is written outside of `__init__` after all: begin again, following it."""
    if name not in WRITTEN:
        WRITTEN.add(name)
        LOG.stale = True


WRITTEN: Final[set[str]] = set()  # attributes that are followed
OF_CLASSES: Final[set[str]] = set()  # those of them that somebody writes on a class


def written_on_class(cls: type, name: str) -> None:
    """Whoever reads `name` of an object that has none reads that of its class."""
    overridden(cls, name)
    if name not in OF_CLASSES:
        OF_CLASSES.add(name)
        LOG.stale = True


# -- items ---------------------------------------------------------------------------------------


def read_item(container: Any, key: Any) -> None:
    if HERE.on:
        which = KINDS[type(container)]
        if which == DICTS:
            item(container, key, False)
            if type(container) is collections.defaultdict and key not in container:
                item(container, key, True, structure=True)
        elif which != NO_CONTAINER:
            LOG.note(container, "[]", False)
        else:
            look(container, True)


def write_item(container: Any, key: Any, value: Any = None) -> None:
    if HERE.on:
        name_all(value)
        which = KINDS[type(container)]
        if which == DICTS:
            item(container, key, True, structure=key not in container)
        elif which != NO_CONTAINER:
            whole(container, True)
        else:
            look(container, True)


def delete_item(container: Any, key: Any) -> None:
    if HERE.on:
        if KINDS[type(container)] == DICTS:
            item(container, key, True, structure=True)
        else:
            write_item(container, key)


def contains(container: Any, key: Any) -> None:
    if HERE.on:
        if KINDS[type(container)] == DICTS:
            item(container, key, False)
        else:
            look(container, False, 0)


def iterates(obj: Any) -> None:
    """`for ... in obj` begins. What is its own iterator goes on from where it was."""
    if HERE.on:
        kind = type(obj)
        if kind in ITERATORS:
            LOG.name(obj)
            behind(obj, write=True)
        elif kind is GeneratorType or (kind not in CONTAINER_TYPES and opaque(kind)):
            LOG.note(obj, "at", True)
        else:
            look(obj, False, 0)


def advances(iterator: Any) -> None:
    """A loop asks for its next item, and may have awaited since the last."""
    if HERE.on:
        kind = type(iterator)
        if kind in ITERATORS:
            behind(iterator, write=True)
        elif id(iterator) in LOG.names and (kind is GeneratorType or opaque(kind)):
            LOG.note(iterator, "at", True)


# -- variables -----------------------------------------------------------------------------------


def read_cell(cell: CellType) -> None:
    if HERE.on:
        LOG.note(cell, "cell", False)


def write_cell(cell: CellType, value: Any = None) -> None:
    if HERE.on:
        name_all(value)
        LOG.note(cell, "cell", True)


def global_reader(names: dict[str, Any], name: str) -> Hook:
    def read() -> None:
        if HERE.on:
            LOG.note(names, ("g", name), False)

    return read


def global_writer(names: dict[str, Any], name: str) -> Hook:
    def write(value: Any = None) -> None:
        if HERE.on:
            name_all(value)
            LOG.note(names, ("g", name), True)

    return write


def born(obj: Any) -> None:
    """A list, a dict, a set or a function was made."""
    if HERE.on:
        name_all(obj)


def born_empty(obj: Any) -> None:
    if HERE.on:
        LOG.name(obj)


def combines(one: Any, other: Any) -> None:
    """Compared, added, ...: both are looked at."""
    if type(one) not in IMMUTABLE and HERE.on:
        look(one, False)
    if type(other) not in IMMUTABLE and HERE.on:
        look(other, False)


def combines_in_place(one: Any, other: Any) -> None:
    if type(one) not in IMMUTABLE and HERE.on:
        look(one, True)
    if type(other) not in IMMUTABLE and HERE.on:
        look(other, False)


def tested(obj: Any) -> None:
    """Whether it is true."""
    if type(obj) not in IMMUTABLE and HERE.on:
        look(obj, False, 0)

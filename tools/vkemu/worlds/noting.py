"""What the step under way has touched, and how objects are named.

A footprint is over (object, field). An object is named by the step in which it was first seen, and
as the how-manieth: `(path, count, born)`. That is the same in all executions that agree on the
causal past of that step, whatever else they interleave it with. It takes that objects are seen by
whoever makes them, not by whoever comes first: what is stored, passed on or closed over is named
at once, and what modules hold is named before the program starts.

Everything named is kept until the execution is over, or an address could come to mean another
object. So no finalizer runs before then; `released` looks at those that run then.
"""

from __future__ import annotations

import collections
import sys
import weakref
from _thread import get_ident
from collections.abc import Callable
from enum import EnumType
from types import CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, Final, TypeAlias

from vkemu.exploration.reduction.footprint import Footprint, Objects

Name: TypeAlias = tuple[Any, ...]
Field: TypeAlias = Any  # a name, "[]" for all of a container, ("k", key) for an item of a dict

EVERY: Final[Name] = ("every dict",)  # there are too many to begin again for each
KEYED: Final = (dict, weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
CONTAINERS: Final = (list, *KEYED, set, collections.deque, bytearray)
CONTAINER_TYPES: Final = frozenset(
    [*CONTAINERS, collections.OrderedDict, collections.defaultdict, collections.Counter]
)
NO_CONTAINER, DICTS, LISTS, SETS, BYTES = range(5)


class Kinds(dict[type, int]):
    """Which containers the objects of a type are. isinstance takes long, for weak dicts."""

    def __missing__(self, kind: type) -> int:
        found = NO_CONTAINER
        for which, kinds in (
            (DICTS, KEYED), (LISTS, (list, collections.deque)), (SETS, set), (BYTES, bytearray),
        ):  # fmt: skip
            if issubclass(kind, kinds):
                found = which
        self[kind] = found
        return found


KINDS: Final = Kinds()
IMMUTABLE: Final = frozenset(
    [int, float, complex, str, bytes, bool, type(None), frozenset, range, slice, ModuleType,
     CodeType, type(len), type([].append), type(Ellipsis), type(NotImplemented)]
)  # fmt: skip


class Here:
    """Whether what is touched is noted: while the program runs."""

    __slots__ = ("on",)

    on: bool


class Among(Here):
    """The same while there are other threads. What those touch - a test runner, a client - is not
    the program's. It takes long to ask who it is, and so that is asked only then."""

    __slots__ = ()

    @property
    def on(self) -> bool:
        return get_ident() in OURS and bool(_on.__get__(self))

    @on.setter
    def on(self, value: bool) -> None:
        if get_ident() in OURS:
            _on.__set__(self, value)


_on: Final[Any] = vars(Here)["on"]
OURS: Final[set[int]] = set()  # the threads that the program runs in
HERE: Final = Here()
HERE.on = False


def look_for_threads() -> None:
    """Before an execution."""
    HERE.__class__ = Here
    HERE.on = False
    OURS.clear()
    OURS.add(get_ident())
    if len(sys._current_frames()) > 1:
        HERE.__class__ = Among


def thread_starts() -> None:
    """One that is not the program's."""
    HERE.__class__ = Among


class Log:
    """Of the execution under way. Invariant: everything in `names` is in `keep`."""

    __slots__ = (
        "all_ordered", "base", "based", "born", "codes", "dirty", "fields", "filled", "keep",
        "kept", "keys", "names", "objects", "ordered", "stale", "step", "told",
    )  # fmt: skip

    def __init__(self) -> None:
        self.base: dict[int, Name] = {}  # what is there before the program starts
        self.based: dict[int, Name] | None = None  # that `names` has all of, but for what is kept
        self.keep: list[Any] = []
        self.names: dict[int, Name] = {}
        self.kept: list[Any] = []
        self.ordered: dict[Name, None] = {}  # dicts that somebody looks at as a whole
        self.all_ordered = False  # EVERY is one of them
        self.stale = False  # more is known than when the search began: it begins again
        self.told: Callable[[Any, Field, bool], None] | None = None
        self.objects: Objects | None = None  # of the search at hand
        self.fields: dict[Name, dict[Field, int]] = {}  # of those, the codes of reads
        self.dirty: list[tuple[Field, dict[int, bool]]] = []  # those in TOUCHED that are not empty
        self.clear()

    def clear(self) -> None:
        """Before an execution."""
        if self.based is self.base:
            for obj in self.keep:
                del self.names[id(obj)]
        else:
            self.names = dict(self.base)
            self.based = self.base
        self.keep = []
        self.codes: dict[Field, dict[int, int]] = {}  # of reads
        self.forget()
        setup = ()  # the path of what happens before the first step
        self.step: tuple[Any, int] = (setup, 0)
        self.born = 0
        self.filled: list[Any] = []  # containers that this step wrote to as a whole
        self.keys: dict[int, dict[Any, None]] = {}  # by dict: its keys that were named alone

    def begin(self, path: tuple[int, ...], count: int) -> None:
        """A step begins: the `count`-th of the thread at `path`."""
        self.forget()
        self.step = (path, count)
        self.born = 0

    def forget(self) -> None:
        """What the last step touched."""
        for _, seen in self.dirty:
            seen.clear()
        self.dirty.clear()

    def close(self) -> None:
        """After a search."""
        self.base = {}
        self.clear()
        self.kept.clear()
        self.ordered = {}
        self.stale = False
        self.objects = None
        self.fields = {}
        for field in [field for field in TOUCHED if type(field) is tuple]:  # keys, globals
            del TOUCHED[field]

    def name(self, obj: Any) -> Name:
        name = self.names.get(id(obj))
        if name is None:
            name = self.names[id(obj)] = (*self.step, self.born)
            self.born += 1
            self.keep.append(obj)
        return name

    def note(self, obj: Any, field: Field, write: bool) -> None:
        seen = TOUCHED.get(field)
        if seen is None:
            seen = TOUCHED[field] = {}
        i = id(obj)
        was = seen.get(i)
        if was or was is write:
            return
        if not seen:
            self.dirty.append((field, seen))
        seen[i] = write
        if i not in self.names:
            self.name(obj)
        if self.told is not None:
            self.told(obj, field, write)

    def footprint(self, objects: Objects) -> Footprint:
        """Of the step that is over."""
        if self.filled:
            self.name_contents()
        if objects is not self.objects:
            self.objects = objects
            self.fields = {}
        codes = []
        for field, seen in self.dirty:
            known = self.codes.get(field)
            if known is None:
                known = self.codes[field] = {}
            for i, write in seen.items():
                code = known.get(i)
                if code is None:
                    code = known[i] = self.code_of(self.names[i], field)
                codes.append(code + write)
        codes.sort()
        return tuple(codes)

    def code_of(self, name: Name, field: Field) -> int:
        fields = self.fields.get(name)
        if fields is None:
            fields = self.fields[name] = {}
        code = fields.get(field)
        if code is None:
            assert self.objects is not None
            code = fields[field] = 2 * self.objects.number_of((name, field))
        return code

    def name_contents(self) -> None:
        """What functions of C put into containers, named by whose step it was."""
        for obj in self.filled:
            for value in list(obj.values() if KINDS[type(obj)] == DICTS else obj):
                name_all(value)
        self.filled.clear()

    def released(self) -> list[tuple[Name, Field]]:
        """The execution is over: let go of what only we kept alive. What finalizers then write of
        what steps had touched they would have written in the middle of it."""
        touched = dict(self.names)
        self.forget()
        self.based = None
        HERE.on = True
        self.keep = []  # here they run
        HERE.on = False
        return [
            (touched[i], field)
            for field, seen in self.dirty
            for i, write in seen.items()
            if write and i in touched
        ]


# By field: what the step under way touched, by id of the object, and whether it wrote it.
TOUCHED: Final[dict[Field, dict[int, bool]]] = {}
# Rewritten code, by id: to hash a code object is to hash all of it.
MADE: Final[dict[int, Any]] = {}
LOG: Final = Log()


def touch(obj: Any, field: Field, *, write: bool) -> None:
    """For what the worlds know of their own libraries."""
    if HERE.on:
        LOG.note(obj, field, write)


def name_all(value: Any, depth: int = 6) -> None:
    """Name what is about to be stored where others may find it, and all that comes with it."""
    kind = type(value)
    if kind in IMMUTABLE or kind is type:
        return
    if kind is tuple:
        if depth:
            for item in value:
                if type(item) not in IMMUTABLE:
                    name_all(item, depth - 1)
        return
    names = LOG.names
    if id(value) in names and kind not in MADE_ANEW:
        return
    if kind is FunctionType:
        for cell in value.__closure__ or ():
            if id(cell) not in names:
                name_all(cell, depth)
        for default in value.__defaults__ or ():
            name_all(default, depth)
        return
    if kind is MethodType:
        if depth:
            name_all(value.__self__, depth - 1)
            name_all(value.__func__, depth - 1)
        return
    if isinstance(kind, EnumType) or issubclass(kind, type):
        return  # constants and classes: whoever is given one first has not made it
    LOG.name(value)
    if depth:
        name_parts(value, kind, depth - 1)


# Methods are, wherever they are looked up; what functions close over, and tuples hold, may be.
MADE_ANEW: Final = frozenset([FunctionType, MethodType, tuple])


def name_parts(value: Any, kind: type, depth: int) -> None:
    which = KINDS[kind]
    parts: Any = ()
    if kind is CellType:
        try:
            parts = (value.cell_contents,)
        except ValueError:
            pass
    elif which == DICTS:
        parts = list(value.values())
    elif which == LISTS:
        parts = list(value)
    elif which == NO_CONTAINER and not issubclass(kind, type):
        parts = list(getattr(value, "__dict__", {}).values())
        for slot in _slots[kind] if kind in _slots else slots_of(kind):
            parts.append(getattr(value, slot, None))
    for part in parts:
        if type(part) not in IMMUTABLE:
            name_all(part, depth)


_slots: dict[type, tuple[str, ...]] = {}


def slots_of(kind: type) -> tuple[str, ...]:
    """The attributes that instances of a class have without a dict."""
    found = _slots[kind] = tuple(
        name
        for cls in kind.__mro__
        for name, member in vars(cls).items()
        if isinstance(member, MemberDescriptorType)
    )
    return found


def whole(obj: Any, write: bool) -> None:
    """All of a container: its structure, and every item of a dict."""
    LOG.note(obj, "[]", write)
    which = KINDS[type(obj)]
    if write and which in (DICTS, LISTS):
        LOG.filled.append(obj)
    if which == DICTS:
        name = LOG.names[id(obj)]
        if name not in LOG.ordered and not LOG.all_ordered:
            LOG.ordered[name] = None
            LOG.stale = True
        known = LOG.keys.setdefault(id(obj), {})
        for key in list(dict.keys(obj) if isinstance(obj, dict) else obj.keys()):
            known.setdefault(place(key))
        for key in known:
            LOG.note(obj, ("k", key), write)


def place(key: Any) -> Any:
    """What tells this key from others, in all executions; None where nothing does."""
    kind = type(key)
    if kind is int and key > 1 << 32:  # an `id`, most likely, which is another in each execution
        return None
    if kind in {str, int, bytes, float, bool, type(None)}:
        return (kind.__name__, key)
    if kind is tuple:
        inner = tuple(map(place, key))
        return None if None in inner else inner
    if isinstance(key, (type, FunctionType)):  # whoever asks first has not made it
        return ("named", key.__module__, key.__qualname__)
    by_identity: Any = object.__hash__
    return LOG.name(key) if kind.__hash__ is by_identity else None


def item(container: Any, key: Any, write: bool, *, structure: bool = False) -> None:
    """One item of a dict. `structure`: it comes or goes, which whoever looks at all of it sees."""
    known = place(key)
    if known is None:
        whole(container, write)
        return
    LOG.keys.setdefault(id(container), {})[known] = None
    LOG.note(container, ("k", known), write)
    if structure and (LOG.all_ordered or LOG.names[id(container)] in LOG.ordered):
        LOG.note(container, "[]", True)


def readable(key: Any) -> str:
    """The key of a place, for a message."""
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], tuple):
        name, field = key
        if name and isinstance(name[0], str):
            owner = ".".join(str(part) for part in name)
        else:
            owner = f"an object of step {name[1]} of thread {'.'.join(map(str, name[0]))}"
        what = (
            "all of it" if field == "[]" else str(field[-1] if isinstance(field, tuple) else field)
        )
        return f"{owner} ({what})"
    return str(key)

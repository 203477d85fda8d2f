"""The state of many objects at one moment, to be put back into the same objects.

Setting a machine up takes ten times as long as putting it back. What is put back is all that can be
reached from the roots: attributes, items, and what closures hold. Objects made since are forgotten;
those that were there stay who they are, and with them their effects and the numbers an explorer
knows them by.
"""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from collections.abc import Iterable
from enum import Enum
from functools import partial
from itertools import repeat
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any, Final, NamedTuple

import msgspec
from vkprotocol.effects import Effect, Shared

_LEAVES: Final = frozenset(
    (int, bool, float, complex, str, bytes, range, type, type(None), type(...), ModuleType,
     CodeType, BuiltinFunctionType, MethodWrapperType, property)
)  # fmt: skip
_SEQUENCES: Final = (list, bytearray, array)  # put back by a slice
_CONTAINERS: Final = frozenset((*_SEQUENCES, dict, defaultdict, set, deque))
_BASES: Final = frozenset((object, tuple, frozenset, *_CONTAINERS))
_HEAP: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class of Python code

# An explorer's number for a key, which does not change from one execution to the next.
_LASTING: Final = Shared.__dict__["index"]

_run = deque[Any](maxlen=0).extend  # takes an iterator to its end


class Unrestorable(TypeError):
    """An object whose state nobody knows how to put back. Our bug: say here how."""


class Attribute(NamedTuple):
    """An attribute in a slot: who has it, with which values, and who does not have it."""

    descriptor: Any
    objects: list[Any]
    values: list[Any]
    absent: list[Any]

    def take(self, thing: Any, stack: list[Any]) -> None:
        try:
            value = self.descriptor.__get__(thing)
        except AttributeError:
            self.absent.append(thing)
        else:
            self.objects.append(thing)
            self.values.append(value)
            stack.append(value)

    def restore(self) -> None:
        put = self.descriptor.__set__
        _run(map(put, self.objects, self.values))
        if self.absent:
            _run(map(put, self.absent, repeat(None)))  # deleting needs something to delete
            _run(map(self.descriptor.__delete__, self.absent))


class Layout(NamedTuple):
    """What the objects of a class consist of."""

    base: type  # what they are besides their attributes
    attributes: list[Attribute]
    has_namespace: bool


class Snapshot:
    """What can be reached from `roots`, without passing through what is `outside`."""

    def __init__(self, roots: Iterable[Any], outside: Iterable[Any] = ()) -> None:
        self._kept: dict[int, Any] = {id(thing): thing for thing in outside}
        self._layouts: dict[type, Layout] = {}
        self._attributes: dict[Any, Attribute] = {}  # by descriptor
        self._cells: list[tuple[CellType, Any]] = []
        self._sequences: list[tuple[Any, Any]] = []
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._namespaces: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._others: list[tuple[Any, Any]] = []  # sets and deques
        self._take(list(roots))
        self._layouts.clear()

    def restore(self) -> None:
        for attribute in self._attributes.values():
            attribute.restore()
        for cell, value in self._cells:
            cell.cell_contents = value
        for sequence, items in self._sequences:
            sequence[:] = items
        for found, known in self._dicts:
            if found or known:
                dict.clear(found)
                dict.update(found, known)
        for namespace, known in self._namespaces:
            if namespace.keys() != known.keys():
                namespace.clear()
            namespace.update(known)
        for other, items in self._others:
            other.clear()
            (other.extend if isinstance(other, deque) else other.update)(items)

    def _take(self, stack: list[Any]) -> None:
        kept = self._kept
        layouts = self._layouts
        while stack:
            thing = stack.pop()
            kind = type(thing)
            if kind in _LEAVES or id(thing) in kept:
                continue
            kept[id(thing)] = thing
            if kind is tuple:
                stack += thing
            elif kind in layouts:
                self._take_object(thing, layouts[kind], stack)
            elif kind in _CONTAINERS:
                self._take_items(thing, stack)
            elif isinstance(thing, type | Enum):
                pass
            elif kind.__flags__ & _HEAP:
                layouts[kind] = layout = self._layout(kind)
                self._take_object(thing, layout, stack)
            else:
                self._take_code(thing, stack)

    def _take_items(self, thing: Any, stack: list[Any]) -> None:
        if isinstance(thing, dict):
            self._dicts.append((thing, dict(thing)))
            stack += thing
            stack += thing.values()
        elif isinstance(thing, _SEQUENCES):
            self._sequences.append((thing, thing[:]))
            if isinstance(thing, list):
                stack += thing
        else:
            self._others.append((thing, tuple(thing)))
            stack += thing

    def _take_object(self, thing: Any, layout: Layout, stack: list[Any]) -> None:
        base, attributes, has_namespace = layout
        if base in _CONTAINERS:
            self._take_items(thing, stack)
        elif base is not object:
            stack += thing
        for attribute in attributes:
            attribute.take(thing, stack)
        if has_namespace:
            namespace = vars(thing)
            self._namespaces.append((namespace, dict(namespace)))
            stack += namespace.values()

    def _layout(self, kind: type) -> Layout:
        """Of objects that never change it is noted what they refer to, and no more."""
        constant = issubclass(kind, (Effect, partial))
        base: type = object
        if issubclass(kind, msgspec.Struct):
            constant = kind.__struct_config__.frozen
        else:
            base = next(b for b in kind.__mro__ if not b.__flags__ & _HEAP)
        if base in _LEAVES:
            base = object  # its value never changes
        if base not in _BASES:
            raise Unrestorable(
                f"{kind.__qualname__}: a {base.__qualname__}, which nobody puts back"
            )
        slots = [
            slot
            for b in kind.__mro__
            if b.__flags__ & _HEAP
            for slot in vars(b).values()
            if isinstance(slot, MemberDescriptorType) and slot is not _LASTING
        ]
        known = {} if constant else self._attributes
        attributes = [known.setdefault(slot, Attribute(slot, [], [], [])) for slot in slots]
        return Layout(base, attributes, bool(kind.__dictoffset__))

    def _take_code(self, thing: Any, stack: list[Any]) -> None:
        """What a function holds on to."""
        match thing:
            case frozenset():
                stack += thing
            case FunctionType():
                stack += thing.__closure__ or ()
                stack += thing.__defaults__ or ()
            case MethodType():
                stack += (thing.__self__, thing.__func__)
            case CellType():
                self._cells.append((thing, thing.cell_contents))
                stack.append(thing.cell_contents)
            case CoroutineType() if thing.cr_frame is None:  # it is over
                pass
            case GeneratorType() if thing.gi_frame is None:
                pass
            case _:
                kind = type(thing).__qualname__
                raise Unrestorable(f"{kind}: no way is known to put it back")

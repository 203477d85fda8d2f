"""What a function can reach: the values it refers to, part by part, without running any of it.

Variables, fields of objects and of modules count when code that is reached names them, also as a
text; the special methods of a class always. What is inside of each is `inside`'s to say.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple, TypeAlias

from vkemu.exploration.inside import CONSTANT, Parts, inside

MOST: Final = 5_000  # things looked at; more is "too much"
MISSING: Final = object()
# Who names one of these may name anything by it: what is reached, or set, nobody can tell.
OPEN: Final = frozenset(
    [
        "getattr", "setattr", "delattr", "attrgetter", "methodcaller", "vars", "globals", "exec",
        "eval", "__dict__", "__getattribute__", "__import__", "import_module",
    ]
)  # fmt: skip
Shut: TypeAlias = Callable[[Any], bool]


class Kinds(NamedTuple):
    """Objects, each of which may be given another class, or another dictionary."""

    of: list[Any]

    def parts(self) -> list[Any]:
        return [*map(type, self.of), *(vars(one) for one in self.of if type(one).__dictoffset__)]


class Whole(NamedTuple):
    """Fields, named by whomever."""

    fields: Mapping[str, Any]

    def parts(self) -> list[Any]:
        return [*self.fields, *self.fields.values()]


class Spot(NamedTuple):
    """A place where another thing can come to be."""

    thing: Any  # a mapping, with `names`; else what has parts
    names: tuple[str, ...] | None
    held: list[Any]

    def changed(self) -> bool:
        held = self.held
        now = holds(self.thing, self.names)
        return len(now) != len(held) or any(map(operator.is_not, now, held))


def holds(thing: Any, names: tuple[str, ...] | None) -> list[Any]:
    if names is not None:
        return [thing.get(name, MISSING) for name in names]
    if isinstance(thing, (Kinds, Whole)):
        return thing.parts()
    if type(thing) is list:
        return thing[:]
    if type(thing) is FunctionType:
        return [cell.cell_contents for cell in thing.__closure__ or ()]
    found = inside(thing)
    return [] if found is None else [part for _, part in found.parts]


class Reach:
    """Everything `root` leads to; a thing is not looked into when it is `shut`.

    `names` are those that other code names. With `whole`, all fields count, named or not.
    """

    def __init__(
        self,
        root: Any,
        shut: Shut,
        most: int = MOST,
        names: Iterable[str] = (),
        *,
        whole: bool = False,
    ) -> None:
        self.shut = shut
        self.whole = whole
        self.things: Parts = []  # in an order that is the same in every process
        self.unknown: str | None = None  # the name of the first that nobody knows
        self.names = dict.fromkeys(names)
        self._fields: list[Mapping[str, Any]] = []
        self._changing: list[Any] = []
        self._objects: list[Any] = []
        self._globals: list[tuple[Any, tuple[str, ...]]] = []
        self._todo: Parts = [("", root)]
        seen: dict[int, Any] = {}
        while self._todo and len(self.things) < most:
            name, thing = self._todo.pop()
            if not isinstance(thing, (*CONSTANT, tuple, frozenset)):
                if id(thing) in seen:
                    continue
                seen[id(thing)] = thing
            self.things.append((name, thing))
            if not shut(thing):
                self._open(name, thing)
        if self._todo and self.unknown is None:
            self.unknown = "too much"

    def _open(self, name: str, thing: Any) -> None:
        found = inside(thing)
        if found is None:
            if self.unknown is None:
                self.unknown = name or type(thing).__name__
            return
        self._todo += reversed(found.parts)
        if found.changes:
            self._changing.append(thing)
        if isinstance(thing, FunctionType):
            self._globals.append((thing.__globals__, found.names))
        fresh = [name for name in found.names if name not in self.names]
        if not self.whole and self.unknown is None:  # of what is no function, and asked by name
            self.unknown = next(filter(("__dict__", "__getattribute__").__contains__, fresh), None)
        self.names.update(dict.fromkeys(fresh))
        for fields in self._fields:
            self._name(fields, fresh)
        for fields in found.fields:
            self._fields.append(fields)
            self._name(fields, names_of(thing, fields) if self.whole else self.names)
        if found.fields and not isinstance(thing, (FunctionType, type, ModuleType)):
            self._objects.append(thing)

    def _name(self, fields: Mapping[str, Any], names: Iterable[str]) -> None:
        self._todo += [(name, fields[name]) for name in names if name in fields]

    def spots(self) -> list[Spot]:
        """Where what is reached can become something else."""
        names = tuple(self.names)
        places: list[tuple[Any, tuple[str, ...] | None]] = [
            *((thing, None) for thing in self._changing),
            *((Whole(own), None) if self.whole else (own, names) for own in self._fields),
            *self._globals,
        ]
        if self._objects:
            places.append((Kinds(self._objects), None))
        return [Spot(thing, which, holds(thing, which)) for thing, which in places]


def names_of(thing: Any, fields: Mapping[str, Any]) -> list[str]:
    """All of its fields, but what every class and module has."""
    own = not isinstance(thing, (type, ModuleType))
    return [name for name in fields if own or not name.startswith("__")]

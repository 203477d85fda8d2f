"""What an `always` predicate can see.

The predicate is checked after every step, so it tells apart executions that a reduction takes for
one. Whatever it reads must count: every write to a shared object in its sight is also a write of
one common object (`footprint.VIEW`), and the order of all of them is explored. Its sight is what
its closure and the globals it names lead to. Where that ends in anything but shared objects,
constants and functions - a list of numbers that threads fill, say - nobody can tell which step
changes what it says, and then every step counts: sound, and no reduction at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from vkprotocol.effects import Shared

from vkemu.exploration.objects import Condition
from vkemu.exploration.program import Program
from vkemu.exploration.reduction.footprint import Objects

CONSTANT: Final = (int, float, complex, str, bytes, bool, type(None), range, type, ModuleType)
UNKNOWN: Final = object()


def reached(predicate: Callable[[], Any]) -> list[Any]:
    """The shared objects in sight of `predicate`, and UNKNOWN for what is none and may change.

    Constants are listed too: the same sight twice means that no variable was bound anew.
    """
    return list(_reach(predicate, set()))


def _reach(thing: Any, seen: set[int]) -> Iterator[Any]:
    if isinstance(thing, Shared):
        yield thing
    elif isinstance(thing, Condition):
        yield thing.channel
        yield thing.lock
    elif isinstance(thing, CONSTANT):
        yield thing
    elif id(thing) in seen:
        return
    else:
        seen.add(id(thing))
        yield from _inside(thing, seen)


def _inside(thing: Any, seen: set[int]) -> Iterator[Any]:
    if isinstance(thing, FunctionType):
        for cell in thing.__closure__ or ():
            try:
                inner = cell.cell_contents
            except ValueError:  # not bound yet
                yield UNKNOWN
            else:
                yield from _reach(inner, seen)
        for inner in (*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()):
            yield from _reach(inner, seen)
        for name in thing.__code__.co_names:
            if name in thing.__globals__:
                yield from _reach(thing.__globals__[name], seen)
    elif isinstance(thing, MethodType):
        yield from _reach(thing.__self__, seen)
        yield from _reach(thing.__func__, seen)
    elif isinstance(thing, BuiltinFunctionType):
        return
    elif isinstance(thing, tuple | frozenset):
        for inner in thing:
            yield from _reach(inner, seen)
    elif isinstance(thing, list | dict):
        # What is put into it later is not in sight now: only objects made in set-up belong here.
        inside = list(thing.values()) if isinstance(thing, dict) else thing
        if not inside or not all(isinstance(inner, Shared | list | dict) for inner in inside):
            yield UNKNOWN
        for inner in inside:
            yield from _reach(inner, seen)
    else:
        yield UNKNOWN


class View:
    """What the predicates of a program were seen to read."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.sights: list[list[Any]] = []

    def look(self, program: Program) -> bool:
        """Take note of what is in sight. True when it is more than was known."""
        if self.objects.all_seen:
            return False
        sights = [
            reached(predicate) if reads is None else reads
            for predicate, reads in zip(program.invariants, program.reads, strict=True)
        ]
        marks = [[_mark(thing) for thing in sight] for sight in sights]
        if any(UNKNOWN in sight for sight in marks) or (self.sights and self.sights != marks):
            self.objects.see_all()
            return True
        self.sights = marks
        # A list, so that every object is seen.
        grown = [
            self.objects.see(thing)
            for sight in sights
            for thing in sight
            if isinstance(thing, Shared)
        ]
        return any(grown)


def _mark(thing: Any) -> Any:
    """Objects are the same in another execution when they have the same key."""
    return ("shared", thing.key) if isinstance(thing, Shared) else thing

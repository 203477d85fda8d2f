"""Checking mode: data that two threads touch, and nothing orders.

Each step is run with its bytecode traced. What it touches - closure and global variables,
attributes, items, containers - is an access, and two accesses of one place, of different threads,
one of them a write, are a data race unless one happens before the other. Happens-before comes from
the effects performed, a write synchronising with all that was done to its object and a load with
what was written, and from spawning (see `access_order`). A container's items are places of their
own, and the container as a whole is one that conflicts with all of them.

Shared objects are what effects are for, and are no places; nor is the code of the kernels, whose
plain fields say which lock guards them (see `guards`).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final

from vkprotocol.effects import CLOCK, CURTHREAD, Body, Effect, Shared, Thread, key_text

from vkemu.executors.announced import same_effect
from vkemu.executors.controlled import Execution, Tids
from vkemu.executors.place import source_of
from vkemu.exploration.checking.access_order import DataRace, History, Order, Place
from vkemu.exploration.checking.closures import (
    NOTHING,
    Closures,
    Frame,
)
from vkemu.exploration.checking.code_accesses import Access, Term, text_of
from vkemu.exploration.inside import HEAP_TYPE, OURS, is_foreign
from vkemu.exploration.primitives.objects import Condition
from vkemu.exploration.stepwise import Stepwise

ALL: Final = object()  # the key of a container as a whole
CONTAINERS: Final = (list, dict, set, bytearray, deque)
WRITING: Final = frozenset(
    [
        "append",
        "appendleft",
        "extend",
        "extendleft",
        "insert",
        "pop",
        "popleft",
        "popitem",
        "remove",
        "discard",
        "add",
        "clear",
        "sort",
        "reverse",
        "rotate",
        "update",
        "setdefault",
        "difference_update",
        "intersection_update",
        "symmetric_difference_update",
        "move_to_end",
        "subtract",
        "__setitem__",
        "__delitem__",
    ]
)
# Methods of containers that look into what they are given. Those of texts all do.
READING_ARGUMENTS: Final = frozenset(
    [
        "extend", "extendleft", "update", "union", "intersection", "difference",
        "symmetric_difference", "difference_update", "intersection_update",
        "symmetric_difference_update", "issubset", "issuperset", "isdisjoint", "subtract",
    ]
)  # fmt: skip
BY_NAME: Final = (getattr, hasattr, setattr, delattr)
NOT_READING: Final = (isinstance, id, type, callable, issubclass, super)
EXECUTORS: Final = (id(CURTHREAD), id(CLOCK))  # lists that programs may look into
PLAIN: Final = (int, float, complex, str, bytes, bool, type(None))


class CheckedExecution(Stepwise):
    """An execution that fails at the first data race it has."""

    def __init__(self, tids: Tids | None = None, *, noting: bool = False) -> None:
        super().__init__(tids, noting=noting)
        self.order = Order(self.tids)
        self.closures = Closures(self._touch)
        self.race: DataRace | None = None
        self._told = False
        self._places: dict[Any, dict[Any, History]] = {}
        self._kept: list[Any] = []  # so that no id names two things
        self._names: dict[int, str] = {}  # of containers
        self._written: set[int] = set()  # seen to be written in this step
        self._looked: dict[int, tuple[Any, Any, Place, str]] = {}  # containers read in this step

    # Every way a step can be taken.

    def spawn(self, name: str, coro: Body, *, daemon: bool = False) -> Thread:
        self.closures.learn(coro)
        with self._traced():
            thread = super().spawn(name, coro, daemon=daemon)
        self.order.spawned(thread)
        if CURTHREAD[0] is None:
            self._after(thread)
        return thread

    def respawn(self, thread: Thread, name: str, coro: Body) -> None:
        self.closures.learn(coro)
        with self._traced():
            super().respawn(thread, name, coro)
        self.order.spawned(thread)
        self._after(thread)

    def step(self, tid: int) -> bool:
        thread = self.threads[tid]
        assert thread.pending is not None
        self._perform(thread, thread.pending)
        with self._traced():
            going = super().step(tid)
        return self._after(thread) and going

    def again(self, schedule: list[int], effects: list[Effect], position: int) -> bool:
        thread = self.threads.get(schedule[position])
        if thread is None or not same_effect(thread.pending, effects[position]):
            return False
        assert thread.pending is not None
        self._perform(thread, thread.pending)
        with self._traced():
            same = super().again(schedule, effects, position)
        self._after(thread)
        return same

    def _perform(self, thread: Thread, effect: Effect) -> None:
        """What a shared object holds comes within reach of who awaits it."""
        self.order.perform(thread, effect)
        held = effect.obj.state
        if isinstance(held, CONTAINERS):
            time = self.order.clock_of(thread)[thread.tid]
            place = Place(thread.name, thread.tid, time, False, *source_of(thread))
            self._look(held, place, key_text(effect.obj.key))

    @contextmanager
    def _traced(self) -> Iterator[None]:
        before, deepest = sys.gettrace(), sys.getrecursionlimit()
        ours_deep = 200  # frames of ours, below and above the program's
        sys.setrecursionlimit(deepest + ours_deep)
        sys.settrace(self.closures.enter)
        try:
            yield
        finally:
            sys.settrace(before)
            sys.setrecursionlimit(deepest)

    def _after(self, thread: Thread) -> bool:
        """False when the step just taken had a race."""
        self._compare()
        if self.race is None or self._told:
            return True
        self._told = True
        if self.failed is None:
            thread.error = self.race
            self.failed = thread
        return False

    # What a step touches.

    def _touch(self, frame: Frame, accesses: tuple[Access, ...]) -> None:
        """Called in the step, just before the instruction that does it."""
        thread = CURTHREAD[0]
        if thread is None or self.race is not None:
            return
        place = Place(
            thread.name, thread.tid, self.order.clock_of(thread)[thread.tid], False,
            frame.code.co_filename, frame.frame.f_lineno,
        )  # fmt: skip
        for access in accesses:
            here = place._replace(write=access.write)
            match access.kind:
                case "deref":
                    cell = frame.cell(access.name)
                    if cell is not None:
                        self._access(cell, ALL, here, access.name)
                        self._look(frame.value(("deref", access.name)), here, access.name)
                case "global":
                    names = frame.frame.f_globals
                    if access.name in names or access.write:
                        self._access(names, access.name, here, access.name)
                        self._look(names.get(access.name), here, access.name)
                case "attr":
                    self._attribute(frame, access, here)
                case "item":
                    self._item(frame, access, here)
                case "whole":
                    self._whole(frame.value(access.term), here, access.term)
                case _:
                    self._call(frame, access, here)

    def _attribute(self, frame: Frame, access: Access, here: Place) -> None:
        owner = frame.value(access.term)
        if isinstance(owner, ModuleType):
            self._access(vars(owner), access.name, here, f"{owner.__name__}.{access.name}")
            return
        owner = _owner(owner, access.name, write=access.write)
        if owner is not NOTHING:
            self._access(owner, access.name, here, f"{text_of(access.term)}.{access.name}")

    def _item(self, frame: Frame, access: Access, here: Place) -> None:
        container = frame.value(access.term)
        if isinstance(container, CONTAINERS):
            key = frame.value(access.key)
            exact = is_exact(key) and not isinstance(container, deque)
            if exact and isinstance(container, list) and isinstance(key, int) and key < 0:
                key += len(container)
            name = f"{text_of(access.term)}[{key!r}]" if exact else text_of(access.term)
            self._access(container, key if exact else ALL, here, name)

    def _whole(self, container: Any, here: Place, term: Term) -> None:
        if isinstance(container, CONTAINERS):
            self._access(container, ALL, here, text_of(term))

    def _call(self, frame: Frame, access: Access, here: Place) -> None:
        term = access.term
        called = NOTHING
        if term is not None and term[0] == "method":
            container, method = frame.value(term[1]), term[2]
            owner = term[1]
        else:
            called = frame.value(term)
            while isinstance(called, partial):
                called = called.func
            container, method = getattr(called, "__self__", None), getattr(called, "__name__", "")
            owner = ("local", self._names.get(id(container), "..."))
        if any(called is known for known in BY_NAME) and len(access.key) > 1:
            name = frame.value(access.key[1])
            if isinstance(name, str):
                write = called in (setattr, delattr)
                by_name = Access("attr", write, name, access.key[0])
                self._attribute(frame, by_name, here._replace(write=write))
            return
        if isinstance(container, CONTAINERS):
            if method == "get" and access.key:
                self._item(frame, Access("item", False, "", owner, access.key[0]), here)
            else:
                self._whole(container, here._replace(write=method in WRITING), owner)
            if method not in READING_ARGUMENTS:
                return
        elif not isinstance(container, (str, bytes)) and not _reads_arguments(called):
            return
        for argument in access.key:
            value = frame.value(argument)
            self._look(value, here, text_of(argument))
            self._whole(value, here, argument)

    def _look(self, value: Any, here: Place, name: str) -> None:
        """A container is within reach: should the step change it unseen, we shall know."""
        if id(value) in self._looked or id(value) in EXECUTORS:
            return
        if isinstance(value, CONTAINERS):
            self._names.setdefault(id(value), name)
            self._looked[id(value)] = (value, _shallow(value), here, name)

    def _compare(self) -> None:
        for container, before, here, name in self._looked.values():
            if _shallow(container) != before and id(container) not in self._written:
                self._access(container, ALL, here._replace(write=True), name)
        self._looked = {}
        self._written = set()

    def _access(self, thing: Any, key: Any, here: Place, name: str) -> None:
        """The place is `key` of `thing`. ALL of it conflicts with every key."""
        places = self._places.get(id(thing))
        if id(thing) in EXECUTORS:
            return
        if places is None:
            places = self._places[id(thing)] = {}
            self._kept.append(thing)
        clock = self.order.threads[here.tid]
        history = places.get(key)
        if history is None:
            history = places[key] = History()
        if key is ALL:
            rivals = list(places.values())
        else:
            rivals = [history, places[ALL]] if ALL in places else [history]
        for known in rivals:
            rival = known.rival(clock, here.tid, here.write)
            if rival is not None and self.race is None:
                self.race = DataRace(name, rival, here)
        history.note(here)
        if here.write:
            self._written.add(id(thing))


def is_exact(key: Any) -> bool:
    """Whether the key says which item it is without running code of the program."""
    if isinstance(key, tuple):
        return all(map(is_exact, key))
    by_identity: Any = type(key).__hash__
    return type(key) in PLAIN or (key is not NOTHING and by_identity is object.__hash__)


def _reads_arguments(called: Any) -> bool:
    """Whether it looks into what it is given, and is not itself traced."""
    function = called.__func__ if isinstance(called, MethodType) else called
    if isinstance(function, FunctionType):
        return is_foreign(function.__code__)
    if isinstance(called, type):
        return not called.__flags__ & HEAP_TYPE
    return called is not NOTHING and not any(called is known for known in NOT_READING)


def _owner(thing: Any, name: str, *, write: bool) -> Any:
    """Whose variable `thing.name` is: the object's, its class's, or NOTHING that is one."""
    if thing is NOTHING or isinstance(thing, (Shared, Condition, Thread, Execution, *PLAIN)):
        return NOTHING
    kind = type(thing)
    if kind.__module__.partition(".")[0] in OURS:
        return NOTHING
    mro = thing.__mro__ if isinstance(thing, type) else kind.__mro__
    home = next((cls for cls in mro if name in vars(cls)), None)
    found = NOTHING if home is None else vars(home)[name]
    if isinstance(thing, type):
        return thing if write else (NOTHING if _is_code(found) else home)
    if type(found).__name__ == "member_descriptor":
        return thing
    if hasattr(type(found), "__set__"):
        return NOTHING  # a property: its own code is traced
    inside = getattr(thing, "__dict__", None)
    if isinstance(inside, dict) and (write or name in inside or home is None):
        return thing
    return home if home is not None and not _is_code(found) else NOTHING


def _is_code(found: Any) -> bool:
    return found is NOTHING or hasattr(type(found), "__get__")


def _shallow(container: Any) -> Any:
    """Equal as long as the container has the same things in it."""
    if isinstance(container, dict):
        return [(id(key), id(value)) for key, value in container.items()]
    if isinstance(container, bytearray):
        return bytes(container)
    if isinstance(container, set):
        return {id(item) for item in container}
    return [id(item) for item in container]

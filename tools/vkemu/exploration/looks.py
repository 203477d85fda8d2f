"""Looks: shared objects that a thread reads, or writes, without an effect.

`x.value`, `lock.state` and `thread.done` are there for predicates, set-up, and the end of a test;
in the middle of one, what a thread sees there depends on who was faster, and no effect says so. A
search that reduces asks what was looked at, by which step (`reduction.unannounced`). A guard may
look at its own object alone: who waits is asked again when that one changes, and not otherwise.

`.value` tells by itself. `.state` and `.done` do in programs whose code names them, where all
objects of `k` are of classes that ask who reads and who writes.
"""

from __future__ import annotations

import sys
from functools import cache
from inspect import CO_COROUTINE
from types import FrameType
from typing import Any, Final, NamedTuple

from vkprotocol.effects import LOOK, Cell, Shared, Thread, key_text

from vkemu.executors.announced import may_go_on
from vkemu.executors.place import source_of
from vkemu.exploration.inside import is_ours, not_its_own
from vkemu.exploration.reach import OPEN, Reach

STATE: Final[Any] = Shared.__dict__["state"]
DONE: Final[Any] = Thread.__dict__["done"]
WAIT: Final[Any] = Cell.wait
GUARDED: Final = (may_go_on.__code__, WAIT.__code__)


class GuardError(TypeError):
    """A guard looks at another object than its own; or what is to look alone sets something."""


class Writing(NamedTuple):
    """What is told of an object whose `state` is set, and not by its own methods."""

    shared: Shared


def named_by(program: Any) -> frozenset[str]:
    """Which of FIELDS its code names, or may name. Where all code is ours nobody looks."""
    if getattr(program, "only_ours", False):
        return frozenset()
    reach = Reach(program, not_its_own)
    fields = ("state", "done")
    if reach.unknown is not None or OPEN & reach.names.keys():
        return frozenset(fields)
    return frozenset(name for name in fields if name in reach.names)


def guard_of(frame: FrameType | None) -> Any:
    """The effect whose guard is being asked, from the frame that looks; or None."""
    while frame is not None:
        if frame.f_code in GUARDED:
            effect = frame.f_locals.get("effect")
            return frame.f_locals["self"] if effect is None else effect.obj
        if frame.f_code.co_flags & CO_COROUTINE:
            return None
        frame = frame.f_back
    return None


def check_guard(thing: Any, frame: FrameType) -> bool:
    """Whether a guard looks at `thing`; GuardError when that is not its own object, or is set."""
    own = guard_of(frame)
    if own is None:
        return False
    where = place_of(frame)
    key = key_text(own.key)
    if isinstance(thing, Writing):
        raise sets(f"a guard of {key}", thing, where)
    if own is not thing and thing not in getattr(own, "parts", ()):
        raise GuardError(
            f"a guard of {key} looks at {_name(thing)} ({where}), but is asked again when {key} "
            "changes, and then only; what it waits for has to be in one object"
        )
    return True


def check_predicate(thing: Any) -> None:
    if isinstance(thing, Writing):
        raise sets("always: a predicate", thing, place_of(who_looks()))


def sets(who: str, thing: Writing, where: str) -> GuardError:
    return GuardError(f"{who} sets {_name(thing.shared)} ({where}), and is there to look alone")


def awake(thread: Thread) -> GuardError:
    """Of a thread that waits, and could go on: its guard reads what no effect has changed."""
    effect = thread.pending
    assert effect is not None
    key = key_text(effect.obj.key)
    file, line = source_of(thread)
    where = f" ({file.rpartition('/')[2]}:{line})" if line else ""
    return GuardError(
        f"{thread.name} waits to {effect.op} {key}{where}, but could go on: its guard reads what "
        f"has changed without {key}, and is asked again when that changes, and then only"
    )


def _name(thing: Any) -> str:
    return str(thing.name) if isinstance(thing, Thread) else key_text(thing.key)


@cache
def telling(kind: Any, /) -> Any:
    """The class, but that who wants to know is told of reading and writing `state` or `done`."""
    if issubclass(kind, Thread):
        return type(kind.__name__, (kind,), {"__slots__": (), "done": _told(DONE)})
    space = {"__slots__": (), "__module__": kind.__module__, "state": _told(STATE)}
    return type(kind.__name__, (kind,), space)


def _told(slot: Any) -> property:
    def read(thing: Any) -> Any:
        if LOOK[0] is not None and not is_ours(sys._getframe(1).f_globals):
            LOOK[0](thing)
        return slot.__get__(thing)

    def write(thing: Any, value: Any) -> None:
        if LOOK[0] is not None and not is_ours(sys._getframe(1).f_globals):
            LOOK[0](Writing(thing))
        slot.__set__(thing, value)

    return property(read, write)


def place_of(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"


def who_looks() -> FrameType:
    """The first frame that is not ours, from two calls up."""
    frame = sys._getframe(2)
    while is_ours(frame.f_globals) and frame.f_back is not None and frame.f_code not in GUARDED:
        frame = frame.f_back
    return frame

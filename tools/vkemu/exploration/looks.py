"""Looks: shared objects that a thread reads, or writes, without an effect.

`x.value`, `lock.state` and `thread.done` are there for predicates, set-up, and the end of a test;
in the middle of one, what a thread sees there depends on who was faster, and no effect says so. A
search that reduces asks what was looked at, by which step (`reduction.unannounced`). A guard may
look at its own object alone: who waits is asked again when that one changes, and not otherwise.

`.value` tells by itself. `.state` and the fields of threads do in programs whose code names them,
or may name what it does not say: there all objects of `k` are of classes that ask who reads and who
writes. What is the executor's own is refused: it is not kept where a prefix is replayed.
"""

from __future__ import annotations

import dis
import sys
from functools import cache
from inspect import CO_COROUTINE
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, NamedTuple

from vkprotocol.effects import CURTHREAD, LOOK, Cell, Shared, Thread, key_text

from vkemu.executors.announced import may_go_on
from vkemu.executors.place import source_of
from vkemu.exploration.inside import is_ours, not_its_own
from vkemu.exploration.reach import OPEN, Reach

COUNTED: Final = frozenset(["state", "done", "error"])
INNER: Final = frozenset(
    ["waiters", "pending", "runnable", "coro", "held", "tokens", "born", "children"]
)  # fmt: skip
# Who calls one of these with a text may look at any field that the text names.
TEXTS: Final = frozenset(["format", "format_map", "vformat"])
MATCH: Final = dis.opmap["MATCH_CLASS"]
SLOT: Final = frozenset(["__get__", "__set__", "__delete__"])
ANEW: Final = frozenset(["__init__"])
WAIT: Final[Any] = Cell.wait
GUARDED: Final = (may_go_on.__code__, WAIT.__code__)


class GuardError(TypeError):
    """A guard looks at another object than its own; or what is to look alone sets something."""


class Writing(NamedTuple):
    """What is told of an object whose `state` is set, and not by its own methods."""

    shared: Shared


class Asked(NamedTuple):
    """What is told of who asks what has become of a thread; None: of who knows which."""

    thread: Thread | None
    what: str


class Inner(NamedTuple):
    """What is told of who looks at, or sets, what is the executor's."""

    of: Any
    field: str


class Named(NamedTuple):
    """What the code of a program names, of what can be looked at."""

    fields: frozenset[str] = frozenset()
    past: str = ""  # a function that gets at fields without anybody being told


def named_by(program: Any) -> Named:
    """What its code names, or may name. Where all code is ours nobody looks."""
    if getattr(program, "only_ours", False):
        return Named()
    reach = Reach(program, not_its_own)
    named = (COUNTED | INNER).intersection(reach.names)
    functions = [thing for _, thing in reach.things if isinstance(thing, FunctionType)]
    codes = [code for made in functions if not not_its_own(made) for code in within(made.__code__)]
    hidden = (OPEN | TEXTS) & reach.names.keys() or any(map(matches, codes))
    anew = [code.co_name for code in codes if loads(code, ANEW)]
    if hidden or anew or reach.unknown is not None:
        named |= COUNTED
    past = [code.co_name for code in codes if loads(code, SLOT)]
    if any(isinstance(thing, type) and issubclass(thing, Shared) for _, thing in reach.things):
        past += anew
    return Named(named, past[0] if past else "")


@cache
def within(code: CodeType) -> tuple[CodeType, ...]:
    """It, and those of the functions inside of it."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return (code, *(found for const in inner for found in within(const)))


@cache
def matches(code: CodeType) -> bool:
    """Whether it has a pattern that looks at fields."""
    return MATCH in code.co_code[::2]


@cache
def loads(code: CodeType, methods: frozenset[str]) -> bool:
    """Whether it gets at special methods by their names, other than from one of them."""
    if methods.isdisjoint(code.co_names) or code.co_name in methods:
        return False
    ops = ("LOAD_ATTR", "LOAD_METHOD")
    return any(at.opname in ops and at.argval in methods for at in dis.get_instructions(code))


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


def check_thread_looks(thing: Any, frame: FrameType) -> None:
    """TypeError when a thread looks at what is the executor's."""
    me = CURTHREAD[0]
    if isinstance(thing, Inner) and me is not None:
        raise TypeError(
            f"{me.name} uses {thing.field} of {_name(thing.of)} ({place_of(frame)}), "
            "which is not for programs"
        )


def check_setup(shared: Shared, method: str) -> None:
    """TypeError when a thread calls what is for set-up, of an object that is there already."""
    me = CURTHREAD[0]
    frame = sys._getframe(2)
    if me is not None and not is_ours(frame.f_globals):
        raise TypeError(
            f"{me.name} calls {method} of {_name(shared)} ({place_of(frame)}), "
            "which is for set-up only"
        )


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
    if isinstance(thing, (Asked, Inner)):
        thing = thing[0]
    if thing is None:
        return "what another thread does"
    return str(thing.name) if isinstance(thing, Thread) else key_text(thing.key)


@cache
def telling(kind: Any, fields: frozenset[str], /) -> Any:
    """The class, but that who wants to know is told of reading and writing these of its fields."""
    base = Thread if issubclass(kind, Thread) else Shared
    known = [name for name in sorted(fields) if name in base.__dict__]
    if not known or hasattr(kind, "tells"):
        return kind
    space: dict[str, Any] = {name: _told(name, base.__dict__[name]) for name in known}
    space |= {"__slots__": (), "__module__": kind.__module__, "tells": fields}
    space["__init__"] = _made(kind)
    return type(kind.__name__, (kind,), space)


def _made(kind: Any) -> Any:
    def made(thing: Any, *given: Any, **named: Any) -> None:
        if LOOK[0] is not None and hasattr(thing, "name" if issubclass(kind, Thread) else "key"):
            LOOK[0](Inner(thing, "__init__"))
        kind.__init__(thing, *given, **named)

    return made


def _told(name: str, slot: Any) -> property:
    def read(thing: Any) -> Any:
        if LOOK[0] is not None and not is_ours(sys._getframe(1).f_globals):
            LOOK[0](_read(thing, name))
        return slot.__get__(thing)

    def write(thing: Any, value: Any) -> None:
        if LOOK[0] is not None and not is_ours(sys._getframe(1).f_globals):
            LOOK[0](Writing(thing) if name == "state" else Inner(thing, name))
        slot.__set__(thing, value)

    return property(read, write)


def _read(thing: Any, name: str) -> Any:
    if name == "state":
        return thing
    return Asked(thing, name) if name in COUNTED else Inner(thing, name)


def place_of(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"


def who_looks() -> FrameType:
    """The first frame that is not ours, from two calls up."""
    frame = sys._getframe(2)
    while is_ours(frame.f_globals) and frame.f_back is not None and frame.f_code not in GUARDED:
        frame = frame.f_back
    return frame

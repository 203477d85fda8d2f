"""What a guard of a program reads besides the state of its object, and may find changed.

It is asked again when its object changes. What else it reads - a variable, a field, a container -
is no part of any footprint: where code of the program can change it while threads run, every step
has to count. Variables of a function are followed by who assigns them, fields by their names, and
what is inside of a list, dict or set by nothing.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from functools import cache
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, NamedTuple

from vkprotocol.effects import Shared

from vkemu.exploration.primitives.channel import Receiver, Sender
from vkemu.exploration.primitives.making import Making
from vkemu.exploration.primitives.objects import Condition
from vkemu.exploration.reach import Reach, Spot, is_ours, not_its_own

GOES_ON: Final = CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR
# Of these nobody knows which name they set, or where.
SETTERS: Final = frozenset(["setattr", "delattr", "__dict__", "vars", "globals", "exec", "eval"])


class Stores(NamedTuple):
    """What a piece of code assigns: how often each variable of its own, and names elsewhere."""

    cells: tuple[str, ...]
    names: frozenset[str]


@cache
def stores_of(code: CodeType) -> Stores:
    found = [(at.opname, at.argval) for at in dis.get_instructions(code)]
    cells = tuple(name for op, name in found if op in ("STORE_DEREF", "DELETE_DEREF"))
    ops = ["STORE_GLOBAL", "DELETE_GLOBAL"]
    if code.co_name not in ("__init__", "__new__", "__post_init__"):  # which make the thing
        ops += ["STORE_ATTR", "DELETE_ATTR"]
    return Stores(cells, frozenset(name for op, name in found if op in ops))


class Code:
    """All of a program, as far as it can be reached: what is inside what, and what is assigned."""

    def __init__(self, program: Any) -> None:
        reach = Reach(program, not_its_own)
        self.unknown = reach.unknown == "too much" or bool(SETTERS & reach.names.keys())
        self.around: dict[CodeType, CodeType] = {}
        self.assigned: set[str] = set()
        for _, thing in reach.things:
            if isinstance(thing, FunctionType) and not not_its_own(thing):
                self._open(thing.__code__)

    def _open(self, code: CodeType) -> None:
        self.assigned |= stores_of(code).names
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                self.around[inner] = code
                self._open(inner)

    def owner(self, code: CodeType, variable: str) -> CodeType | None:
        """The function that a variable of an inner one belongs to."""
        around = self.around.get(code)
        while around is not None and variable not in around.co_cellvars:
            around = self.around.get(around)
        return around

    def moves(self, code: CodeType, variable: str, frame: FrameType | None) -> bool:
        """Whether it may be assigned while somebody waits who is in `frame`."""
        owner = self.owner(code, variable)
        if owner is None or any(variable in stores_of(inner).cells for inner in inside(owner)):
            return True
        while frame is not None:
            if frame.f_code is owner:
                return False  # who waits, and nobody else
            frame = frame.f_back
        is_argument = variable in owner.co_varnames[: owner.co_argcount + owner.co_kwonlyargcount]
        often = stores_of(owner).cells.count(variable) + is_argument > 1
        return bool(owner.co_flags & GOES_ON) and often


def inside(code: CodeType) -> Iterator[CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield inner
            yield from inside(inner)


def shut(thing: Any) -> bool:
    return isinstance(thing, (Shared, Condition, Sender, Receiver, Making))


def moving(guard: Any, code: Code) -> str:
    """What there is to say of one that reads what others may change; "" of any other."""
    reach = Reach(guard, shut)
    name = reach.unknown or next(filter(None, (moved(spot, code) for spot in reach.spots())), "")
    if not name:
        return ""
    own = getattr(guard, "__code__", None)
    where = "" if own is None else f" ({own.co_filename.rpartition('/')[2]}:{own.co_firstlineno})"
    return (
        f"a guard{where} reads {name}, which other threads may change: every step counts; what it "
        "waits for has to be in one object"
    )


def moved(spot: Spot, code: Code) -> str:
    thing = spot.thing
    if spot.names is not None:
        if is_ours(thing):
            return ""
        named = [name for name in spot.names if name in thing and not name.startswith("__")]
        return next((name for name in named if code.unknown or name in code.assigned), "")
    if isinstance(thing, FunctionType):
        if is_ours(thing.__globals__):
            return ""
        names = thing.__code__.co_freevars
        return next((v for v in names if code.moves(thing.__code__, v, sys._getframe())), "")
    return f"a {type(thing).__name__}"

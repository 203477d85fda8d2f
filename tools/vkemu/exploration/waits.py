"""What a guard of a program reads besides the state of its object, and may find changed.

It is asked again when its object changes. What else it reads - a variable, a field, a container -
is no part of any footprint: where code of the program can change it while threads run, every step
has to count. Variables of a function are followed by who assigns them, fields by their names, and
what is inside of a list, dict or set by nothing.
"""

from __future__ import annotations

import builtins
import dis
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cache
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from itertools import pairwise
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType
from typing import Any, Final, NamedTuple

from vkprotocol.effects import Effect, Shared

from vkemu.executors.controlled import Execution
from vkemu.exploration.inside import is_fixed, is_ours, not_its_own
from vkemu.exploration.primitives.channel import Receiver, Sender
from vkemu.exploration.primitives.making import Making
from vkemu.exploration.primitives.objects import Condition
from vkemu.exploration.reach import OPEN, Kinds, Reach, Spot

EXECUTOR: Final = Execution.__module__
GOES_ON: Final = CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR
MAKERS: Final = ("__init__", "__post_init__")
SHUT: Final = (Shared, Condition, Sender, Receiver, Making)
CONTAINERS: Final = (list, dict, set, deque, bytearray)
FIXED: Final = (int, bool, float, str, bytes, type(None))  # what a variable holds, unchanging


class Stores(NamedTuple):
    """What a piece of code assigns: how often each variable of its own, and names elsewhere."""

    cells: tuple[str, ...]
    names: frozenset[str]


@cache
def stores_of(code: CodeType) -> Stores:
    found = list(dis.get_instructions(code))
    cells = tuple(at.argval for at in found if at.opname in ("STORE_DEREF", "DELETE_DEREF"))
    ops = ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR")
    # Who makes a thing gives it its fields before anybody else has it.
    own = code.co_varnames[0] if code.co_name in MAKERS and code.co_argcount else None
    names = (
        at.argval
        for before, at in pairwise(found)
        if at.opname in ops
        and not (own and before.opname.startswith("LOAD_") and before.argval == own)
    )
    return Stores(cells, frozenset(names))


class Code:
    """All of a program, as far as it can be reached: what is inside what, and what is assigned."""

    def __init__(self, program: Any) -> None:
        reach = Reach(program, not_its_own)
        self.unknown = reach.unknown is not None or bool(OPEN & reach.names.keys())
        self.around: dict[CodeType, CodeType] = {}
        self.assigned: set[str] = set()
        for _, thing in reach.things:
            if isinstance(thing, FunctionType) and not not_its_own(thing):
                self._open(thing.__code__)

    def _open(self, code: CodeType) -> None:
        self.assigned |= stores_of(code).names
        if code.co_name not in MAKERS and any(map(MAKERS.count, code.co_names)):
            self.unknown = True  # what is there already may be made anew
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

    def moves(self, guard: FunctionType, variable: str) -> bool:
        """Whether it may be assigned while somebody waits, who is asking now."""
        own = owner_of(guard, variable)
        owner = own or self.owner(guard.__code__, variable)
        if owner is None or any(variable in stores_of(inner).cells for inner in inside(owner)):
            return True
        if own is not None:
            return False  # by who waits, and nobody else
        is_argument = variable in owner.co_varnames[: owner.co_argcount + owner.co_kwonlyargcount]
        often = stores_of(owner).cells.count(variable) + is_argument > 1
        return bool(owner.co_flags & GOES_ON) and often


def askers() -> Iterator[FrameType]:
    """The coroutines of the thread that runs, innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != EXECUTOR:
        if frame.f_code.co_flags & CO_COROUTINE:
            yield frame
        frame = frame.f_back


def owner_of(guard: FunctionType, variable: str) -> CodeType | None:
    """The function whose variable it is, where that is waiting: another call of it has another."""
    cell = (guard.__closure__ or ())[guard.__code__.co_freevars.index(variable)]
    for frame in askers():
        if variable in frame.f_code.co_cellvars:
            held = cell.cell_contents
            cell.cell_contents = probe = object()
            found = frame.f_locals.get(variable) is probe
            cell.cell_contents = held
            if found:
                return frame.f_code
    return None


def inside(code: CodeType) -> Iterator[CodeType]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield inner
            yield from inside(inner)


def likeness(guard: Any) -> Any:
    """What two guards have in common of which the same is to be said; None where nobody knows.

    It is more than their code. What they refer to can be of another kind, and a variable can be of
    who asks, or of somebody else.
    """
    depth = 4  # of things that refer to things
    try:
        return _like(guard, depth)
    except (ValueError, RecursionError):  # a variable with nothing in it yet, or too much
        return None


def _like(thing: Any, depth: int) -> Any:
    kind = type(thing)
    if kind in FIXED or isinstance(thing, SHUT):
        return kind
    if not depth:
        raise RecursionError
    if kind is FunctionType:
        names, cells = thing.__code__.co_freevars, thing.__closure__ or ()
        held = [
            (owner_of(thing, name), _like(cell.cell_contents, depth - 1))
            for name, cell in zip(names, cells, strict=True)
        ]
        defaults = (*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values())
        return thing.__code__, *held, *(_like(value, depth - 1) for value in defaults)
    if kind is MethodType:
        return _like(thing.__func__, depth), _like(thing.__self__, depth - 1)
    if kind is tuple:
        return kind, *(_like(part, depth - 1) for part in thing)
    if isinstance(thing, type | BuiltinFunctionType):
        return thing
    # What is inside of a container changes, whatever it is; of an object the fields are looked at.
    fields = getattr(thing, "__dict__", None)
    if fields is None:
        if kind in CONTAINERS:
            return kind
        raise RecursionError
    return kind, *((name, _like(value, depth - 1)) for name, value in fields.items())


def shut(thing: Any) -> bool:
    return isinstance(thing, SHUT)


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
        return next((v for v in thing.__code__.co_freevars if code.moves(thing, v)), "")
    if isinstance(thing, Kinds):
        fixed = not (code.unknown or {"__class__", "__dict__"} & code.assigned)
        return "" if fixed else f"the class of a {type(thing.of[0]).__name__}"
    return f"a {type(thing).__name__}"


def lists(predicate: Any) -> list[Spot] | None:
    """Those of shared objects that a function has, where it has nothing else but shared objects."""
    found = []
    for cell in getattr(predicate, "__closure__", None) or ():
        held = cell.cell_contents
        if type(held) is list and all(isinstance(part, Shared) for part in held):
            found.append(Spot(held, None, held[:]))
        elif not isinstance(held, Shared):
            return None
    return found


def only_lists(predicate: Any, code: Code) -> bool:
    """Whether nothing that moves is read but `lists`."""
    known = lists(predicate)
    if not known:
        return False
    reach = Reach(predicate, shut)
    things = [spot.thing for spot in known]
    others = (spot for spot in reach.spots() if not any(spot.thing is one for one in things))
    return reach.unknown is None and not any(moved(spot, code) for spot in others)


def settled(guard: Any, state: Any) -> bool:
    """Whether it plainly reads nothing but a state that is there to stay."""
    if type(guard) is FunctionType:
        code, space = guard.__code__, guard.__globals__
        bound = code.co_freevars or guard.__defaults__ or guard.__kwdefaults__
        if bound or any(name in space or name not in vars(builtins) for name in code.co_names):
            return False
    elif guard is not len and guard is not bool:
        return False
    return is_fixed(state)


class Guards:
    """What is known of the guards of a program."""

    def __init__(self, build: Any) -> None:
        self.build = build
        self.moving = ""  # that one reads more than its object, when one does
        self.silent = False  # one may come to hold with nobody asking it: see `Path.replay_asking`
        self.awaited: dict[Shared, None] = {}  # in this execution, with a guard of the user's
        self._asked: dict[Any, None] = {}  # what those are like that were looked at
        self._code: Code | None = None
        self._ends: dict[int, bool] | None = None

    def begin(self) -> None:
        """Another execution; the last has left the objects as they are."""
        self.silent = self.silent or not all(is_fixed(shared.state) for shared in self.awaited)
        self.awaited = {}

    def built(self) -> None:
        """Set-up is over, and has made what there is."""
        if self._code is None:
            self._code = Code(self.build)

    def moving_ends(self, predicates: Sequence[Any]) -> dict[int, bool]:
        """Which of what set-up has asked for at the end read what steps may change, besides shared
        objects; and whether that is in `lists` alone. The same in every execution."""
        if self._ends is None:
            code = self._code = self._code or Code(self.build)
            self._ends = {}
            for n, predicate in enumerate(predicates):
                if moving(predicate, code):
                    self._ends[n] = only_lists(predicate, code)
        return self._ends

    def ask(self, effect: Effect, building: bool, reducing: bool) -> None:
        """Whether what somebody waits for is in one object alone. What is taken again was asked."""
        guard: Any = effect.guard
        if self.moving or is_ours(getattr(guard, "__globals__", {})):
            return
        self.awaited[effect.obj] = None
        self.silent = self.silent or not settled(guard, effect.obj.state)
        if not reducing and not (building and self._code is None):
            return
        alike = likeness(guard)
        if alike in self._asked:
            return
        if alike is not None:
            self._asked[alike] = None
        if not building:
            self.built()
        self.moving = moving(guard, self._code or Code(self.build))

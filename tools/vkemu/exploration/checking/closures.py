"""The frames of a program being traced, and the cells behind their closure variables.

A frame does not say which cells it has. A function does: the functions that a thread can reach
are found from its coroutine, and a cell is taken for a frame's variable when it is that of the only
function that fits - the same code, the same contents. Where two would fit the variable is left out:
better a race not seen than one that is none.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from functools import partial
from inspect import CO_COROUTINE, CO_ITERABLE_COROUTINE, getattr_static
from types import (
    CellType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any, Final, TypeAlias

from vkprotocol.effects import Shared

from vkemu.exploration.checking.code_accesses import Access, Term, accesses_of
from vkemu.exploration.inside import HEAP_TYPE, OURS, is_foreign, is_ours

Touch: TypeAlias = Callable[["Frame", tuple[Access, ...]], None]

COROUTINE: Final = CO_COROUTINE | CO_ITERABLE_COROUTINE
NOTHING: Final = object()  # no value: unknown, or not to be had without running code
CONSTANT: Final = (int, float, complex, str, bytes, bool, type(None), range, ModuleType, Shared)


class Frame:
    """One frame of the program, from its first step to its last."""

    __slots__ = ("_cells", "awaited", "closures", "code", "frame", "plan")

    def __init__(self, closures: Closures, frame: FrameType) -> None:
        self.closures = closures
        self.frame = frame
        self.code = frame.f_code
        self.plan = accesses_of(frame.f_code)
        self._cells: dict[str, CellType] = {}
        self.awaited: dict[int, Any] = {}  # by the offset of the await: what it has come to

    def opcode(self, frame: FrameType, event: str, arg: object) -> Any:
        """The local trace function: the instruction at f_lasti is the next."""
        if event == "opcode":
            accesses = self.plan.get(frame.f_lasti)
            if accesses is not None:
                self.closures.touch(self, accesses)
        elif event == "return":
            returned(frame, event, arg)
        return self.opcode

    def value(self, term: Term) -> Any:
        """What a term stands for now, or NOTHING. Runs none of the program's code."""
        match term:
            case ("local" | "deref", name):
                return self.frame.f_locals.get(name, NOTHING)
            case ("global", name):
                names = self.frame.f_globals
                return names[name] if name in names else self.frame.f_builtins.get(name, NOTHING)
            case ("const", value):
                return value
            case ("attr", inner, name):
                return attribute(self.value(inner), name)
            case ("item", inner, key):
                return item(self.value(inner), self.value(key))
            case ("iter", inner):
                return self.value(inner)
            case ("awaited", offset):
                return self.awaited.get(offset, NOTHING)
            case _:
                return NOTHING

    def cell(self, name: str) -> CellType | None:
        """The cell of a closure variable, where there is no doubt about it."""
        known = self._cells.get(name)
        if known is None:
            known = self.closures.find(self, name)
            if known is not None:
                self._cells[name] = known
        return known

    def bind(self, function: FunctionType) -> None:
        """A function just spawned that was made in this frame: they share its cells."""
        if function.__code__ not in self.code.co_consts:
            return
        for name, cell in cells_of(function):
            if name in self.code.co_cellvars and self.fits(name, cell):
                self._cells.setdefault(name, cell)

    def fits(self, name: str, cell: CellType) -> bool:
        return _contents(cell) is self.frame.f_locals.get(name, NOTHING)


class Closures:
    """The frames of one execution. `touch` is called before every instruction that matters."""

    def __init__(self, touch: Touch) -> None:
        self.touch = touch
        self.functions: dict[CodeType, list[FunctionType]] = {}
        self._of_frame: dict[FrameType, FunctionType] = {}
        self._coroutines: list[Any] = []

    def enter(self, frame: FrameType, event: str, arg: object) -> Any:
        """The global trace function: a frame is entered, or resumed."""
        local = frame.f_trace
        if local is not None:
            return local
        if event != "call":
            return None
        ours = is_ours(frame.f_globals) or is_foreign(frame.f_code)
        if ours and not frame.f_code.co_flags & COROUTINE:
            return None
        frame.f_trace_lines = False
        if ours:
            return returned
        frame.f_trace_opcodes = True
        return Frame(self, frame).opcode

    def learn(self, coro: Any) -> None:
        """A thread is about to be spawned."""
        self._coroutines.append(coro)
        made = self._reach(coro)
        above: FrameType | None = sys._getframe(1)
        while above is not None:
            watched = getattr(above.f_trace, "__self__", None)
            if isinstance(watched, Frame):
                for function in made:
                    watched.bind(function)
            above = above.f_back

    def find(self, frame: Frame, name: str) -> CellType | None:
        candidates = self._candidates(frame, name)
        if not candidates:
            for coro in self._coroutines:  # it may have been made since
                self._reach(coro)
            candidates = self._candidates(frame, name)
        if not candidates:
            return self._around(frame, name)
        return candidates[0] if len(candidates) == 1 else None

    def _around(self, frame: Frame, name: str) -> CellType | None:
        """Of a comprehension, or another function that is gone as soon as it was called: the cell
        is that of the frame it was made in, which is on the stack."""
        if name not in frame.code.co_freevars:
            return None
        above = frame.frame.f_back
        while above is not None:
            made_in = getattr(above.f_trace, "__self__", None)
            if isinstance(made_in, Frame) and frame.code in made_in.code.co_consts:
                found = made_in.cell(name)
                return found if found is not None and frame.fits(name, found) else None
            above = above.f_back
        return None

    def _candidates(self, frame: Frame, name: str) -> list[CellType]:
        own = self._of_frame.get(frame.frame)
        if name in frame.code.co_freevars:
            functions = [own] if own is not None else self.functions.get(frame.code, [])
        else:
            inner = [code for code in frame.code.co_consts if isinstance(code, CodeType)]
            functions = [known for code in inner for known in self.functions.get(code, [])]
        found: list[CellType] = []
        for function in functions:
            for variable, cell in cells_of(function):
                if variable == name and frame.fits(name, cell) and cell not in _Same(found):
                    found.append(cell)
        return found

    def _reach(self, coro: Any) -> list[FunctionType]:
        """Note the functions that can be reached from a coroutine; returns them."""
        made: list[FunctionType] = []
        todo: list[Any] = [coro]
        seen: set[int] = set()
        reach = 2000  # things looked at from one coroutine
        while todo and len(seen) < reach:
            thing = todo.pop()
            if id(thing) in seen or isinstance(thing, CONSTANT):
                continue
            seen.add(id(thing))
            if isinstance(thing, FunctionType):
                made.append(thing)
                known = self.functions.setdefault(thing.__code__, [])
                if not any(function is thing for function in known):
                    known.append(thing)
            elif isinstance(thing, CoroutineType):
                self._own(thing)
            todo += _inside(thing)
        return made

    def _own(self, coro: CoroutineType[Any, Any, Any]) -> None:
        frame = coro.cr_frame
        if frame is not None and frame not in self._of_frame:
            for thing in gc.get_referents(coro):
                if isinstance(thing, FunctionType) and thing.__code__ is coro.cr_code:
                    self._of_frame[frame] = thing


def returned(frame: FrameType, event: str, arg: object) -> Any:
    """Who awaits a coroutine has what it returns on its stack; and what it yields, for a while."""
    if event == "return" and frame.f_code.co_flags & COROUTINE and frame.f_back is not None:
        above = getattr(frame.f_back.f_trace, "__self__", None)
        if isinstance(above, Frame):
            above.awaited[frame.f_back.f_lasti] = arg
    return returned


class _Same:
    """Membership by identity: cells compare by their contents."""

    def __init__(self, things: list[CellType]) -> None:
        self.things = things

    def __contains__(self, thing: CellType) -> bool:
        return any(known is thing for known in self.things)


def cells_of(function: FunctionType) -> Iterator[tuple[str, CellType]]:
    return zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return NOTHING


def _inside(thing: Any) -> list[Any]:
    """What one thing leads to, looking for functions."""
    if isinstance(thing, CoroutineType | GeneratorType):
        return gc.get_referents(thing)
    if isinstance(thing, FunctionType):
        return [*map(_contents, thing.__closure__ or ()), *(thing.__defaults__ or ())]
    if isinstance(thing, MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, CellType):
        return [_contents(thing)]
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, type):
        own = thing.__flags__ & HEAP_TYPE and thing.__module__.partition(".")[0] not in OURS
        return [part for part in vars(thing).values() if isinstance(part, FunctionType)] * bool(own)
    if type(thing).__flags__ & HEAP_TYPE and type(thing).__module__.partition(".")[0] not in OURS:
        return [*type(thing).__mro__, *getattr(thing, "__dict__", {}).values()]
    return []


def attribute(owner: Any, name: str) -> Any:
    """owner.name, where that is a variable and no code."""
    if owner is NOTHING:
        return NOTHING
    found = getattr_static(owner, name, NOTHING)
    if type(found).__name__ == "member_descriptor":
        try:
            return found.__get__(owner, type(owner))
        except AttributeError:
            return NOTHING
    return NOTHING if hasattr(type(found), "__get__") else found


def item(container: Any, key: Any) -> Any:
    if type(container) in {list, tuple, dict} and isinstance(key, CONSTANT):
        try:
            return container[key]
        except (LookupError, TypeError):
            return NOTHING
    return NOTHING

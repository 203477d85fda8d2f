"""`k`: what a program under exploration is built with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from inspect import iscoroutine
from types import AsyncGeneratorType, FunctionType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vkprotocol.effects import (
    CURTHREAD,
    Body,
    Cell,
    Effect,
    Key,
    Shared,
    Thread,
    fresh_key,
)
from vkprotocol.step import MADE

from vkemu.executors.controlled import Execution, Tids
from vkemu.exploration.expected import several
from vkemu.exploration.looks import (
    Named,
    Writing,
    check_guard,
    check_predicate,
    check_thread_looks,
    named_by,
    telling,
    who_looks,
)
from vkemu.exploration.own import CANCEL, THREAD
from vkemu.exploration.primitives.making import Making
from vkemu.exploration.primitives.objects import End
from vkemu.exploration.primitives.scopes import Cancellation, Watched
from vkemu.exploration.reduction.footprint import Objects
from vkemu.exploration.waits import Guards

if TYPE_CHECKING:
    from vkemu.exploration.reduction.unannounced import Unannounced

Predicate = Callable[[], Any]
Look = Callable[[Any], None]
Note = Callable[[Thread], None]
Made = TypeVar("Made", bound=Shared)
NONE_LEFT: Final[Iterator[Any]] = iter(())


class Program(Making):
    """Builds one program, once for every execution of it.

    Objects made by the n-th call of a build are kept and only reset for the next build: making
    them is most of the cost of a short execution, and what keeps its identity keeps its number.
    """

    __slots__ = (
        "_cells", "_cells_left", "_ends", "_lazy", "_named", "_names", "_others",
        "_others_left", "_roots", "_roots_left", "_special", "begun", "build", "building",
        "check", "ends", "execution", "fresh", "guards", "invariants", "joinable", "late",
        "numbers", "only_ours", "reads", "seen", "tids", "unannounced", "watched",
    )  # fmt: skip

    def __init__(self, build: Callable[[Any], object], tids: Tids, *, check: bool = False) -> None:
        if not callable(build):
            raise TypeError(f"program: {build!r}, expected a function that takes k")
        self.build = build
        # What kernels hold, effects change.
        self.only_ours: bool = getattr(build, "only_ours", False)
        self.tids = tids
        self.check = check
        self.numbers = Objects()  # of what this program shares, for as long as it lives
        self.execution = Execution(tids)
        self.begun = 0  # executions of a search
        self.ends: list[Predicate] = []
        self.invariants: list[Predicate] = []
        self.reads: list[list[Shared] | None] = []  # of each invariant, when declared
        # Whether a thread ends with a step of its own, which `join` can wait for.
        self.joinable = False
        self._ends: dict[Thread, End] = {}
        self.watched = {}
        self.fresh: list[Shared] = []  # made in this execution, where it is to be known
        # The threads and objects of set-up, in order: cells, of which there are many, and others.
        self._roots: list[Thread] = []
        self._cells: list[Cell] = []
        self._others: list[Shared] = []
        # Those of them that this build has not yet asked for again.
        self._roots_left = iter(self._roots)
        self._cells_left: Iterator[Cell] = NONE_LEFT  # while a thread runs
        self._others_left = iter(self._others)
        self._names: dict[Key, str] = {}  # as they were asked for: two may ask for one
        self._lazy: set[Key] = set()  # keys of what threads have made before set-up was over
        # For who reduces: told what a thread, or a predicate, looks at without an effect.
        self.unannounced: Unannounced | None = None
        self.seen: Look | None = None
        self.late = False  # something was to hold always, from the middle of an execution on
        self.building = False
        self._special = False  # something is noted of each thread
        self._named: Named | None = None  # by its code: see `looks`
        self.guards = Guards(build)

    def begin(self, noting: bool = False) -> Execution:
        """A fresh execution of the program, deferred: nothing has run but its set-up.

        With `noting`, it is a `Stepwise` one, which notes what every step does.
        """
        if noting or self.check:
            execution = self._stepwise(noting=noting)
        else:
            execution = Execution(self.tids)
        self.execution = execution
        named = self._named
        if named is None:
            named = self._named = named_by(self.build)
            if named.past:
                self.guards.silent = True
                self.numbers.doubt(
                    f"{named.past} calls __get__, __set__ or __init__ by name, of which nobody is "
                    "told: every step counts"
                )
        if named.fields or self.numbers.loose:
            self.fresh = []
            MADE[0] = self._tells
        execution.deferred = True
        self._roots_left = iter(self._roots)
        self._cells_left = iter(self._cells)
        if self._others:
            self._others_left = iter(self._others)
        if self.ends:
            self.ends = []
        if self.invariants:
            self.invariants = []
            self.reads = []
        if self.guards.awaited:
            self.guards.begin()
        self.joinable = False
        if self.numbers.cancelled:
            self._special = True
        if self._ends or self.watched or self._lazy:
            self._ends = {}
            self.watched = {}
            self._lazy = set()
        self.make()
        self._cells_left = NONE_LEFT
        return execution

    def make(self) -> None:
        """Build it, in the execution that there is. What is async is the first thread."""
        self.building = True
        made = self.build(self)
        if made is not None:
            self._returned(made)
        if self.guards.awaited:
            self.guards.built()
        self.building = False

    async def _main(self, main: Body) -> None:
        self.joinable = True  # what it spawns, not itself
        await main

    def looked(self, thing: Any) -> None:
        """Somebody reads it without an effect, or sets it: a thread, or a guard. Or it is an effect
        that has the guard of a user's."""
        if isinstance(thing, Effect):
            self.guards.ask(thing, self.building, self.unannounced is not None)
            return
        if self.building:
            return
        frame = who_looks()
        if check_guard(thing, frame):
            return
        check_thread_looks(thing, frame)
        if isinstance(thing, Writing):
            self.guards.silent = True
        if self.unannounced is not None:
            self.unannounced.looked(thing)

    def judged(self, thing: Any) -> None:
        """A predicate of `always` reads it, or sets it."""
        check_predicate(thing)
        if self.seen is not None:
            self.seen(thing)

    def _tells(self, made: Any) -> None:
        """An object or thread that `k` may not have made: it asks, too, who reads it."""
        assert self._named is not None
        if self.numbers.loose and isinstance(made, Shared):
            self.fresh.append(made)
        made.__class__ = telling(type(made), self._named.fields)  # type: ignore[arg-type]

    def _returned(self, made: object) -> None:
        if iscoroutine(made):
            self.spawn("main", self._main(made))
            return
        mistake = never_runs("program", self.build, made)
        if mistake is not None:
            self.execution.close()
            raise mistake

    def _stepwise(self, *, noting: bool) -> Execution:
        if self.check:
            from vkemu.exploration.checking.race_check import CheckedExecution

            execution = CheckedExecution(self.tids, noting=noting)
            execution.checking = True
            return execution
        from vkemu.exploration.stepwise import Stepwise

        return Stepwise(self.tids, noting=noting)

    # -- threads ---------------------------------------------------------------------------------

    def spawn(self, name: str, body: Any, *args: Any, daemon: bool = False) -> Thread:
        """Start a thread: `body` is a coroutine function, called with `args`, or a coroutine."""
        coro: Body = body(*args) if callable(body) else body
        special = self.joinable or self._special
        if special:
            check_thread(name, coro)
            coro, note = self._wrapped(name, coro, daemon)
        if CURTHREAD[0] is None:
            cells = self._cells_left
            self._cells_left = NONE_LEFT
            thread = next(self._roots_left, None)
            if thread is not None:
                thread.daemon = daemon
                self.execution.respawn(thread, name, coro)
            else:
                check_thread(name, coro)
                thread = self.execution.spawn(name, coro, daemon=daemon)
                self._roots.append(thread)
            self._cells_left = cells
        else:
            check_thread(name, coro)
            thread = self.execution.spawn(name, coro, daemon=daemon)
        if special:
            note(thread)
        return thread

    def _wrapped(self, name: str, coro: Body, daemon: bool) -> tuple[Body, Note]:
        """What a thread that others wait for, or cancel, does besides; and what is noted of
        it once it is there."""
        parent = CURTHREAD[0]
        path = (self.execution.roots,) if parent is None else (*parent.path, parent.children)
        end = End((THREAD, *path), name) if self.joinable and not daemon else None
        if end is not None:
            coro = end.after(coro)
        key = (CANCEL, *path)
        watched = key in self.numbers.cancelled
        if watched:
            coro = Watched(coro, Cancellation(key))  # type: ignore[assignment]

        def note(thread: Thread) -> None:
            if end is not None:
                self._ends[thread] = end
            if watched:
                self.watched[thread] = None

        return coro, note

    def join(self, thread: Thread) -> Awaitable[Any]:
        """Wait until `thread` is done, and return what it returned.

        For threads spawned while `joinable` is set, as it is in an async test that is `explored`.
        """
        if not isinstance(thread, Thread):
            raise TypeError(f"join: {thread!r}, expected a thread")
        end = self._ends.get(thread)
        if end is None:
            raise RuntimeError(f"join {thread.name}: set k.joinable before it is spawned")
        return end.join()

    # -- shared objects --------------------------------------------------------------------------

    def cell(self, name: str, value: Any = 0) -> Cell:
        """An atomic word: `load`, `store`, `swap`, `cmpset`, `add`, `wait`."""
        cell = next(self._cells_left, None)
        if cell is not None and cell.key == name:
            cell.state = value
            cell.waiters = None
            return cell
        return self._keep(self._cells, cell, Cell, name, value)

    def _make(self, kind: type[Made], name: str, state: Any) -> Made:
        made = next(self._others_left, None) if CURTHREAD[0] is None else None
        return self._keep(self._others, made, kind, name, state)

    def _keep(
        self, pool: list[Any], made: Shared | None, kind: type[Made], name: str, state: Any
    ) -> Made:
        """What this call of set-up made last time, when that is one, else a new object, to keep."""
        if not isinstance(name, str | tuple) or not name:
            raise TypeError(f"{kind.__name__.lower()}: {name!r}, expected its name")
        if self._named is not None and self._named.fields:
            kind = telling(kind, self._named.fields)  # type: ignore[arg-type]
        if CURTHREAD[0] is not None:  # made while threads run: never by the n-th call again
            key: Key = fresh_key(name)
            while key in self._names:  # as set-up has called something
                key = fresh_key(name)
            if self.building:
                self._lazy.add(key)
            fresh = kind(key)
            fresh.state = state
            return fresh
        if made is not None:
            if type(made) is kind and self._names.get(made.key) == name:
                made.state = state
                made.waiters = None
                return made
            position = pool.index(made)
            for forgotten in pool[position:]:
                del self._names[forgotten.key]
            del pool[position:]
        key = name
        same = 1
        while key in self._names or key in self._lazy:
            same += 1
            key = (name, same)
        shared = kind(key)
        shared.state = state
        self._names[key] = name
        pool.append(shared)
        return shared

    def made(self) -> list[Shared]:
        """The objects that there are."""
        return [*self._cells, *self._others, *self.fresh]

    # -- what must hold --------------------------------------------------------------------------

    def at_end(self, predicate: Predicate) -> None:
        """`predicate` must hold when an execution is over; False or an AssertionError fails it."""
        if not callable(predicate):
            raise TypeError(f"at_end: {predicate!r}, expected a function")
        self.ends.append(predicate)

    def always(self, predicate: Predicate, reads: Iterable[Shared] | None = None) -> None:
        """`predicate` must hold at the start and after every step.

        `reads` are the shared objects it looks at, when they are not to be found out: see
        `observation`. Said by a thread, it must hold from then on.
        """
        if not callable(predicate):
            raise TypeError(f"always: {predicate!r}, expected a function")
        declared = None if reads is None else several("always: reads", reads)
        for read in declared or ():
            if not isinstance(read, Shared):
                raise TypeError(f"always: reads {read!r}, expected shared objects")
        self.invariants.append(predicate)
        self.reads.append(declared)
        if not self.building:
            self.late = True
            if self.execution.failed is None:
                self.execution.failed = CURTHREAD[0]  # whoever takes the steps has to look up


def program_for(build: Any, tids: Tids, *, check: bool = False) -> Program:
    """The program that `build` makes of itself, when it knows how; else one that it builds."""
    make = getattr(build, "as_program", None)
    if make is not None:
        made: Program = make(tids, check=check)
        return made
    return Program(build, tids, check=check)


def check_thread(name: Any, coro: Any) -> None:
    if not isinstance(name, str):
        getattr(coro, "close", int)()  # else the interpreter complains too
        raise TypeError(f"spawn: {name!r}, expected the name of the thread")
    if not hasattr(coro, "send"):
        raise TypeError(f"spawn({name!r}): expected a coroutine function, not what gives {coro!r}")


def never_runs(what: str, function: Callable[..., Any], made: Any) -> TypeError | None:
    """Why what `function` returned cannot be meant to be dropped; None when it can."""
    name = getattr(function, "__qualname__", repr(function))
    if isinstance(made, GeneratorType | AsyncGeneratorType):
        kind = "a generator function, whose body never runs"
    elif hasattr(type(made), "__await__"):
        kind = "async, and its body never runs"
        close = getattr(made, "close", None)
        if close is not None:
            close()  # else the interpreter complains too
    elif isinstance(made, FunctionType):
        kind = f"a function that returns a function, {made.__qualname__}, which nobody calls"
    else:
        return None
    return TypeError(f"{what}: {name} is {kind}; expected a plain function")

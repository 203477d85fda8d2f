"""Which code is rewritten, and the names of what is there before the program starts.

By default all that the program's own module leads to, but for the standard library and what is
known to be pure; and the primitives of trio, AnyIO and asyncio, whose core the worlds note
themselves. A search puts every function back when it is over.
"""

from __future__ import annotations

import collections
import functools
import gc
import sys
from collections.abc import Iterable, Iterator
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from vkemu.worlds import accesses, calls
from vkemu.worlds.known import PRIMITIVES, eligible
from vkemu.worlds.noting import CONTAINERS, IMMUTABLE, LOG, MADE
from vkemu.worlds.overriding import as_it_was
from vkemu.worlds.repeats import Known, known_of
from vkemu.worlds.rewriting import INITIAL, Rewriter, stores_of, unseen


class Instruments:
    """Of one search. Invariant: `original` holds every function whose code is not its own."""

    def __init__(self, main: Any, backend: str, extra: tuple[str, ...] | None) -> None:
        self.main = main
        self.library = "trio" if backend.endswith("trio") else "asyncio"
        self.anyio = backend.startswith("anyio")
        self.extra = extra
        self.original: dict[FunctionType, CodeType] = {}
        self.modules: dict[str, None] = {}
        self.more: dict[str, None] = {}  # modules that turned up in an execution
        self.looked_at: set[str] = set()
        self.loaded = 0  # modules, when it was last looked
        self.written: dict[str, set[str]] = {}  # by module, globals that functions assign
        self.known: dict[int, Known] = {}  # by id of the function
        self.functions: list[FunctionType] = []  # all that were loaded, whoever's

    def stems(self) -> list[str]:
        """Modules, or packages, whose code is rewritten."""
        if self.extra is not None:
            own = getattr(self.main, "__module__", "")
            return list(dict.fromkeys([own, *self.extra, *self.primitives(self.extra)]))
        found = [*reachable(self.main), *self.more]
        return [*found, *self.primitives(found)]

    def primitives(self, found: Iterable[str]) -> list[str]:
        """Of the library at hand; of AnyIO, when one of these modules knows it."""
        stems = [
            name
            for name in PRIMITIVES
            if name.startswith(self.library) or not name.startswith(("trio", "asyncio", "anyio"))
        ]
        if self.anyio:
            return [*stems, "anyio"]
        for name in found:
            values = vars(sys.modules[name]).values() if name in sys.modules else ()
            if any(
                str(
                    getattr(value, "__module__", None) or getattr(value, "__name__", "")
                ).startswith("anyio")
                for value in values
            ):
                return [*stems, "anyio"]
        return stems

    def install(self) -> None:
        """Rewrite what there is now; again after modules were loaded, or more is `WRITTEN`.

        The collector tells of what is not frozen: of all at first, then of what has come since.
        """
        self.functions += [each for each in gc.get_objects() if type(each) is FunctionType]
        self.loaded = len(sys.modules)
        self.looked_at = set(sys.modules)
        self.remove()
        found = functions_of(self.stems(), self.functions)
        written: set[str] = set()
        for function, module in found:
            into = self.written.setdefault(module, set())
            for operation, name, inside in stores_of(original_of(function)):
                if operation.endswith("GLOBAL"):
                    into.add(name)
                elif inside not in INITIAL and not unseen(name, module):
                    written.add(name)
        accesses.WRITTEN.update(written)
        rewriters: dict[int, Rewriter] = {}
        followed = {id(function): function for function, _ in found}
        self.known = known_of(found, original_of) if as_it_was(followed) else {}
        for function, module in found:
            names = function.__globals__
            rewriter = rewriters.get(id(names))
            if rewriter is None:
                rewriter = rewriters[id(names)] = Rewriter(names, self.written[module], followed)
            self.rewrite(function, rewriter)
            self.modules[module] = None

    def rewrite(self, function: FunctionType, rewriter: Rewriter) -> None:
        code = original_of(function)
        self.original[function] = code
        names = names_in(code)
        part = self.known.get(id(function))
        followed = frozenset(names & accesses.WRITTEN)
        key = (followed, frozenset(names & rewriter.written), part is None)
        known = _done.setdefault((id(code), id(rewriter.names)), {})
        new, assumed = known.get(key, (None, {}))
        if new is None or not rewriter.callees.hold(assumed):
            rewriter.made.clear()
            rewriter.callees.assumed = assumed = {}
            new = rewriter.rewrite(code, known=part)
            known[key] = new, assumed
            for old, made in rewriter.made:
                _original[id(made)] = old, made
        function.__code__ = new
        calls.FOLLOWED[id(function)] = function
        self.made(new)

    def made(self, code: CodeType) -> None:
        MADE[id(code)] = code
        for const in code.co_consts:
            if isinstance(const, CodeType):
                self.made(const)

    def remove(self) -> None:
        for function, code in self.original.items():
            function.__code__ = code
        self.original.clear()
        MADE.clear()
        calls.FOLLOWED.clear()
        calls.PASSING.clear()

    def late(self, function: FunctionType) -> bool:
        """A function that is called and not rewritten: it will be, when it may be."""
        module = function.__globals__.get("__name__") or ""
        if self.extra is not None or not eligible(module) or module in self.modules:
            return False
        if function.__code__.co_filename.startswith("<"):
            return False
        self.more[module] = None
        LOG.stale = True
        return True

    def outdated(self) -> bool:
        """Whether there is code now, to be rewritten, that was not there."""
        if len(sys.modules) == self.loaded:
            return False
        self.loaded = len(sys.modules)
        return any(name not in self.looked_at and eligible(name) for name in list(sys.modules))


# By code: what was made of it, for what is followed in it. A process may search many times.
_done: dict[tuple[int, int], dict[Any, tuple[CodeType, Any]]] = {}
_original: dict[int, tuple[CodeType, CodeType]] = {}  # by id of what was made: of what
_names: dict[int, tuple[CodeType, frozenset[str]]] = {}


def original_of(function: FunctionType) -> CodeType:
    """Its code; when it was made of rewritten code, the code of that before."""
    known = _original.get(id(function.__code__))
    return function.__code__ if known is None else known[0]


def names_in(code: CodeType) -> frozenset[str]:
    """Of attributes and globals, in this and in the functions inside of it."""
    known = _names.get(id(code))
    if known is None:
        inner = [names_in(const) for const in code.co_consts if isinstance(const, CodeType)]
        known = _names[id(code)] = code, frozenset(code.co_names).union(*inner)
    return known[1]


def instrument_late(function: Any) -> None:
    """What is given to a library to be called."""
    while not isinstance(function, FunctionType):
        inner = getattr(function, "func", None) or getattr(function, "__func__", None)
        if inner is None:
            return
        function = inner
    if calls.LATE and id(function.__code__) not in MADE:
        calls.LATE[0](function)


def reachable(main: Any) -> list[str]:
    """Modules that the program's own module leads to."""
    while isinstance(main, functools.partial):
        main = main.func
    own = getattr(main, "__module__", None) or "__main__"
    todo = [own]
    found: dict[str, None] = {}
    while todo:
        name = todo.pop()
        if name in found or name not in sys.modules or not (name == own or eligible(name)):
            continue
        found[name] = None
        package = name.partition(".")[0]
        if package != own.partition(".")[0]:
            todo += [other for other in sys.modules if other.startswith(package + ".")]
        for value in list(vars(sys.modules[name]).values()):
            if type(value) is ModuleType:
                todo.append(value.__name__)
            else:
                module = getattr(value, "__module__", None)
                if isinstance(module, str):
                    todo.append(module)
    return list(found)


def functions_of(stems: list[str], functions: list[FunctionType]) -> list[tuple[FunctionType, str]]:
    """Those of `functions` whose module is one of these, or below one, by name."""
    wanted = tuple(stems)
    known: dict[str, bool] = {}

    def ours(name: str) -> bool:
        if name not in known:
            known[name] = any(name == stem or name.startswith(stem + ".") for stem in wanted)
        return known[name]

    found = []
    for thing in functions:
        module = thing.__globals__.get("__name__")
        file = thing.__code__.co_filename
        if not isinstance(module, str):
            # attrs writes methods into a namespace of their own.
            module = getattr(thing, "__module__", None) or ""
        if module.startswith("vkemu.worlds"):
            continue
        if file.startswith("<") and not file.startswith(("<attrs", "<string")):
            continue
        if ours(module):
            found.append((thing, module))
    found.sort(key=lambda pair: (pair[1], pair[0].__qualname__, pair[0].__code__.co_firstlineno))
    return found


# -- names beforehand ----------------------------------------------------------------------------


class Roots:
    """Names what the modules' globals, their classes and the program's closure lead to."""

    def __init__(self, modules: set[str]) -> None:
        self.modules = modules
        # Where a package says that its classes are from.
        self.packages = {module.partition(".")[0] for module in modules}
        self.base: dict[int, Any] = {}
        self.keep: list[Any] = []

    def take(self, thing: Any, name: tuple[Any, ...], depth: int) -> None:
        kind = type(thing)
        if (kind in IMMUTABLE and kind is not ModuleType) or id(thing) in self.base:
            return
        if kind is ModuleType:
            return
        if kind is FunctionType:
            self.mark(thing, name)
            for which, cell in zip(
                thing.__code__.co_freevars, thing.__closure__ or (), strict=True
            ):
                self.take(cell, (*name, "cell", which), depth)
            for n, default in enumerate(thing.__defaults__ or ()):
                self.take(default, (*name, "default", n), depth)
            self.take(getattr(thing, "__wrapped__", None), (*name, "wrapped"), depth)
            names = thing.__globals__
            module = sys.modules.get(names.get("__name__", ""))
            if module is None or names is not vars(module):  # attrs gives a method one of its own
                for which in sorted(names):
                    self.take(names[which], (*name, "global", which), min(depth, 1))
        elif isinstance(thing, type):
            if thing.__module__ in self.modules or thing.__module__ in self.packages:
                self.mark(thing, name)
                for which in sorted(vars(thing)):
                    self.take(vars(thing)[which], (*name, which), depth)
        elif kind.__module__ != "builtins" or isinstance(
            thing, (*CONTAINERS, tuple, CellType, MethodType)
        ):
            self.mark(thing, name)
            if depth:
                for n, value in parts_of(thing):
                    self.take(value, (*name, n), depth - 1)

    def mark(self, thing: Any, name: tuple[Any, ...]) -> None:
        self.base[id(thing)] = name
        self.keep.append(thing)


def parts_of(thing: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(thing, CellType):
        try:
            yield "cell", thing.cell_contents
        except ValueError:
            pass
    elif isinstance(thing, MethodType):
        yield "self", thing.__self__
        yield "func", thing.__func__
    elif isinstance(thing, dict):
        yield from enumerate(list(thing.values()))
    elif isinstance(thing, (list, tuple, collections.deque)):
        yield from enumerate(list(thing))
    elif isinstance(thing, functools.partial):
        yield from enumerate([thing.func, *thing.args, *thing.keywords.values()])
    else:
        for n, value in list(getattr(thing, "__dict__", {}).items()):
            if isinstance(n, str):
                yield n, value


def name_roots(instruments: Instruments, main: Any, *more: Any) -> None:
    modules = set(instruments.modules)
    roots = Roots(modules)
    for module in sorted(modules):
        names = vars(sys.modules[module]) if module in sys.modules else {}
        roots.mark(names, ("module", module))
        for name in sorted(names):
            if not name.startswith("__"):
                roots.take(names[name], (module, name), 4)
    depth = 6  # of what is named beforehand
    for n, thing in enumerate((main, *more)):
        roots.take(thing, ("program", n), depth)
    alike: collections.Counter[tuple[str, str]] = collections.Counter()
    for function in instruments.original:
        if function.__closure__:
            place = function.__module__, function.__qualname__
            # Not as the how-manieth of all: other processes may have others loaded.
            roots.take(function, ("function", *place, alike[place]), 1)
            alike[place] += 1
    LOG.base = roots.base
    LOG.kept = roots.keep


def reach(coroutine: Any) -> None:
    """Name what a new task is given: it was made by whoever spawns it."""
    from vkemu.worlds.noting import name_all

    frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
    if frame is not None:
        for _, value in sorted(frame.f_locals.items()):
            name_all(value)

"""An async function as a program to explore, and the world it is run in."""

from __future__ import annotations

import gc
import importlib.util
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from vkemu.executors.controlled import Execution, Tids
from vkemu.exploration.program import Program
from vkemu.exploration.reduction.footprint import Footprint
from vkemu.exploration.result import ExplorationError
from vkemu.worlds import accesses, calls, network_socket, outside, overriding, workers
from vkemu.worlds.audit import WorldAudit
from vkemu.worlds.hooks import Hooks
from vkemu.worlds.instrumenting import Instruments, name_roots
from vkemu.worlds.network import WORDS
from vkemu.worlds.noting import EVERY, HERE, LOG, look_for_threads
from vkemu.worlds.world import Unsupported, World

OPTIONS: Final = ("time", "order", "cancel", "instrument", "random", "clock", "network")


class AsyncProgram:
    """What `explore` is given for an async function `main`. Other processes can be sent it."""

    late = True  # what steps touch is known after them
    only_thread = True  # whatever another does meanwhile would be taken for the program's

    def __init__(self, main: Callable[..., Any], backend: str, **options: Any) -> None:
        check(main, backend, options)
        self.main = main
        self.backend = backend
        self.options = options
        self.instruments: Instruments | None = None
        self.renewed = 0  # how often the code was rewritten
        self.current: Callable[[], World | None] = lambda: None

    @property
    def library(self) -> str:
        return "trio" if self.backend.endswith("trio") else "asyncio"

    def __getstate__(self) -> dict[str, Any]:
        from vkemu.exploration.failure.origin import reference

        return {"main": reference(self.main), "backend": self.backend, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from vkemu.exploration.failure.origin import program_of

        self.main = program_of(state["main"])
        self.backend = state["backend"]
        self.options = state["options"]
        self.instruments = None
        self.renewed = 0
        self.current = lambda: None

    @property
    def identity(self) -> str:
        from vkemu.exploration.sharing.identity import identity_of

        return f"{identity_of(self.main)} {self.backend} {sorted(self.options.items())}"

    def __call__(self, k: Any) -> None:
        raise ExplorationError(f"{self.backend}: an async program has no k")

    def as_program(self, tids: Tids, *, check: bool = False) -> WorldProgram:
        if check:
            raise ExplorationError(f"check: has no meaning for backend={self.backend!r}")
        if self.instruments is None:  # another process: for as long as it lives
            self.enter()
        return WorldProgram(self, tids)

    def enter(self) -> Hooks:
        """Rewrite what there is to be rewritten, and take the place of what is outside."""
        gc.disable()  # what runs when it pleases the collector is not in the schedule
        gc.unfreeze()  # else the collector does not tell of it
        hooks = Hooks()
        extra = self.options.get("instrument")
        self.instruments = Instruments(
            self.main, self.backend, None if extra is None else tuple(extra)
        )
        now: Any
        if self.library == "trio":
            from vkemu.worlds import trio_hooks
            from vkemu.worlds.trio_world import TrioWorld

            now = trio_hooks.install(hooks)
            self.current = mine(lambda: TrioWorld.current)
        else:
            from vkemu.worlds import asyncio_hooks
            from vkemu.worlds.asyncio_world import AsyncioWorld

            now = asyncio_hooks.install(hooks)
            self.current = mine(lambda: AsyncioWorld.current)
        network_socket.install(hooks, self.current)
        outside.refuse_the_rest(hooks, self.current)
        workers.notice_others(hooks)
        if self.options.get("clock") == "virtual":
            outside.virtual_time(hooks, now)
            outside.virtual_dates(hooks, now)
        calls.LATE[:] = [self.instruments.late]
        self.renew()
        return hooks

    def renew(self) -> None:
        """Rewrite again, and name again what is there."""
        assert self.instruments is not None
        self.renewed += 1
        HERE.on = False
        gc.collect()  # what executions before it have left
        self.instruments.install()
        name_roots(self.instruments, self.main)
        gc.freeze()  # what there is stays, and need not be looked at again
        LOG.stale = False

    @contextmanager
    def entered(self) -> Iterator[AsyncProgram]:
        """For one search or replay: then everything is as it was."""
        collecting = gc.isenabled()
        drawn = random.getstate()
        hooks = None
        quiet = warnings.catch_warnings()
        quiet.__enter__()
        # Of executions that were given up in the middle.
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        try:
            hooks = self.enter()
            yield self
        finally:
            world = self.current()
            if world is not None:  # an error has left it in the middle
                world.close()
            HERE.on = False
            LOG.close()
            calls.LATE.clear()
            if self.instruments is not None:
                self.instruments.remove()
            accesses.WRITTEN.clear()
            accesses.OF_CLASSES.clear()
            overriding.DOUBTS.clear()
            self.instruments = None
            if hooks is not None:
                hooks.remove()
            random.setstate(drawn)
            gc.collect()
            gc.unfreeze()
            quiet.__exit__(None, None, None)
            if collecting:
                gc.enable()

    def world(self, tids: Tids, program: WorldProgram) -> World:
        given = {name: value for name, value in self.options.items() if name in {"time", "cancel"}}
        given["network"] = words_of(self.options)
        if self.library == "trio":
            from vkemu.worlds.trio_world import TrioWorld

            return TrioWorld(self.main, tids, program.numbers, program.memo, **given)
        from vkemu.worlds.asyncio_world import AsyncioWorld

        given["order"] = self.options.get("order", "arrival")
        return AsyncioWorld(self.main, tids, program.numbers, program.memo, **given)


def mine(current: Callable[[], World | None]) -> Callable[[], World | None]:
    """`current` for this thread and those of the program; for any other of the process None."""
    here = threading.get_ident()

    def found() -> World | None:
        return current() if threading.get_ident() == here or workers.current() else None

    return found


def check(main: Any, backend: Any, options: dict[str, Any]) -> None:
    backends = ("trio", "asyncio", "anyio+asyncio", "anyio+trio")
    if backend not in backends:
        raise ValueError(f"backend: {backend!r}, expected one of {', '.join(backends)}")
    if not callable(main):
        raise TypeError(f"program: {main!r}, expected an async function without arguments")
    for name in options:
        if name not in OPTIONS:
            raise TypeError(f"explore: no option {name!r}, expected one of {', '.join(OPTIONS)}")
    times = ("idle", "any")
    orders = ("arrival", "any")
    known = (("time", times), ("order", orders), ("clock", outside.CLOCKS))
    for name, allowed in known:
        if options.get(name, allowed[0]) not in allowed:
            raise ValueError(f"{name}: {options[name]!r}, expected one of {', '.join(allowed)}")
    for word in words_of(options):
        if word not in WORDS:
            raise ValueError(f"network: {word!r}, expected some of {', '.join(WORDS)}")
    if not isinstance(options.get("random", 0), int):
        raise TypeError(f"random: {options['random']!r}, expected a whole number, the seed")
    if not isinstance(options.get("cancel", ""), str):
        raise TypeError(
            f"cancel: {options['cancel']!r}, expected 'everywhere' or a function's name"
        )
    if importlib.util.find_spec("bytecode") is None:
        raise ExplorationError(f"backend={backend!r}: needs vkemu[async] (pip install bytecode)")


def words_of(options: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(options.get("network", "")).replace(",", " ").split())


class WorldProgram(Program):
    """Runs an async function anew for every execution."""

    auditing = WorldAudit

    def __init__(self, build: AsyncProgram, tids: Tids) -> None:
        super().__init__(build, tids)
        self.build: AsyncProgram = build
        self.memo: dict[tuple[int, int], Footprint] = {}
        self.restarts = 0
        self.numbers.whole.update(LOG.ordered)
        LOG.ordered = self.numbers.whole  # what other processes have learnt, and tell them
        self.warm()

    def warm(self) -> None:
        """Executions before the first, so that what is loaded and cached late is there."""
        warming = 5  # executions at most, before the search, to load what is loaded late
        for _ in range(warming):
            execution: Any = self.begin()
            execution.settle()
            steps = 0
            while execution.runnable and steps < 10_000:
                execution.step(execution.runnable[steps % len(execution.runnable)])
                steps += 1
            execution.close()
            if execution.failed is not None and execution.network.nobody:
                where = ", ".join(sorted(execution.network.nobody.values()))
                raise Unsupported(f"the program connects to {where}, where nothing of it listens")
            if not self.outdated():
                break
        self.begun = 0

    def outdated(self) -> bool:
        instruments = self.build.instruments
        return LOG.stale or (instruments is not None and instruments.outdated())

    def begin(self, noting: bool = False) -> Execution:
        self.execution.close()
        restarts = 3  # before all dicts are taken to be looked at as a whole
        outdated = self.outdated()
        if outdated:
            self.restarts += 1
            if self.restarts > restarts:
                LOG.ordered[EVERY] = None
            self.build.renew()
            self.memo.clear()
        LOG.all_ordered = EVERY in LOG.ordered
        collect = 64  # executions
        if not self.begun % collect:
            gc.collect()
        look_for_threads()
        LOG.clear()
        outside.seed(self.build.options.get("random", 0))
        world = self.build.world(self.tids, self)
        world.renewed = self.build.renewed
        world.anew = outdated
        world.seen = [] if noting else None
        world.deferred = True
        self.execution = world
        return world

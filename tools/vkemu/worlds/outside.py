"""The world outside: what of it a program finds seeded or virtual, and what is refused.

`random` is seeded before every execution. With `clock="virtual"` the functions of `time`, and
`datetime`, tell the loop's own time, in UTC. Sockets are in memory (`network`). Processes, signals
and files that are written are refused in one line.
"""

from __future__ import annotations

import builtins
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, timedelta
from datetime import date as REAL_DATE  # noqa: N812 - as opposed to ours
from datetime import datetime as REAL_DATETIME  # noqa: N812
from typing import TYPE_CHECKING, Any, Final

from vkemu.worlds.hooks import Hooks
from vkemu.worlds.noting import touch

if TYPE_CHECKING:
    from vkemu.worlds.world import World

CLOCKS: Final = ("real", "virtual")


def refuse_the_rest(hooks: Hooks, current: Callable[[], World | None]) -> None:
    refusing(hooks, subprocess.Popen, "__init__", current, "starts a process")
    refusing(hooks, os, "fork", current, "starts a process")
    refusing(hooks, signal, "signal", current, "handles signals")

    def opening(real: Any) -> Any:
        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            world = current()
            if world is not None and world.acting is not None and set(mode) & set("wax+"):
                world.refuse("writes a file")
            return real(file, mode, *args, **kwargs)

        return opened

    for module in (builtins, io):
        hooks.replace(module, "open", opening(module.open))


def seed(number: int) -> None:
    random.seed(number)


def virtual_time(hooks: Hooks, now: Callable[[], tuple[Any, float] | None]) -> None:
    """`now` says whose time it is and what it is; None outside of an execution."""

    def telling(real: Callable[[], float]) -> Callable[[], float]:
        def told() -> float:
            found = now()
            if found is None:
                return real()
            touch(found[0], "now", write=False)
            return found[1]

        return told

    times = ("time", "monotonic", "perf_counter")
    for name in times:
        hooks.replace(time, name, telling(getattr(time, name)))


def virtual_dates(hooks: Hooks, now: Callable[[], tuple[Any, float] | None]) -> None:
    """Of `datetime` and `date` wherever a module has them: those that know the time of the loop.
    What they make are the real ones."""

    class Same(type):
        """So that whoever asks finds that a date is one."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, cls.__mro__[1])

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, cls.__mro__[1])

    class date(REAL_DATE, metaclass=Same):
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return REAL_DATE(*args, **kwargs)

        @classmethod
        def today(cls) -> Any:
            return datetime.now().date()

    class datetime(REAL_DATETIME, metaclass=Same):
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return REAL_DATETIME(*args, **kwargs)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            found = now()
            if found is None:
                return REAL_DATETIME.now(tz)
            touch(found[0], "now", write=False)
            told = REAL_DATETIME(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=found[1])
            return told.replace(tzinfo=None) if tz is None else told.astimezone(tz)

        today = now

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now()

    of_dates = {"_datetime", "_pydatetime", "_strptime", __name__}
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if isinstance(names, dict) and module.__name__ not in of_dates:
            for name, value in list(names.items()):
                if value is REAL_DATETIME:
                    hooks.replace(module, name, datetime)
                elif value is REAL_DATE:
                    hooks.replace(module, name, date)


def refusing(
    hooks: Hooks, owner: Any, name: str, current: Callable[[], World | None], what: str
) -> None:
    """`owner.name` is not for steps of a world: a program that calls it is refused."""

    def called(*args: Any, **kwargs: Any) -> Any:
        world = current()
        if world is not None and world.acting is not None:
            world.refuse(what)
        return real(*args, **kwargs)

    real = hooks.replace(owner, name, called)

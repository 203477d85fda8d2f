"""The world outside: what of it a program finds seeded or virtual, and what is refused.

`random` is seeded before every execution. With `clock="virtual"` the functions of `time` tell the
loop's own time. Sockets and processes are refused in one line, unless the program brings a network
of its own (trio's custom socket factory).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final

from vkemu.worlds.hooks import Hooks
from vkemu.worlds.noting import touch

CLOCKS: Final = ("real", "virtual")


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


def refusing(hooks: Hooks, owner: Any, name: str, refuse: Callable[[], Any]) -> None:
    """`owner.name` calls `refuse` first, which raises or lets it pass."""

    def called(*args: Any, **kwargs: Any) -> Any:
        refuse()
        return real(*args, **kwargs)

    real = hooks.replace(owner, name, called)

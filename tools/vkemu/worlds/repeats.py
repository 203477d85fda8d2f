"""Functions of asyncio as they are in one release: what they touch that is noted elsewhere.

A method of a future that calls another has no need to look at what it calls, and what it reads
twice in a step is noted once. That is known of this code alone: of any other, all is noted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from types import CodeType, CoroutineType, FunctionType
from typing import Any, Final

from vkemu.worlds import accesses, calls
from vkemu.worlds.noting import HERE, IMMUTABLE, LOG, name_all

Hook = Callable[..., None]
EVERYTHING: Final = "everything"


class Known:
    """`first`: how many of its accesses of each name are noted; the others are none, or repeat
    those. `entry`: what is called when it begins, with these of its arguments."""

    def __init__(
        self, first: dict[str, int], entry: Hook | None = None, given: tuple[str, ...] = ()
    ) -> None:
        self.first = first
        self.entry = entry
        self.given = given

    def noting(self) -> Callable[[str], bool]:
        """Whether to note the next access of a name, in the order of the code."""
        left = Counter(self.first)

        def noted(name: str) -> bool:
            if EVERYTHING in left:
                return False
            if name not in left:
                return True
            left[name] -= 1
            return left[name] >= 0

        return noted


# -- what some do, in one hook -------------------------------------------------------------------


def scheduled(future: Any) -> None:
    """Its callbacks are taken; whoever put them there has named them."""
    if HERE.on:
        callbacks = future._callbacks
        LOG.note(callbacks, "[]", bool(callbacks))


def settled(future: Any, result: Any) -> None:
    if HERE.on:
        pending = future._state == "PENDING"
        if pending and type(result) not in IMMUTABLE:
            name_all(result)
        LOG.note(future, "_state", pending)


def steps(task: Any) -> None:
    """A coroutine that is a native one notes for itself what it does. If the task is cancelled in
    this step, whoever does it notes that."""
    if HERE.on:
        LOG.note(task, "_fut_waiter", True)
        LOG.note(task, "_must_cancel", bool(task._must_cancel))
        coroutine = task._coro
        if type(coroutine) is not CoroutineType:
            calls.called(coroutine.send, None)


def started(task: Any, coroutine: Any, name: Any) -> None:
    """A task is made."""
    if HERE.on:
        LOG.name(task)
        name_all(coroutine)
        accesses.look(name, True)


# -- which they are ------------------------------------------------------------------------------


def table() -> dict[str, Known]:
    """By digest of the code: of Python 3.11."""
    return {
        # Future: __init__, result, exception, set_result, __schedule_callbacks, __await__
        "1994c636e8c741df": Known({"get_debug": 0}),
        "1804c764f45b7de1": Known({"_state": 1, "_exception": 0, "_result": 0}),
        "166f155c2371e623": Known({"_state": 1, "_exception": 0}),
        "c8a6f28c6105345e": Known({EVERYTHING: 0}, settled, ("self", "result")),
        "65a058d73b8edc89": Known({EVERYTHING: 0}, scheduled, ("self",)),
        "1eda35096f754c8f": Known({"done": 0, "result": 0}),
        # Task: __init__, __step, __wakeup
        "8d5d902b46cf8334": Known(
            {"__init__": 0, "test": 0, "iscoroutine": 0, "str": 0, "_task_name_counter": 0,
             "call_soon": 0},
            started, ("self", "coro", "name"),
        ),
        "e427d4b437aeb6e4": Known(
            {"done": 0, "_must_cancel": 0, "_fut_waiter": 0, "send": 0, "throw": 0,
             "set_result": 0},
            steps, ("self",),
        ),
        "d5367e78b52d979a": Known({"_Task__step": 0}),
        # Queue
        "bc2088cb6868aaef": Known({"qsize": 0}),  # Queue.full
        "05a55526baa1600e": Known({"done": 0, "set_result": 0}),  # Queue._wakeup_next
        "f17aa3c35a186cda": Known({"full": 0, "put_nowait": 0}),  # Queue.put
        "90b6c9945b5bec65": Known({"empty": 0, "get_nowait": 0}),  # Queue.get
        "6c1aec59170d309a": Known({"full": 0, "_put": 0, "_wakeup_next": 0}),  # Queue.put_nowait
        "a52a1e702468c461": Known({"empty": 0, "_get": 0, "_wakeup_next": 0}),  # Queue.get_nowait
    }  # fmt: skip


def digest_of(code: CodeType) -> str:
    plain = [const for const in code.co_consts if not isinstance(const, CodeType)]
    whole = (code.co_code, code.co_names, code.co_varnames, plain)
    return hashlib.sha256(repr(whole).encode()).hexdigest()[:16]


def known_of(
    found: list[tuple[FunctionType, str]], original: Callable[[FunctionType], CodeType]
) -> dict[int, Known]:
    """By id, those of these functions."""
    return {
        id(function): KNOWN[digest]
        for function, module in found
        if module in {"asyncio.futures", "asyncio.queues", "asyncio.tasks"}
        and (digest := digest_of(original(function))) in KNOWN
    }


KNOWN: Final = table()

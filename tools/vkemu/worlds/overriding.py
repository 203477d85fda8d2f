"""Whether the methods that asyncio's futures and queues call of each other are its own still."""

from __future__ import annotations

import asyncio.futures
import asyncio.queues
from collections.abc import Iterator
from types import FunctionType
from typing import Any, Final

from vkemu.worlds.noting import HERE, LOG, MADE

PyFuture: Final[Any] = asyncio.futures._PyFuture  # type: ignore[attr-defined]
Queue: Final[Any] = asyncio.queues.Queue
RELIED_ON: Final = frozenset(
    [
        "__init__", "done", "result", "set_result", "qsize", "full", "empty", "put_nowait",
        "get_nowait", "_put", "_get", "_wakeup_next",
    ]
)  # fmt: skip
DOUBTS: Final[list[str]] = []  # what an execution put in the place of one, that is not followed
# Reads and writes of these are reads and writes of another: whoever writes them writes that too.
TOGETHER: Final = {"_result": "_state", "_exception": "_state"}


def field_of(kind: type, name: str) -> str:
    """What an access to an attribute is noted as."""
    together = TOGETHER.get(name)
    return name if together is None or not issubclass(kind, PyFuture) else together


def overridden(kind: type, name: str) -> None:
    """A future or queue, or a class of them, is given an attribute of this name."""
    if name in RELIED_ON and issubclass(kind, (PyFuture, Queue)) and not DOUBTS:
        DOUBTS.append(name)
        LOG.stale = True


def others(kind: Any) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from others(each)


@classmethod  # type: ignore[misc]
def followed_methods(cls: Any, **named: Any) -> None:
    """A class of them is made. What is there before an execution is looked at then."""
    super(PyFuture if issubclass(cls, PyFuture) else Queue, cls).__init_subclass__(**named)
    for name in RELIED_ON & vars(cls).keys() if HERE.on else ():
        if id(getattr(vars(cls)[name], "__code__", None)) not in MADE:
            overridden(cls, name)


def as_it_was(followed: dict[int, FunctionType]) -> bool:
    """Whatever overrides them is followed."""
    return not DOUBTS and all(
        id(vars(kind)[name]) in followed
        for kind in (*others(PyFuture), *others(Queue))
        for name in RELIED_ON
        if name in vars(kind)
    )

"""Where a thread stands in the source of who wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from vkprotocol import effects, step
from vkprotocol.effects import Thread

# Where the shared objects' own code is.
_INSIDE: Final = (
    str(effects.__file__), str(step.__file__),
    str(Path(__file__).parents[1] / "exploration" / "primitives"),
)  # fmt: skip


# Where a program is spawned from, by whoever builds it.
_SPAWNS: Final = str(Path(__file__).parents[1] / "exploration")


def frames_of(thread: Thread) -> Iterator[FrameType]:
    """Those that its coroutine is in, outermost first."""
    awaited: Any = thread.coro
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            return
        yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def source_of(thread: Thread) -> tuple[str, int]:
    """File and line: of the innermost frame that is not of the shared objects' own code."""
    found = ("?", 0)
    sleeps = "/vkhost/kern/token.py"  # gives tokens up for every sleep: who sleeps is above
    for frame in frames_of(thread):
        file = frame.f_code.co_filename
        if not file.startswith(_INSIDE) and not file.endswith(sleeps):
            found = (file, frame.f_lineno)
    return found


def place_of(thread: Thread) -> tuple[str, int]:
    """As `source_of`; of a thread that is nothing but an operation, the line that made it, where
    the interpreter has noted it."""
    file, line = source_of(thread)
    if not line:
        for made, at, _ in getattr(thread.coro, "cr_origin", None) or ():
            if not made.startswith(_SPAWNS):
                return made, at
    return file, line

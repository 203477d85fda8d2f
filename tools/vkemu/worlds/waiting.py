"""Where a task stands, and what it waits for, in the program's own lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

LIBRARIES: Final = (
    "/trio/",
    "/anyio/",
    "/asyncio/",
    f"{Path(__file__).parents[1]}/",
    "/contextlib.py",
    "/subprocess.py",
    "/threading.py",
    "/sniffio/",
    "/outcome/",
    "/_pytest/",
    "/pluggy/",
)


def frames_of(coroutine: Any) -> Iterator[FrameType]:
    """From the outermost to what it awaits in the end."""
    while coroutine is not None:
        frame = None
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{prefix}_frame", None)
            if frame is not None:
                break
        if frame is None:
            return
        yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(
            coroutine, "gi_yieldfrom", getattr(coroutine, "ag_await", None)
        )


def own(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return not (file.startswith("<") or any(part in file for part in LIBRARIES))


def line_of(frame: FrameType | None) -> str:
    """The program's own line that is being run, on the way up to who takes the step."""
    stepping = "/vkemu/worlds/world.py"
    while frame is not None and not own(frame):
        frame = None if frame.f_code.co_filename.endswith(stepping) else frame.f_back
    return "?" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def calling() -> str:
    """Of who asks for what it cannot have."""
    return line_of(sys._getframe(2))


def place_of(coroutine: Any) -> tuple[str, int]:
    """File and line of the innermost frame that is the program's own."""
    found = ("?", 0)
    for frame in frames_of(coroutine):
        if own(frame):
            found = frame.f_code.co_filename, frame.f_lineno
    return found


def standing(name: str, coroutine: Any, names: dict[Any, str]) -> str:
    """`b waits for a Lock held by a at pool.py:12`."""
    file, line = place_of(coroutine)
    waits = ""
    for frame in frames_of(coroutine):
        thing = frame.f_locals.get("self")
        if own(frame) or thing is None:
            continue
        kind = type(thing).__name__.lstrip("_")
        owner = getattr(thing, "_owner", getattr(thing, "_owner_task", None))
        held = f" held by {names[owner]}" if owner in names else ""
        if kind == "NurseryManager":
            waits = "its nursery"
        elif kind not in {"CancelScope", "Task", "ParkingLot"} or not waits:
            waits = f"{kind}.{frame.f_code.co_name}{held}"
    return f"{name} waits{f' for {waits}' if waits else ''} at {file.rpartition('/')[2]}:{line}"

"""Where a suspended kernel thread stands in the kernel's source."""

from __future__ import annotations

from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

# Frames of these are the machinery of an effect; the kernel's own line is the one above.
_MACHINERY: Final = frozenset({"effects.py"})
ROOT: Final = Path(__file__).resolve().parents[3]


class Place(NamedTuple):
    """A function and its line, outermost caller first in a stack."""

    function: str
    where: str  # vkhost/vm_fault.py:118


NOWHERE: Final = Place("", "")


def stack(coro: Any) -> list[Place]:
    """The kernel functions a suspended coroutine is in, outermost first."""
    places = []
    while coro is not None:
        frame: FrameType | None = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if frame is None:
            break
        if Path(frame.f_code.co_filename).name not in _MACHINERY:
            places.append(Place(frame.f_code.co_name, place_of(frame)))
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)
    return places


def place_of(frame: FrameType) -> str:
    """`vkhost/vm_fault.py:118`, whatever the checkout or site-packages is called."""
    path = Path(frame.f_code.co_filename)
    for package in ("vkhost", "vkguest", "vkprotocol", "vkemu"):
        if package in path.parts:
            at = len(path.parts) - 1 - path.parts[::-1].index(package)
            return f"{'/'.join(path.parts[at:])}:{frame.f_lineno}"
    return f"{path.name}:{frame.f_lineno}"


def here(coro: Any) -> Place:
    """The innermost kernel function, where the next effect is awaited."""
    places = stack(coro)
    return places[-1] if places else NOWHERE

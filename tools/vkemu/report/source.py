"""Where a kernel thread stands in the kernel's source: suspended, or in the middle of a step.

Of the frames of a stack the innermost that DragonFly has too is the one to name: `pmap_enter`, not
the accessor of a PTE that it calls.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

# Frames of these are the machinery of an effect; the kernel's own line is the one above.
_MACHINERY: Final = frozenset({"effects.py"})
_KERNEL: Final = frozenset({"vkhost", "vkguest"})
_NAMES: Final = (
    "vm_", "pmap_", "vmspace_", "sys_", "kern_", "swap_", "vnode_", "tlb_", "cpu_", "trap", "run",
    "smp_", "madvise", "lwp_", "fault_", "go_user", "user_",
)  # fmt: skip


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
    """The kernel function in which the next effect is awaited."""
    return telling(stack(coro)[::-1])


def telling(places: list[Place]) -> Place:
    """Of a stack, innermost first, the function to name."""
    for place in places:
        if place.function.startswith(_NAMES):
            return place
    return places[0] if places else NOWHERE


def caller() -> Place:
    """The kernel function that is running, from inside an `emit` it called."""
    places = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        parts = Path(frame.f_code.co_filename).parts
        if _KERNEL.intersection(parts):
            place = Place(frame.f_code.co_name, place_of(frame))
            if place.function.startswith(_NAMES):
                return place
            places.append(place)
        frame = frame.f_back
    return places[0] if places else NOWHERE

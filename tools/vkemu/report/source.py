"""Where a kernel thread stands in the kernel's source: suspended, or in the middle of a step.

Of the frames of a stack the innermost that DragonFly has too is the one to name: `pmap_enter`, not
the accessor of a PTE that it calls.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

# Frames of these are the machinery of an effect; the kernel's own line is the one above.
_MACHINERY: Final = ("vkprotocol/effects.py", "vkprotocol/step.py")
_OURS: Final = ("vkhost", "vkguest", "vkprotocol", "vkemu")
_KERNEL: Final = ("vkhost/", "vkguest/")
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
    """The functions a suspended coroutine is in, outermost first."""
    places = []
    while coro is not None:
        frame: FrameType | None = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if frame is None:
            break
        name = short(frame.f_code.co_filename)
        if not name.endswith(_MACHINERY):
            places.append(Place(frame.f_code.co_name, f"{name}:{frame.f_lineno}"))
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)
    return places


@cache
def short(filename: str) -> str:
    """`vkhost/vm_fault.py`, whatever the checkout or site-packages is called."""
    parts = Path(filename).parts
    for package in _OURS:
        if package in parts:
            at = len(parts) - 1 - parts[::-1].index(package)
            return "/".join(parts[at:])
    return parts[-1]


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
    first = NOWHERE
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = short(frame.f_code.co_filename)
        if name.startswith(_KERNEL):
            function = frame.f_code.co_name
            if function.startswith(_NAMES) or first is NOWHERE:
                place = Place(function, f"{name}:{frame.f_lineno}")
                if function.startswith(_NAMES):
                    return place
                first = place
        frame = frame.f_back
    return first

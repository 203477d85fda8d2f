"""Where a kernel thread stands in the kernel's source: suspended, or in the middle of a step.

Of the frames of a stack the innermost that DragonFly has too is the one to name: `pmap_enter`, not
the accessor of a PTE that it calls.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

_NAMES: Final = (
    "vm_", "pmap_", "vmspace_", "sys_", "kern_", "swap_", "vnode_", "tlb_", "cpu_", "trap", "run",
    "smp_", "madvise", "lwp_", "fault_", "go_user", "user_",
)  # fmt: skip


class Place(NamedTuple):
    """A function and its line, outermost caller first in a stack."""

    function: str
    where: str  # vkhost/vm/vm_fault.py:118


NOWHERE: Final = Place("", "")


def frames(coro: Any) -> list[FrameType]:
    """Of the functions a suspended coroutine is in, outermost first."""
    found = []
    while coro is not None:
        frame: FrameType | None = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if frame is None:
            break
        found.append(frame)
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)
    return found


@cache
def short(filename: str) -> str:
    """`vkhost/vm/vm_fault.py`, whatever the checkout or site-packages is called."""
    parts = Path(filename).parts
    ours = ("vkhost", "vkguest", "vkprotocol", "vkemu")
    for package in ours:
        if package in parts:
            at = len(parts) - 1 - parts[::-1].index(package)
            return "/".join(parts[at:])
    return parts[-1]


def here(coro: Any) -> Place:
    """The kernel function in which the next effect is awaited: of the stack, the innermost with a
    name of the kernel's, else the innermost."""
    found: FrameType | None = None
    first: FrameType | None = None
    for frame in reversed(frames(coro)):
        named = names_a_place(frame.f_code)
        if named:
            found = frame
            break
        if named is not None and first is None:
            first = frame
    chosen = found or first
    if chosen is None:
        return NOWHERE
    return Place(chosen.f_code.co_name, f"{short(chosen.f_code.co_filename)}:{chosen.f_lineno}")


@cache
def names_a_place(code: CodeType) -> bool | None:
    """Whether a function's name is one of the kernel's; None for the machinery of an effect."""
    # Frames of these are the machinery of an effect; the kernel's own line is the one above.
    machinery = ("vkprotocol/effects.py", "vkprotocol/step.py")
    if short(code.co_filename).endswith(machinery):
        return None
    return code.co_name.startswith(_NAMES)


def caller() -> Place:
    """The kernel function that is running, from inside an `emit` it called."""
    first = NOWHERE
    frame: FrameType | None = sys._getframe(1)
    kernel = ("vkhost/", "vkguest/")
    while frame is not None:
        name = short(frame.f_code.co_filename)
        if name.startswith(kernel):
            function = frame.f_code.co_name
            if function.startswith(_NAMES) or first is NOWHERE:
                place = Place(function, f"{name}:{frame.f_lineno}")
                if function.startswith(_NAMES):
                    return place
                first = place
        frame = frame.f_back
    return first

"""A budget of seconds that holds within an execution, too, and costs its steps nothing.

Whoever has a budget looks at the clock between executions. What lasts longer than that, a long
execution or code that never comes to an effect, is ended by the timer of the process: as Ctrl-C
would, in the main thread, where alone Python takes signals.

Both come as exceptions in the middle of a step, and may be kept there: who leaves `async with lock`
awaits first, a callback from C drops them. What such an execution does means nothing, so whoever
draws a conclusion from it looks whether it was `struck`.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

set_handler: Final = signal.signal  # an async program under search is refused it
GRACE: Final = 0.25  # seconds that an execution has to come to its end
STRUCK: Final[list[KeyboardInterrupt]] = []  # since the execution began


class TimeIsUp(KeyboardInterrupt):
    """The budget is used up. `place`: the line of a thread that has taken no step since."""

    def __init__(self, place: str = "") -> None:
        super().__init__()
        self.place = place


@contextmanager
def within(seconds: float | None, steps: Callable[[], object]) -> Iterator[None]:
    """Raise TimeIsUp in the body when it takes longer. `steps` changes with every step taken.

    Nothing where there is no such timer (Windows), where somebody else's rings before, or where the
    caller is not the main thread: the budget is then looked at between executions only.
    """
    if seconds is None or not is_free(seconds):
        yield
        return
    caller = sys._getframe(2)
    seen: list[object] = []
    over: list[bool] = []

    def ring(_: int, frame: FrameType | None) -> None:
        if over:
            return
        if not seen:
            seen.append(steps())
            return
        if in_collector(frame):
            return  # it would be dropped there, with a warning; this rings again
        STRUCK.append(TimeIsUp(place_of(frame, caller) if seen[0] == steps() else ""))
        raise STRUCK[-1]

    year = 3.2e7  # seconds: a timer takes no infinity
    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, min(max(seconds, 1e-3), year), GRACE)
    try:
        try:
            yield
        finally:
            over.append(True)
    finally:  # should it ring between the two
        over.append(True)
        if left:
            left = max(left - (time.monotonic() - began), 1e-3)
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def heeding() -> Iterator[None]:
    """Take note of Ctrl-C in the body, which else does what it did before."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def strike(number: int, frame: FrameType | None) -> None:
        STRUCK.append(KeyboardInterrupt())
        before(number, frame)

    set_handler(signal.SIGINT, strike)
    try:
        yield
    finally:
        set_handler(signal.SIGINT, before)


def if_struck() -> None:
    """Raise what an execution has kept to itself."""
    if STRUCK:
        raise STRUCK[-1]


def is_free(seconds: float) -> bool:
    if threading.current_thread() is not threading.main_thread():
        return False
    if not hasattr(signal, "setitimer"):
        return False
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    return not left or left > seconds + 2 * GRACE


def in_collector(frame: FrameType | None) -> bool:
    """Whether it is a callback of the garbage collector, as hypothesis has one."""
    callbacks = (getattr(callback, "__code__", None) for callback in gc.callbacks)
    return frame is not None and frame.f_code in callbacks


def place_of(frame: FrameType | None, caller: FrameType) -> str:
    """`file.py:12` of the innermost code below `caller` that is neither ours nor the library's."""
    ours = ("vkemu.", "vkhost.", "vkguest.", "vkprotocol.")
    while frame is not None and frame is not caller:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(ours) and name.partition(".")[0] not in sys.stdlib_module_names:
            file = frame.f_code.co_filename
            here = f"{Path.cwd()}/"
            return f"{file.removeprefix(here)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""

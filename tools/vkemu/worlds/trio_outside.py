"""What trio's loop finds in place of the outside: a clock, no I/O, no signals, and a run queue that
gives out the task it is told to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

import trio
from trio._core import _run


class Clock(trio.abc.Clock):
    def __init__(self) -> None:
        self.now = 0.0

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self.now


class NoIO:
    """In place of epoll: nothing of the real world ever happens."""

    def __init__(self, refuse: Callable[[str], NoReturn]) -> None:
        self.refuse = refuse

    def process_events(self, events: Any) -> None:
        pass

    def force_wakeup(self) -> None:
        pass

    def close(self) -> None:
        pass

    def statistics(self) -> None:
        return None

    async def wait_readable(self, fd: Any) -> None:
        self.refuse("the program waits for a real socket or file")

    wait_writable = wait_readable

    def notify_closing(self, fd: Any) -> None:
        pass


class Wakeup:
    """In place of a socket pair: one thread runs at a time."""

    def __init__(self) -> None:
        self.waiting: Any = None
        self.woken = False

    def wakeup_thread_and_signal_safe(self) -> None:
        self.woken = True
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting._runner.reschedule(waiting)

    async def wait_woken(self) -> None:
        def abort(_: Any) -> Any:
            self.waiting = None
            return trio.lowlevel.Abort.SUCCEEDED

        if not self.woken:
            self.waiting = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)
        self.woken = False

    def drain(self) -> None:
        pass

    def wakeup_on_signals(self) -> None:
        pass

    def close(self) -> None:
        pass


class NoKI:
    def install(self, *args: Any) -> None:
        pass

    def close(self) -> None:
        pass


class NoInstruments(dict[str, Any]):
    """Nobody watches trio's loop: whoever asks finds nothing."""


class RunQueue:
    """What trio takes for its deque of runnable tasks."""

    def __init__(self, woken: Callable[[Any], None]) -> None:
        self.tasks: dict[Any, None] = {}
        self.chosen: Any = None
        self.woken = woken

    def append(self, task: Any) -> None:
        self.tasks[task] = None
        self.woken(task)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Any:
        return iter((self.chosen,) if self.chosen is not None else ())

    def clear(self) -> None:
        if self.chosen is not None:
            del self.tasks[self.chosen]


# Until 0.31 a scope is cancelled for no reason.
CANCEL: Final = "_cancel" if hasattr(_run.CancelScope, "_cancel") else "cancel"


def strike(scope: Any) -> None:
    """A deadline passed."""
    if CANCEL == "cancel":
        scope.cancel()
    else:
        scope._cancel(_run.CancelReason(source="deadline"))

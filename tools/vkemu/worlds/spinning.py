"""Programs that ask for themselves again until something changes: `while not done: await sleep(0)`.

Each turn of such a loop is a step, and there is no end to them. Who spins waits until another
thread took a step: a callback that only asks for itself again, a task that yields where it yielded
before, some times in a row, its variables what they were.
"""

from __future__ import annotations

from typing import Any


class Spinning:
    """`waiting`: by id, callbacks that asked for themselves again; `idle`: threads that yielded
    where they were, and nothing happened since."""

    def __init__(self) -> None:
        self.waiting: dict[int, Any] = {}
        self.idle: set[int] = set()
        self.positions: dict[int, Any] = {}
        self.last = -1
        self.repeats = 0  # how often the last one yielded where it was
        self.running: Any = None

    def asked(self, handle: Any) -> None:
        """A callback is to be run: by one that is just the same?"""
        running = self.running
        if (
            running is not None
            and running._callback == handle._callback
            and running._args == handle._args
        ):
            self.waiting[id(handle)] = handle  # kept, or another would get its id

    def clear(self) -> None:
        self.waiting.clear()
        self.idle.clear()
        self.last = -1
        self.repeats = 0

    def first(self, queue: Any) -> Any:
        return next((handle for handle in queue if id(handle) not in self.waiting), queue[0])

    def without(self, found: list[int], callbacks: int, queues: dict[int, Any]) -> list[int]:
        """Those of the threads that do not spin, when there are such."""
        queue = queues.get(callbacks, ())
        if self.waiting and all(id(handle) in self.waiting for handle in queue):
            found = [tid for tid in found if tid != callbacks]
        if self.idle:
            patience = 8  # of one that is alone: what it does may end by what cannot be seen
            awake = [tid for tid in found if tid not in self.idle]
            if awake or self.repeats >= patience:
                found = awake
        return found

    def ran(self, handle: Any, tid: int, task: Any, queue: Any) -> None:
        """A handle was run. Did anything change?"""
        if not any(
            id(other) in self.waiting
            and other._callback == handle._callback
            and other._args == handle._args
            for other in queue
        ):
            self.waiting.clear()
        if task is None or over(task):
            self.idle.clear()
        else:
            here = position(task)
            same = self.last == tid and queue and self.positions.get(tid) == here
            self.repeats = self.repeats + 1 if same else 0
            if self.repeats >= 3:  # twice may be two of the same kind in a row
                self.idle.add(tid)
            else:
                self.idle.clear()
            self.positions[tid] = here
        self.last = tid


def over(task: Any) -> bool:
    """Not by asking it: that would be noted, and it is not the program that asks."""
    return bool(task._state != "PENDING")


def position(task: Any) -> Any:
    """Where it stands, and what its plain variables are."""
    coroutine = task.get_coro()
    found = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            break
        plain = tuple(
            (name, value)
            for name, value in frame.f_locals.items()
            if isinstance(value, (int, str, bool, type(None)))
        )
        found.append((id(frame.f_code), frame.f_lasti, plain))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return tuple(found)

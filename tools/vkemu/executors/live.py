"""The live executor: one anyio task per kernel thread, on trio or asyncio (uvloop if installed).

A `Live` is an `Execution` - the same threads, tids, guards, waiters and steps - in which the event
loop, or a recorded schedule, says who goes next:

* free: a task takes steps while its thread is runnable, and lets the loop run after every QUANTUM
  of them, so that I/O and the other tasks make progress;
* imposed (`schedule`): the tasks hand a baton on, in the order of the recorded tids. The same
  choices give the same events as under `Execution`, on either backend.

A thread that cannot go parks on an Event, set by whatever step (or `post`) made its guard hold.

Time, for deadlines: virtual by default, the clock moving only when no thread can run. With a
`time_scale` it is the event loop's clock, `time_scale` virtual seconds to a real one; that is the
only kind there is while something outside (`source`) may post, since the outside has no virtual
time. A free run in virtual time that was recorded (`record=True`) replays under `Execution`.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from importlib.util import find_spec
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from vkprotocol.effects import CLOCK, CURTHREAD, Body, Effect, Mailbox, Shared, Thread

from vkemu.executors.controlled import Execution, StepBound, Tids
from vkemu.executors.hung_task import HungTasks

T = TypeVar("T")

BACKENDS: Final = ("trio", "asyncio")
QUANTUM: Final = 256  # steps a task takes before it lets the event loop run
NS: Final = 1_000_000_000


class ScheduleError(AssertionError):
    """The imposed schedule names a thread that cannot run, or ends too early: another program."""


class Live(Execution):
    """One live execution. Invariant: a task is parked only while it may not take a step."""

    def __init__(
        self,
        tids: Tids | None = None,
        *,
        schedule: Iterable[int] | None = None,
        time_scale: float | None = None,
        max_steps: int | None = None,
        record: bool = False,
    ) -> None:
        super().__init__(tids)
        self.time_scale = time_scale
        self.max_steps = sys.maxsize if max_steps is None else max_steps
        self.steps = 0
        self.schedule = array("H") if record else None  # the tids, step by step
        self.clock = 0  # CLOCK between our steps: another Live may share the process
        self.sources: list[Callable[[], bool]] = []  # what is outside: will it still post?
        self.hung_tasks: HungTasks | None = None  # looked for while it runs, when set
        self._imposed = None if schedule is None else iter(schedule)
        self._baton: int | None = None
        self._parked: dict[int, anyio.Event] = {}
        self._joined: dict[int, anyio.Event] = {}
        self._timers: list[tuple[int, int]] = []
        self._timer_added = anyio.Event()
        self._epoch = 0.0
        self._group: TaskGroup | None = None
        self._ended: anyio.Event | None = None
        self.over = False
        self._error: BaseException | None = None

    async def run(self) -> None:  # type: ignore[override]
        """Run until every thread that is no daemon is done, or `stop`.

        Raises what `Execution.run` raises, besides ScheduleError.
        """
        assert self._ended is None, "an execution runs once"
        self._ended = anyio.Event()
        self._epoch = anyio.current_time()
        async with anyio.create_task_group() as group:
            self._group = group
            for thread in list(self.threads.values()):
                group.start_soon(self._drive, thread, name=thread.name)
            if self.time_scale is not None:
                group.start_soon(self._tick, name="clock")
            if self.hung_tasks is not None:
                group.start_soon(self.hung_tasks.watch, name="hung tasks")
            self._settle()
            if self._imposed is not None:
                self._pass_baton()
            if not self.over:
                await self._ended.wait()
            group.cancel_scope.cancel()
        if self._error is not None:
            raise self._error

    def spawn(self, name: str, coro: Body, *, daemon: bool = False) -> Thread:
        """As `Execution.spawn`; from outside any kernel thread too, while running."""
        CLOCK[0] = self.clock
        thread = super().spawn(name, coro, daemon=daemon)
        if self._group is not None and not self.over:
            self._group.start_soon(self._drive, thread, name=name)
            if CURTHREAD[0] is None:
                self._settle()
        return thread

    def post(self, mailbox: Mailbox, message: Any) -> None:
        """Send from outside any kernel thread; whoever waits for mail can go on."""
        mailbox.queue.append(message)
        mailbox.state = len(mailbox.queue)
        self.changed(mailbox)

    def changed(self, obj: Shared) -> None:
        """`obj` was changed from outside any kernel thread: look at its waiters again."""
        if obj.waiters:
            CLOCK[0] = self.clock
            self._recheck(obj.waiters)

    @contextmanager
    def source(self, expected: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """While inside, something outside may post: threads that wait are in no deadlock, unless
        all of them wait and nothing is `expected`.

        The run still ends when no thread is left; one that waits for a last post keeps it going.
        """
        if self.time_scale is None:
            raise ValueError("an I/O source needs a time_scale: the outside has no virtual time")
        self.sources.append(expected)
        try:
            yield
        finally:
            self.sources.remove(expected)
            self._settle()

    async def join(self, thread: Thread) -> None:
        """Wait, outside any kernel thread, until `thread` is done; raises what ended it."""
        while not thread.done and not self.over:
            await self._joined.setdefault(thread.tid, anyio.Event()).wait()
        if thread.error is not None:
            raise thread.error
        if not thread.done:
            raise self._error or RuntimeError(f"the run ended before {thread.name}")

    def stop(self, error: BaseException | None = None) -> None:
        """End the run from outside; `run` raises `error` if given."""
        if not self.over:
            self._finish(error)

    async def _drive(self, thread: Thread) -> None:
        tid = thread.tid
        taken = 0
        while not thread.done and not self.over:
            if self._baton != tid if self._imposed is not None else not thread.runnable:
                self._parked[tid] = anyio.Event()
                await self._parked[tid].wait()
                self._read_clock()
                taken = 0
                continue
            self._take(tid)
            if self._imposed is not None:
                self._pass_baton()
            taken += 1
            if taken == QUANTUM:
                taken = 0
                await anyio.lowlevel.checkpoint()
                self._read_clock()

    def _take(self, tid: int) -> None:
        CLOCK[0] = self.clock
        self.steps += 1
        if self.schedule is not None:
            self.schedule.append(tid)
        self.step(tid)
        CURTHREAD[0] = None
        if self.failed is not None or not self.runnable or self.steps >= self.max_steps:
            self._settle()

    def _settle(self) -> None:
        """After a step, or a change from outside: is it over? If all wait for time, let it pass."""
        if self._ended is None or self.over:
            return
        if self.failed is not None:
            self._finish(self.failed.error)
        elif not self.runnable and not self._goes_on():
            self._finish(self.deadlock())
        elif self.steps >= self.max_steps and self.runnable:
            self._finish(StepBound(f"no end within {self.max_steps} steps"))

    def _goes_on(self) -> bool:
        """No thread can run: will one, by a post or in time? Virtual time passes here and now."""
        if self.time_scale is not None:
            if self.alive == 0:
                return False
            return any(expected() for expected in self.sources) or self._next_deadline() is not None
        CLOCK[0] = self.clock
        advanced = self.advance()
        self.clock = CLOCK[0]
        return advanced

    def _finish(self, error: BaseException | None) -> None:
        self._error = error
        self.over = True
        if self._ended is not None:
            self._ended.set()
        for event in self._joined.values():
            event.set()

    def _end(self, thread: Thread) -> None:
        super()._end(thread)
        event = self._joined.pop(thread.tid, None)
        if event is not None:
            event.set()

    def _mark(self, thread: Thread, runnable: bool) -> None:
        super()._mark(thread, runnable)
        if runnable and self._imposed is None:
            self._wake(thread.tid)

    def parked(self, tid: int) -> anyio.Event | None:
        """What its task waits for: another one each time. None: it goes on."""
        return self._parked.get(tid)

    def _wake(self, tid: int) -> None:
        event = self._parked.pop(tid, None)
        if event is not None:
            event.set()

    def _pass_baton(self) -> None:
        if self.over:
            return
        assert self._imposed is not None
        tid = next(self._imposed, None)
        if tid is None or tid not in self.runnable:
            what = "ends" if tid is None else f"names thread {tid}, which cannot run,"
            self._finish(ScheduleError(f"the schedule {what} after {self.steps} steps"))
            return
        self._baton = tid
        self._wake(tid)

    # Real time.

    def _await(self, thread: Thread, effect: Effect) -> None:
        super()._await(thread, effect)
        if effect.deadline is not None and self.time_scale is not None:
            heappush(self._timers, (effect.deadline, thread.tid))
            if self._timers[0] == (effect.deadline, thread.tid):
                self._timer_added.set()

    def _read_clock(self) -> None:
        if self.time_scale is not None:
            now = int((anyio.current_time() - self._epoch) * self.time_scale * NS)
            self.clock = max(self.clock, now)

    def _next_deadline(self) -> int | None:
        """The earliest deadline some thread still waits for."""
        timers = self._timers
        while timers:
            deadline, tid = timers[0]
            pending = self.threads[tid].pending
            if pending is not None and pending.deadline == deadline:
                return deadline
            heappop(timers)
        return None

    async def _tick(self) -> None:
        """Let deadlines pass as real time does."""
        assert self.time_scale is not None
        while True:
            self._timer_added = anyio.Event()
            deadline = self._next_deadline()
            delay = float("inf")
            if deadline is not None:
                delay = max(0, deadline - self.clock) / NS / self.time_scale
            with anyio.move_on_after(delay):
                await self._timer_added.wait()
            self._read_clock()
            CLOCK[0] = self.clock
            due = []
            while (deadline := self._next_deadline()) is not None and deadline <= self.clock:
                due.append(self.threads[heappop(self._timers)[1]])
            self._recheck(due)
            self._settle()


def run_live(
    build: Callable[[Live], T],
    backend: str = "trio",
    *,
    schedule: Iterable[int] | None = None,
    time_scale: float | None = None,
    max_steps: int | None = None,
    record: bool = False,
    checking: bool = False,
) -> tuple[Live, T]:
    """Build a program with `build(live)`, which spawns, and run it to its end.

    Returns the execution and what `build` returned; raises what `Execution.run` raises.
    """

    live = Live(schedule=schedule, time_scale=time_scale, max_steps=max_steps, record=record)
    live.checking = checking
    built = build(live)
    try:
        on_backend(backend, live.run)
    finally:
        live.close()
    return live, built


def on_backend(backend: str, main: Callable[[], Awaitable[T]]) -> T:
    """anyio.run, with uvloop under asyncio where it is installed."""
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}, there are {', '.join(BACKENDS)}")
    options = {}
    if backend == "asyncio" and find_spec("uvloop") is not None:
        options["use_uvloop"] = True
    return anyio.run(main, backend=backend, backend_options=options)

"""The live executor: kernel threads beside an event loop, trio or asyncio (uvloop if installed).

A `Live` is an `Execution` - the same threads, tids, guards, waiters and steps - in which one task
of the event loop takes the steps:

* free: whose turn it is says a run queue (`run_queue.py`); after SLICE_NS the event loop gets its
  turn, so that I/O makes progress. What comes from outside (`deliver`) is worked on at once, in the
  task that brings it, when nothing else is to be done;
* imposed (`schedule`): in the order of the recorded tids. The same choices give the same events as
  under `Execution`, on either backend.

Time, for deadlines: virtual by default, the clock moving only when no thread can run. With a
`time_scale` it is the event loop's clock, `time_scale` virtual seconds to a real one; that is the
only kind there is while something outside (`source`) may post, since the outside has no virtual
time. A free run in virtual time counts a turn in steps and not in nanoseconds, and so depends on
its `seed` alone; it was recorded (`record=True`) if it is to replay under `Execution`.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from random import Random
from time import perf_counter_ns
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint
from vkprotocol.effects import CLOCK, CURTHREAD, Body, Effect, Mailbox, Shared, Thread

from vkemu.executors.controlled import Execution, StepBound, Tids
from vkemu.executors.hung_task import HungTasks
from vkemu.executors.run_queue import Account, RunQueue

QUANTUM: Final = 256  # steps a thread takes before another one of its account does
NS: Final = 1_000_000_000


class ScheduleError(AssertionError):
    """The imposed schedule names a thread that cannot run, or ends too early: another program."""


class Live(Execution):
    """One live execution.

    Invariant: a thread that can run, and has not the turn, is in the run queue. With real time
    nothing is kept of a thread that has ended.
    """

    def __init__(
        self,
        tids: Tids | None = None,
        *,
        schedule: Iterable[int] | None = None,
        time_scale: float | None = None,
        max_steps: int | None = None,
        record: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(tids)
        self.time_scale = time_scale
        if time_scale is not None:
            self._late = sys.maxsize  # time passes by itself
        self.max_steps = sys.maxsize if max_steps is None else max_steps
        self.steps = 0
        self.schedule = array("H") if record else None  # the tids, step by step
        self.now = 0.0  # of the event loop, when it was last looked at
        self.clock = 0  # CLOCK between our steps: another Live may share the process
        self.sources: list[Callable[[], bool]] = []  # what is outside: will it still post?
        self.hung_tasks: HungTasks | None = None  # looked for while it runs, when set
        # Asked when a thread fails, outside any thread: is it dealt with, so that the run goes on?
        self.on_failure: Callable[[Thread], bool] | None = None
        self.run_queue = RunQueue()
        self.over = False
        self._imposed = None if schedule is None else iter(schedule)
        self._random = None if seed is None else Random(seed)
        self._spent = self._steps_ns if time_scale is None else perf_counter_ns
        self._given = 0  # tids, in real time
        self._turns: dict[int, int] = {}  # tid -> at which step it last got its turn
        self._joined: dict[int, anyio.Event] = {}
        self._at_slice_end: list[Callable[[], None]] = []
        self._in_slice = False
        self._timers: list[tuple[int, int]] = []
        self._timer_added = anyio.Event()
        self._epoch = 0.0
        self._running = False
        self._idle: anyio.Event | None = None  # set when there is something to do again
        self._error: BaseException | None = None

    async def run(self) -> None:  # type: ignore[override]
        """Run until every thread that is no daemon is done, or `stop`.

        Raises what `Execution.run` raises, besides ScheduleError.
        """
        assert not self._running, "an execution runs once"
        self._running = True
        self._epoch = anyio.current_time()
        async with anyio.create_task_group() as group:
            if self.time_scale is not None:
                group.start_soon(self._tick, name="clock")
            if self.hung_tasks is not None:
                group.start_soon(self.hung_tasks.watch, name="hung tasks")
            self._settle()
            await (self._take_turns() if self._imposed is None else self._impose(self._imposed))
            group.cancel_scope.cancel()
        if self._error is not None:
            raise self._error

    def spawn(self, name: str, coro: Body, *, daemon: bool = False) -> Thread:
        """As `Execution.spawn`; from outside any kernel thread too, while running."""
        CLOCK[0] = self.clock
        thread = super().spawn(name, coro, daemon=daemon)
        if CURTHREAD[0] is None:
            self._settle()
        return thread

    def charge(self, thread: Thread, account: Account) -> None:
        """From now on the turns of `thread` are those of `account`."""
        if not thread.done:
            self.run_queue.of[thread.tid] = account
            if thread.runnable:
                self.run_queue.add(thread.tid)

    def post(self, mailbox: Mailbox, message: Any) -> None:
        """Send from outside any kernel thread; whoever waits for mail can go on."""
        mailbox.queue.append(message)
        mailbox.state = len(mailbox.queue)
        self.changed(mailbox)

    def deliver(self, mail: Iterable[tuple[Mailbox, Any]]) -> None:
        """Post it all, and let the threads take the steps it leads to now, when they have nothing
        else to do: an answer may be on its way when this returns."""
        idle, self._idle = self._idle, None
        for mailbox, message in mail:
            self.post(mailbox, message)
        if idle is None:
            return
        self._read_clock()
        if self._slice() or self.over:
            idle.set()
        else:
            self._idle = idle

    def at_slice_end(self, call: Callable[[], None]) -> bool:
        """Call it once the steps that are being taken are taken; False: none are."""
        if self._in_slice:
            self._at_slice_end.append(call)
        return self._in_slice

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

    async def _take_turns(self) -> None:
        while not self.over:
            if self._slice():
                await checkpoint()
            elif not self.over:
                self._idle = anyio.Event()
                await self._idle.wait()
            self._read_clock()

    def _slice(self) -> bool:
        """Turns until nobody can go, or SLICE_NS; whether there is more to do."""
        self._in_slice = True
        queue, spent = self.run_queue, self._spent
        slice_ns = 2_000_000  # of steps before the event loop gets its turn
        end = spent() + slice_ns
        while not self.over and (account := queue.next()) is not None:
            self._turn(account)
            queue.done(account)
            if spent() >= end:
                break
        self._in_slice = False
        calls, self._at_slice_end = self._at_slice_end, []
        for call in calls:
            call()
        return not self.over and account is not None

    def _turn(self, account: Account) -> None:
        """Steps of the account's threads until it has used what it may, or none can go on."""
        ready, threads, host = account.ready, self.threads, self.run_queue.host
        quantum = QUANTUM
        now = began = self._spent()
        end = began + account.deficit
        while ready and now < end and not self.over:
            if self._random is not None:
                ready.rotate(self._random.randrange(len(ready)))
                quantum = self._random.randint(1, QUANTUM)
            tid = ready.popleft()
            thread = threads.get(tid)
            if thread is None or not thread.runnable:
                continue
            self._turns[tid] = self.steps
            now = self._take(thread, quantum, end)
            if thread.runnable:
                ready.append(tid)
            if host.ready and account is not host:
                break
        account.deficit = end - now
        account.used += now - began

    def _steps_ns(self) -> int:
        return self.steps * 4_000  # what a step is taken to cost when there is no real time

    async def _impose(self, schedule: Iterator[int]) -> None:
        while not self.over:
            tid = next(schedule, None)
            if tid is None or tid not in self.runnable:
                what = "ends" if tid is None else f"names thread {tid}, which cannot run,"
                self._finish(ScheduleError(f"the schedule {what} after {self.steps} steps"))
                return
            self._take(self.threads[tid])
            if not self.steps % QUANTUM:
                await checkpoint()

    def _take(self, thread: Thread, quantum: int = 1, end: int = sys.maxsize) -> int:
        """`step` spelt out, so many times while it can, and until `end`; what time it is then."""
        CLOCK[0] = self.clock
        spent, schedule = self._spent, self.schedule
        for _ in range(quantum):
            if self.steps >= self._late:
                self.goes_on(self.steps)
                self.clock = CLOCK[0]
            self.steps += 1
            if schedule is not None:
                schedule.append(thread.tid)
            effect = thread.pending
            obj = effect.obj  # type: ignore[union-attr]
            CURTHREAD[0] = thread
            try:
                upcoming = thread.coro.send(thread)
                guarded = upcoming.guard is not None
                if effect.guard is not None:  # type: ignore[union-attr]
                    self._leave(thread, effect)  # type: ignore[arg-type]
                if guarded:
                    self._await(thread, upcoming)
                else:
                    thread.pending = upcoming
            except StopIteration:
                if effect.guard is not None:  # type: ignore[union-attr]
                    self._leave(thread, effect)  # type: ignore[arg-type]
                self._end(thread)
            except BaseException as error:
                self._stop(thread, effect, error)  # type: ignore[arg-type]
            if obj.waiters:
                self._recheck(obj.waiters)
            CURTHREAD[0] = None
            if self.failed is not None or not self.runnable or self.steps >= self.max_steps:
                self._settle()
            now = spent()
            if not thread.runnable or now >= end or self.over:
                break
        return now

    def _settle(self) -> None:
        """After a step, or a change from outside: is it over? If all wait for time, let it pass."""
        if not self._running or self.over:
            return
        if self.failed is not None:
            failed, self.failed = self.failed, None
            if self.on_failure is None or not self.on_failure(failed):
                self._finish(failed.error)
                return
        if not self.runnable and not self._goes_on():
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
        if self._idle is not None:
            self._idle.set()
        for event in self._joined.values():
            event.set()

    def _number(self, path: tuple[int, ...]) -> int:
        if self.time_scale is None:
            return super()._number(path)
        self._given += 1  # nothing is run again
        return self._given - 1

    def _end(self, thread: Thread) -> None:
        super()._end(thread)
        tid = thread.tid
        event = self._joined.pop(tid, None)
        if event is not None:
            event.set()
        self._turns.pop(tid, None)
        self.run_queue.of.pop(tid, None)
        if self.time_scale is not None:
            del self.threads[tid]

    def _mark(self, thread: Thread, runnable: bool) -> None:
        if runnable is thread.runnable:
            return
        super()._mark(thread, runnable)
        if runnable and self._imposed is None:
            self.run_queue.add(thread.tid)
            if self._idle is not None:
                self._idle.set()
                self._idle = None

    def waiting_since(self, thread: Thread) -> int | None:
        """At which step it last got its turn; None: it can go on."""
        return None if thread.runnable or thread.done else self._turns.get(thread.tid, -1)

    # Real time.

    def _await(self, thread: Thread, effect: Effect) -> None:
        super()._await(thread, effect)
        if effect.deadline is not None and self.time_scale is not None:
            heappush(self._timers, (effect.deadline, thread.tid))
            if self._timers[0] == (effect.deadline, thread.tid):
                self._timer_added.set()

    def _read_clock(self) -> None:
        if self.time_scale is not None:
            self.now = anyio.current_time()
            now = int((self.now - self._epoch) * self.time_scale * NS)
            self.clock = max(self.clock, now)

    def _next_deadline(self) -> int | None:
        """The earliest deadline some thread still waits for."""
        timers = self._timers
        while timers:
            deadline, tid = timers[0]
            thread = self.threads.get(tid)
            pending = None if thread is None else thread.pending
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

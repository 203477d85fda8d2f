"""Trio's own run loop, driven one step of one task at a time.

`unrolled_run` is the generator that guest mode uses: each send is one turn of the loop. Its run
queue is ours and gives out one task a turn, its clock is virtual, its I/O is `network`'s. A step is
one task from one checkpoint to the next. Deadlines, calls in worker threads and `wait_all_tasks_
blocked` are threads of their own. What trio's core touches `trio_hooks` notes.
"""

from __future__ import annotations

import contextvars
import math
import warnings
from typing import Any

import outcome
import trio
from sniffio import thread_local as sniffio_library
from trio._core import _run
from trio._core._entry_queue import EntryQueue
from trio._core._parking_lot import GLOBAL_PARKING_LOT_BREAKER
from vkprotocol.effects import Thread

from vkemu.exploration.reduction.footprint import Footprint
from vkemu.worlds.instrumenting import reach
from vkemu.worlds.noting import HERE, LOG, name_all, touch
from vkemu.worlds.trio_network import Resolver, Sockets
from vkemu.worlds.trio_outside import (
    Clock,
    NoInstruments,
    NoIO,
    NoKI,
    RunQueue,
    Wakeup,
    strike,
)
from vkemu.worlds.waiting import place_of, standing
from vkemu.worlds.workers import Worker
from vkemu.worlds.world import Unsupported, World, leaf


class TrioWorld(World):
    current: TrioWorld | None = None

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.system: set[Any] = set()
        self.status: dict[Any, Any] = {}  # by scope: its cancel status, when it got its deadline
        self.closing: Any = None  # the nursery whose last child just ended
        self.closed: dict[int, Any] = {}  # by its parent's thread, until that goes on
        self.exits: dict[Any, int] = {}  # by nursery: the events its children ended in
        self.expiring: Any = None
        self.begun = False
        # By id of an error: the task that it came from, and the error.
        self.raised: dict[int, tuple[Thread, BaseException]] = {}
        self.gen: Any = None
        self.start()

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        if TrioWorld.current is not None:
            TrioWorld.current.close()
        TrioWorld.current = self
        self.library, sniffio_library.name = sniffio_library.name, "trio"
        GLOBAL_PARKING_LOT_BREAKER.clear()
        self.clock = Clock()
        LOG.name(self.clock)
        self.runq = RunQueue(self.woken)
        self.runner = _run.Runner(
            clock=self.clock,
            instruments=NoInstruments(),  # type: ignore[arg-type]
            io_manager=NoIO(self.refuse),  # type: ignore[arg-type]
            ki_manager=NoKI(),  # type: ignore[arg-type]
            system_context=contextvars.copy_context(),
            strict_exception_groups=True,
            runq=self.runq,  # type: ignore[arg-type]
            entry_queue=EntryQueue(wakeup=Wakeup()),  # type: ignore[arg-type]
        )
        self.runner.asyncgens.install_hooks(self.runner)
        _run.GLOBAL_RUN_CONTEXT.runner = self.runner
        trio.socket.set_custom_socket_factory(Sockets(self))
        trio.socket.set_custom_hostname_resolver(Resolver())
        main = self.cancellable(self.main) if self.cancel == "everywhere" else self.main
        self.gen = _run.unrolled_run(self.runner, main, (), host_uses_signal_set_wakeup_fd=True)
        self.gen.send(None)
        HERE.on = self.tracking
        for kept in (self.runner._locals, self.runner.current_trio_token()):  # of nobody's making
            name_all(kept)
        self.run_system()
        self.begun = True
        self.idle = self.born("idle")

    def run_system(self) -> None:
        """Let trio's own tasks run: they wait for nobody's turn."""
        while not self.ended:
            task = next((task for task in self.runq.tasks if task in self.system), None)
            if task is None:
                break
            on, HERE.on = HERE.on, False
            try:
                self.turn_loop(task)
            finally:
                HERE.on = on

    def turn_loop(self, task: Any) -> None:
        """One turn of trio's loop, with this task, or with none."""
        self.runq.chosen = task
        try:
            self.gen.send([])
        except StopIteration:
            self.ended = True
        finally:
            self.runq.chosen = None

    def close(self) -> None:
        super().close()
        if TrioWorld.current is not self:
            return
        HERE.on = self.tracking = False
        self.acting = None
        for worker in self.workers.values():
            worker.give_up()
        if not self.ended:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.give_up()
        TrioWorld.current = None
        sniffio_library.name = self.library
        _run.GLOBAL_RUN_CONTEXT.__dict__.clear()
        for thread in self.threads.values():
            thread.done = True

    def give_up(self) -> None:
        """Cancel everything, and let it end."""
        cleanup_turns = 20_000
        try:
            main = self.runner.main_task
            if main is not None and main._parent_nursery is not None:
                main._parent_nursery.cancel_scope.cancel()
                for _ in range(cleanup_turns):
                    if self.ended or not (self.runq.tasks or self.timers):
                        break
                    if self.runq.tasks:
                        self.turn_loop(next(iter(self.runq.tasks)))
                    else:
                        scope = min(self.timers, key=lambda scope: scope._registered_deadline)
                        del self.timers[scope]
                        strike(scope)
        except BaseException:  # of a program that is cut off in the middle
            pass
        if not self.ended:
            self.gen.close()

    # -- what trio tells us ------------------------------------------------------------------------

    def spawned(self, task: Any, *, system: bool) -> None:
        if system:
            self.system.add(task)
            return
        thread = self.born("", task.coro)
        name = task.name.rpartition(".")[2]
        thread.name = name + "".join(f".{n}" for n in thread.path[1:])
        self.of_task[task] = thread
        self.task_of[thread.tid] = task
        LOG.name(task)
        reach(task.coro)

    def woken(self, task: Any) -> None:
        thread = self.of_task.get(task)
        if thread is not None and self.at >= 0:
            if self.closing is None:
                touch(task, "_abort_func", write=True)
            self.wake(thread.tid)

    def exited(self, task: Any, result: Any) -> None:
        thread = self.of_task.get(task)
        if thread is None:
            return
        error = result.error if isinstance(result, outcome.Error) else None
        if error is not None:
            self.raised.setdefault(id(leaf(error)), (thread, leaf(error)))
        self.over(thread, error)

    def job(self, run: Any, drop: Any) -> None:
        """A call in a worker thread: a step at any time, and more when it calls back."""
        owner = self.acting
        thread = self.born("")
        thread.name = f"thread {thread.path[-1]} of {owner.name if owner else 'nobody'}"
        self.workers[thread.tid] = Worker(run, drop)
        self.wake(thread.tid)

    def cancellable(self, function: Any) -> Any:
        """The function in a scope that may be cancelled at every checkpoint, once."""

        async def cancelled(*args: Any) -> Any:
            with trio.CancelScope() as scope:
                thread = self.born("cancel")
                self.cancels[thread.tid] = scope
                try:
                    return await function(*args)
                finally:
                    self.cancels.pop(thread.tid, None)
                    self.offered_until_now(thread, scope)
            return None

        cancelled.__name__ = cancelled.__qualname__ = getattr(function, "__name__", "cancelled")
        cancelled.__module__ = getattr(function, "__module__", __name__)
        return cancelled

    def offered_until_now(self, thread: Thread, scope: Any) -> None:
        """It was not cancelled, and could have been before this step."""
        if self.at >= 0 and not thread.done:
            self.might.append((self.at, thread.tid, self.codes_of(scope, None), 0))

    # -- steps -------------------------------------------------------------------------------------

    def enabled(self) -> list[int]:
        of_task = self.of_task
        found = [of_task[task].tid for task in self.runq.tasks if task in of_task]
        found += [tid for tid, worker in self.workers.items() if worker.ready()]
        found += self.network.under_way()
        found += self.network.mishaps
        found += [tid for tid, scope in self.cancels.items() if not scope._cancel_called]
        waits = self.runner.waiting_for_idle
        if self.timers:
            live = self.live()
            first = min((scope._registered_deadline for scope in live), default=math.inf)
            # What is due may strike at any time; time passes for it when nobody can run.
            if first <= self.clock.now or (
                (self.time == "any" or not found) and (found or not waits)
            ):
                found += [
                    self.timers[scope].tid for scope in live if scope._registered_deadline == first
                ]
        if not found and waits:
            found.append(self.idle.tid)
        found.sort()
        return found

    def act(self, thread: Thread) -> int:
        must = self.barrier
        tid = thread.tid
        task = self.task_of.get(tid)
        if task is not None:
            if self.tracking:
                LOG.note(task._cancel_status, "effectively_cancelled", False)
                LOG.note(task, "_abort_func", True)
                nursery = self.closed.pop(tid, None)
                if nursery is not None:
                    LOG.note(nursery, "_closed", True)
            self.turn_loop(task)
            if self.tracking and task._cancel_status is not None:
                LOG.note(task._cancel_status, "effectively_cancelled", False)
        elif tid in self.workers:
            worker = self.workers[tid]
            if worker.step():
                del self.workers[tid]
                self.over(thread)
        elif tid in self.network.posted:
            must |= self.network.step(thread)
        elif tid in self.network.mishaps:
            self.network.reset(thread)
        elif tid in self.cancels:
            self.over(thread)
            self.cancels.pop(tid).cancel()
        else:
            must |= self.pass_time(thread)
        self.run_system()
        if self.refused:
            raise Unsupported(self.refused)
        if self.ended and task is not None:
            self.finish()
        return must

    def strikes(self, deadline: float) -> bool:
        """Whether a deadline, the first of those there are, may pass while others can run."""
        return self.tracking and (self.time == "any" or deadline <= self.clock.now)

    def live(self) -> list[Any]:
        """Scopes whose deadline would change something."""
        status = self.status
        return [scope for scope in self.timers if not status[scope].effectively_cancelled]

    def pass_time(self, thread: Thread) -> int:
        """A deadline passes, or all are seen to be blocked. The events that come before it."""
        here = self.at
        must = 0
        if thread is self.idle:
            self.barrier = 1 << here
            self.turn_loop(None)
            return (1 << here) - 1
        scope = next(scope for scope, timer in self.timers.items() if timer is thread)
        deadline = scope._registered_deadline
        passes = deadline > self.clock.now
        if passes and self.time != "any":
            must = (1 << here) - 1
            self.barrier = 1 << here
            for other in self.live():  # which may as well be the first
                if other is not scope and other._registered_deadline == deadline:
                    codes = self.codes_of(other, deadline)
                    self.might.append((here, self.timers[other].tid, codes, must))
        must |= self.past_of(scope, deadline)
        self.could_come_earlier(scope, thread.tid, deadline)
        touch(self.clock, "now", write=passes)
        self.clock.now = max(self.clock.now, deadline)
        self.expiring = scope
        strike(scope)
        self.expiring = None
        return must

    def past_of(self, scope: Any, deadline: float, *, without: int = -1) -> int:
        """The events that a deadline comes after: what set it, and how earlier ones ended."""
        must = self.registered[scope]
        for when, events, setting in self.gone:
            if when < deadline and setting != without:
                must |= events
        return must

    def could_come_earlier(self, scope: Any, tid: int, deadline: float) -> None:
        """What set an earlier deadline could have come after this one."""
        if self.time == "any" and self.tracking:
            live = [(x._registered_deadline, 0, self.registered[x]) for x in self.live()]
            for when, _, setting in [*self.gone, *live]:
                if when < deadline and setting:
                    past = self.past_of(scope, deadline, without=setting)
                    first = setting.bit_length() - 1
                    self.might.append((first, tid, self.codes_of(scope, deadline), past))

    def codes_of(self, scope: Any, deadline: float | None) -> Footprint:
        """What a deadline touches when it passes; or what cancels, when there is none."""
        number = self.objects.number_of
        status = self.status.get(scope) or scope._cancel_status
        places = [(scope, "_cancel_called", 1), (status, "effectively_cancelled", 1)]
        if deadline is not None:
            places.append((self.clock, "now", deadline > self.clock.now))
        return tuple(sorted(2 * number((LOG.name(x), field)) + write for x, field, write in places))

    def finish(self) -> None:
        self.network.over()
        result = self.runner.main_task_outcome
        if isinstance(result, outcome.Error):
            error = leaf(result.error)
            thread, _ = self.raised.get(id(error)) or (next(iter(self.of_task.values())), None)
            self.fail(thread, error)
        elif result is not None:
            self.outcome = result.unwrap()

    # -- words -------------------------------------------------------------------------------------

    def place(self, thread: Thread) -> tuple[str, int]:
        task = self.task_of.get(thread.tid)
        return ("?", 0) if task is None or thread.done else place_of(task.coro)

    def stuck(self) -> str:
        names = {task: thread.name for task, thread in self.of_task.items()}
        left = [thread for task, thread in self.of_task.items() if task in self.runner.tasks]
        return "; ".join(
            standing(thread.name, self.task_of[thread.tid].coro, names) for thread in left
        )

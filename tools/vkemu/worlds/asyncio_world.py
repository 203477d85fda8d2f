"""An asyncio event loop that is driven one handle at a time.

Tasks and futures are asyncio's own, the Python ones, so that what they touch can be seen. Each task
is a thread; timers and calls in executors are too; plain callbacks are one thread together, in
their order. Two rules say who may go on:

* `arrival`: what asyncio promises stays. Wakeups and callbacks run in the order they were asked
  for. What starts a task, passes a deadline or ends a call in an executor comes from outside, and
  may be as late as it likes; but it does not overtake what was asked for before it.
* `any`: any task that is ready, in any order.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import deque
from collections.abc import Iterable
from typing import Any

from sniffio import thread_local as sniffio_library
from vkprotocol.effects import Thread

from vkemu.worlds.accesses import WRITTEN
from vkemu.worlds.asyncio_loop import Loop, PyTask
from vkemu.worlds.asyncio_network import Transport
from vkemu.worlds.asyncio_timers import Timers
from vkemu.worlds.calls import called
from vkemu.worlds.instrumenting import reach
from vkemu.worlds.noting import HERE, LOG, touch
from vkemu.worlds.spinning import Spinning, over
from vkemu.worlds.waiting import own, place_of, standing
from vkemu.worlds.workers import Worker
from vkemu.worlds.world import Unsupported, leaf


class AsyncioWorld(Timers):
    current: AsyncioWorld | None = None

    def __init__(self, *given: Any, order: str, **options: Any) -> None:
        super().__init__(*given, **options)
        self.order = order
        self.queues: dict[int, deque[Any]] = {}  # by thread: its handles
        self.woken: dict[int, int] = {}  # by id of a handle: the event that asked for it
        self.seq = 0
        self.seqs: dict[int, int] = {}  # by id of a handle: when it was asked for
        self.inner: dict[int, tuple[Any, int]] = {}  # by seq: what keeps its order, and its thread
        self.ran: list[tuple[int, int]] = []  # of those that ran: seq, event
        self.notes: list[Any] = []  # what went to the loop's exception handler
        self.spinning = Spinning()
        self.ending = False
        self.left_some = False  # tasks, when main was done
        self.done = 0  # the events in which tasks ended
        self.start()

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        if AsyncioWorld.current is not None:
            AsyncioWorld.current.close()
        AsyncioWorld.current = self
        self.library, sniffio_library.name = sniffio_library.name, "asyncio"
        self.running = asyncio._get_running_loop()
        self.loop = Loop(self)
        LOG.name(self.loop)
        asyncio._set_running_loop(self.loop)
        self.generators = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(
            firstiter=self.loop._asyncgen_firstiter_hook,
            finalizer=self.loop._asyncgen_finalizer_hook,
        )
        HERE.on = self.tracking
        self.task = self.loop.create_task(self.main())
        self.callbacks = self.born("callbacks")
        self.end = self.born("end")

    def close(self) -> None:
        super().close()
        if AsyncioWorld.current is not self:
            return
        HERE.on = self.tracking = False
        self.acting = None
        for worker in self.workers.values():
            worker.give_up()
        self.give_up()
        for task in self.of_task:
            task._log_destroy_pending = False
            task._Future__log_traceback = False
        for transport in self.loop.transports:
            transport.closing = True  # or whoever has it would complain
        self.loop._closed = True
        sys.set_asyncgen_hooks(*self.generators)
        asyncio._set_running_loop(self.running)
        sniffio_library.name = self.library
        AsyncioWorld.current = None
        for thread in self.threads.values():
            thread.done = True

    def give_up(self) -> None:
        """Cancel everything, and let it end."""
        cleanup_turns = 20_000
        for _ in range(cleanup_turns):
            left = [task for task in self.of_task if not task.done()]
            if not left:
                break
            if not any(self.queues.values()):
                for task in left:
                    task.cancel()
                if not any(self.queues.values()):
                    break
            for queue in list(self.queues.values()):
                if queue:
                    try:
                        queue.popleft()._run()
                    except BaseException:
                        pass

    # -- what the loop tells us --------------------------------------------------------------------

    def ready(self, handle: Any) -> None:
        """A handle is to be run."""
        owner = getattr(handle._callback, "__self__", None)
        free = False
        if isinstance(owner, PyTask):
            thread = self.of_task.get(owner) or self.new_task(owner)
            name = getattr(handle._callback, "__name__", "")
            free = name.endswith("__step") and not handle._args
        elif isinstance(owner, Transport):
            thread = owner.thread
        else:
            thread = self.callbacks
            touch(self.loop, "callbacks", write=True)
            self.spinning.asked(handle)
        self.queues.setdefault(thread.tid, deque()).append(handle)
        self.seq += 1
        self.seqs[id(handle)] = self.seq
        if not free:
            self.inner[self.seq] = (handle, thread.tid)
        if self.order == "arrival":
            touch(self.loop, "ready", write=not free)
        if self.at >= 0:
            self.woken[id(handle)] = 1 << self.at

    def new_task(self, task: Any) -> Thread:
        coroutine = task.get_coro()
        thread = self.born("", coroutine)
        name = getattr(coroutine, "__qualname__", "task")
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None and not own(frame) and not task._name.startswith("Task-"):
            name = task._name  # AnyIO's, which wraps what it starts
        name = name.rpartition(".")[2]
        thread.name = name + "".join(f".{n}" for n in thread.path[1:])
        self.of_task[task] = thread
        self.task_of[thread.tid] = task
        LOG.name(task)
        if "all_tasks" in WRITTEN:
            touch(self.loop, "all_tasks", write=True)
        touch(self.loop, "ending", write=False)  # a later one does not start
        reach(coroutine)
        if self.cancel and (
            name == self.cancel or (self.cancel == "everywhere" and len(self.of_task) == 1)
        ):
            self.cancels[self.born("cancel", parent=thread).tid] = task
        return thread

    def job(self, run: Any) -> None:
        """A call in an executor: a step at any time, and more when it calls back."""
        owner = self.acting
        thread = self.born("")
        thread.name = f"thread {thread.path[-1]} of {owner.name if owner else 'nobody'}"
        self.workers[thread.tid] = Worker(run)
        self.wake(thread.tid)

    # -- steps -------------------------------------------------------------------------------------

    def enabled(self) -> list[int]:
        found = self.in_turn(tid for tid, queue in self.queues.items() if queue)
        found += [tid for tid, worker in self.workers.items() if worker.ready()]
        found += self.network.under_way()
        if self.ending and self.closing() and not self.pending():
            found.append(self.end.tid)
        busy = bool(found)
        found += self.network.mishaps
        found += [tid for tid, task in self.cancels.items() if not task.done()]
        first = min((handle._when for handle in self.timers), default=math.inf)
        # What is due may fire at any time; time passes for it when nobody can run.
        if self.timers and (self.time == "any" or not busy or first <= self.now):
            found += [thread.tid for handle, thread in self.timers.items() if handle._when == first]
        found.sort()
        return found

    def under_way(self) -> list[int]:
        """asyncio.run runs what was called soon and waits for its threads; a task that is made now
        it never starts."""
        waiting = (t for t, queue in self.queues.items() if queue and t not in self.task_of)
        working = [tid for tid, worker in self.workers.items() if worker.ready()]
        return sorted(self.in_turn(waiting) + working + self.network.under_way())

    def in_turn(self, waiting: Iterable[int]) -> list[int]:
        """Those of them that may run what the loop was asked to."""
        found = self.spinning.without(list(waiting), self.callbacks.tid, self.queues)
        return self.in_order(found) if self.order == "arrival" else found

    def in_order(self, found: list[int]) -> list[int]:
        """Those of them that overtake nothing which keeps its order."""
        waiting = self.spinning.waiting
        first = min((seq for seq, (h, _) in self.inner.items() if id(h) not in waiting), default=0)
        if not first:
            return found
        head = self.inner[first][1]
        callbacks = self.callbacks.tid
        seqs, queues = self.seqs, self.queues
        return [
            tid
            for tid in found
            if tid == head or (tid != callbacks and seqs[id(queues[tid][0])] < first)
        ]

    def act(self, thread: Thread) -> int:
        must = self.barrier
        tid = thread.tid
        queue = self.queues.get(tid)
        if queue:
            handle = queue[0]
            if thread is self.callbacks:
                handle = self.spinning.first(queue)
                touch(self.loop, "callbacks", write=True)
            queue.remove(handle)
            must |= self.asked_for(handle)
            self.woken.pop(id(handle), None)
            seq = self.seqs.pop(id(handle), 0)
            if self.inner.pop(seq, None) is not None and self.order == "arrival":
                self.ran.append((seq, 1 << self.at))
            self.run_handle(handle, thread, queue)
        elif thread is self.end:
            must |= self.done
            self.close_all()
            self.over(thread)
        elif tid in self.workers:
            if self.workers[tid].step():
                del self.workers[tid]
                self.over(thread)
            self.spinning.clear()
        elif tid in self.network.posted:
            must |= self.network.step(thread)
            self.spinning.clear()
        elif tid in self.network.mishaps:
            self.network.reset(thread)
            self.spinning.clear()
        elif tid in self.cancels:
            self.cancels.pop(tid).cancel()
            self.over(thread)
            self.spinning.clear()
        else:
            must |= self.pass_time(thread)
            self.spinning.clear()
        if self.refused:
            raise Unsupported(self.refused)
        self.finish()
        return must

    def asked_for(self, handle: Any) -> int:
        """The events that a handle comes after: what asked for it, and what keeps its order."""
        must = self.woken.get(id(handle), 0)
        seq = self.seqs.get(id(handle), 0)
        if self.order == "arrival":
            for other, event in self.ran:
                if other < seq:
                    must |= event
        return must

    def past_of_next(self, tid: int) -> int:
        queue = self.queues.get(tid)
        return super().past_of_next(tid) | (self.asked_for(queue[0]) if queue else 0)

    def run_handle(self, handle: Any, thread: Thread, queue: Any) -> None:
        self.spinning.running = handle
        if not handle._cancelled:
            called(handle._callback, *handle._args)
            handle._run()
        self.spinning.running = None
        task = self.task_of.get(thread.tid)
        self.spinning.ran(handle, thread.tid, task, queue)
        if task is not None and over(task):
            self.done |= 1 << self.at
            self.over(thread)

    def finish(self) -> None:
        """When main is done, what is left is cancelled, as asyncio.run does it."""
        # Its state as it is: to look at it is no step of anybody's.
        if self.ended or self.task._state == "PENDING":
            return
        left = self.pending()
        if not self.ending:
            self.ending, self.left_some = True, bool(left)
            touch(self.loop, "ending", write=True)
            for task in self.of_task:
                touch(task, "_state", write=False)  # who is done by then is not cancelled
            for task in left:
                task.cancel()
            error: BaseException | None = None
            if self.task.cancelled():
                if self.cancel != "everywhere":
                    error = asyncio.CancelledError("main was cancelled")
            else:
                error = self.task.exception()
            if error is not None:
                self.ended = True
                self.fail(self.raiser(leaf(error)), leaf(error))
            elif not self.task.cancelled():
                self.outcome = self.task.result()
        if not left and not self.closing():
            self.close_all()

    def pending(self) -> list[Any]:
        return [task for task in self.of_task if task._state == "PENDING"]

    def closing(self) -> bool:
        """The end is a step of its own, or it would be of whoever was the last."""
        return bool(self.left_some or self.timers or self.fired or self.network.mishaps)

    def close_all(self) -> None:
        self.ended = True
        self.network.over()
        touch(self.loop, "ending", write=True)
        for handle in self.fired:  # or not, if this had come before
            touch(handle, "fired", write=False)
        for handle in list(self.timers):
            self.lapse(handle)

    def raiser(self, error: BaseException) -> Thread:
        """The task that an error came from."""
        for task, thread in reversed(self.of_task.items()):
            if task.done() and not task.cancelled():
                raised = task._exception
                if raised is not None and leaf(raised) is error:
                    return thread
        return self.of_task[self.task]

    # -- words -------------------------------------------------------------------------------------

    def place(self, thread: Thread) -> tuple[str, int]:
        task = self.task_of.get(thread.tid)
        return ("?", 0) if task is None or thread.done else place_of(task.get_coro())

    def stuck(self) -> str:
        left = [(task, thread) for task, thread in self.of_task.items() if not task.done()]
        names = {task: thread.name for task, thread in left}
        return "; ".join(standing(thread.name, task.get_coro(), names) for task, thread in left)

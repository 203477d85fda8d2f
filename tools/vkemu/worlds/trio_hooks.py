"""What trio's core touches, noted where it does so; and its edges to the real world.

Every name used here is private to trio: `names_needed` is what a new release is checked against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import outcome
import trio
import trio._threads
from trio._core import _run

from vkemu.worlds import network_socket
from vkemu.worlds.hooks import Hooks
from vkemu.worlds.instrumenting import instrument_late
from vkemu.worlds.noting import HERE, LOG, touch
from vkemu.worlds.trio_network import Socket
from vkemu.worlds.trio_outside import CANCEL
from vkemu.worlds.trio_world import TrioWorld
from vkemu.worlds.workers import GivenUp, current


def install(hooks: Hooks) -> Callable[[], tuple[Any, float] | None]:
    """What tells whose time it is."""
    sockets(hooks)
    threads(hooks)
    tasks(hooks)
    cancellation(hooks)
    deadlines(hooks)
    nurseries(hooks)

    def now() -> tuple[Any, float] | None:
        world = TrioWorld.current
        return None if world is None or world.at < 0 else (world.clock, world.clock.now)

    return now


def sockets(hooks: Hooks) -> None:
    """The world's factory makes sockets; this is for those that go past it."""

    def from_stdlib_socket(sock: Any) -> Any:
        return Socket(sock) if isinstance(sock, network_socket.Socket) else wraps(sock)

    wraps = hooks.replace(trio.socket, "from_stdlib_socket", from_stdlib_socket)


def threads(hooks: Hooks) -> None:
    def start_thread_soon(fn: Any, deliver: Any, name: Any = None) -> None:
        world = TrioWorld.current
        if world is None:
            start(fn, deliver, name)
            return
        instrument_late(fn)
        world.job(lambda: deliver(outcome.capture(fn)), lambda: deliver(outcome.Error(GivenUp())))

    start = hooks.replace(trio._threads, "start_thread_soon", start_thread_soon)

    def send(trio_token: Any, message: Any) -> Any:
        worker = current()
        if worker is None:
            return sends(trio_token, message)
        given = trio_token is not None
        token = trio_token or trio._threads.PARENT_TASK_DATA.token
        if given or trio._threads.PARENT_TASK_DATA.abandon_on_cancel:
            message.run_in_system_nursery(token)
        else:
            message.run_in_host_task(token)
        worker.wait(lambda: not message.queue.empty())
        return message.queue.get_nowait().unwrap()

    sends = hooks.replace(trio._threads, "_send_message_to_trio", send)


def tasks(hooks: Hooks) -> None:
    def spawn(self: Any, async_fn: Any, args: Any, nursery: Any, name: Any, **kwargs: Any) -> Any:
        world = TrioWorld.current
        if world is not None:
            if nursery is not None:
                touch(nursery, "_closed", write=False)
                touch(nursery._cancel_status, "effectively_cancelled", write=False)
                if not inside(nursery):
                    touch(nursery, "_children", write=True)
            if world.cancel and getattr(async_fn, "__name__", "") == world.cancel:
                async_fn = world.cancellable(async_fn)
            instrument_late(async_fn)
        task = spawns(self, async_fn, args, nursery, name, **kwargs)
        if world is not None:
            # What one thread of the program asks trio to do in another is the program's.
            world.spawned(task, system=bool(kwargs.get("system_task")) and not world.begun)
        return task

    spawns = hooks.replace(_run.Runner, "spawn_impl", spawn)

    def exit_task(self: Any, task: Any, result: Any) -> None:
        world = TrioWorld.current
        if world is not None:
            world.exited(task, result)
        exits(self, task, result)

    exits = hooks.replace(_run.Runner, "task_exited", exit_task)


def inside(nursery: Any) -> bool:
    """Whether the task at hand is one that the nursery waits for, so that it cannot close now."""
    task = getattr(_run.GLOBAL_RUN_CONTEXT, "task", None)
    while task is not None:
        if task is nursery._parent_task or task in nursery._children:
            return True
        task = task._parent_nursery and task._parent_nursery._parent_task
    return False


def cancellation(hooks: Hooks) -> None:
    def recalculate(self: Any) -> None:
        world = TrioWorld.current
        if world is None or not HERE.on:
            recalculates(self)
        else:
            noted_recalculation(world, self, recalculates)

    recalculates = hooks.replace(_run.CancelStatus, "recalculate", recalculate)

    def _cancel(self: Any, *reason: Any) -> None:
        if TrioWorld.current is not None:
            touch(self, "_cancel_called", write=not self._cancel_called)
            if not self._cancel_called and self._cancel_status is not None:
                touch(self._cancel_status, "effectively_cancelled", write=True)
        cancels(self, *reason)

    cancels = hooks.replace(_run.CancelScope, CANCEL, _cancel)

    def _close(self: Any, exc: Any) -> Any:
        if TrioWorld.current is not None:
            touch(self, "_cancel_called", write=True)  # cancelled later, it is another thing
            if self._cancel_status is not None:
                touch(self._cancel_status, "effectively_cancelled", write=False)
        return closes(self, exc)

    closes = hooks.replace(_run.CancelScope, "_close", _close)

    def enter(self: Any) -> Any:
        world = TrioWorld.current
        if world is not None:
            touch(self, "_cancel_called", write=True)
            timed = self._deadline != math.inf or self._relative_deadline != math.inf
            if timed and self._deadline != -math.inf:
                touch(world.clock, "now", write=False)
        entered = enters(self)
        if world is not None:
            LOG.name(self._cancel_status)
        return entered

    enters = hooks.replace(_run.CancelScope, "__enter__", enter)
    called = _run.CancelScope.cancel_called.fget  # type: ignore[attr-defined]

    def cancel_called(self: Any) -> bool:
        world = TrioWorld.current
        if world is not None:
            touch(self, "_cancel_called", write=False)
            if self._deadline != math.inf and world.acting is not None:
                touch(world.clock, "now", write=False)
        return bool(called(self))

    hooks.replace(_run.CancelScope, "cancel_called", property(cancel_called))

    def shielded(self: Any, new_value: Any) -> None:
        if TrioWorld.current is not None and self._cancel_status is not None:
            touch(self._cancel_status, "effectively_cancelled", write=True)
        shields.fset(self, new_value)

    shields: Any = vars(_run.CancelScope)["shield"]
    hooks.replace(_run.CancelScope, "shield", property(shields.fget, shielded))


def noted_recalculation(world: TrioWorld, status: Any, recalculates: Any) -> None:
    """As trio does it; every status that changes is written, its parent read."""
    before = {}
    tasks = {}
    todo = [status]
    while todo:
        each = todo.pop()
        before[each] = each.effectively_cancelled
        tasks[each] = list(each._tasks)
        todo.extend(each._children)
    if status._parent is not None:
        touch(status._parent, "effectively_cancelled", write=False)
    live = [scope for scope in world.live() if scope is not world.expiring]
    recalculates(status)
    for scope in live if world.at >= 0 else ():
        if world.status[scope].effectively_cancelled and scope in world.timers:
            withdrawn(world, scope, world.timers[scope], scope._registered_deadline, live)
    for each, was in before.items():
        if each.effectively_cancelled != was:
            touch(each, "effectively_cancelled", write=True)
            for task in tasks[each]:
                touch(task, "_abort_func", write=True)


def deadlines(hooks: Hooks) -> None:
    def add(self: Any, deadline: float, scope: Any) -> None:
        world = TrioWorld.current
        if world is not None:
            touch(world.clock, "now", write=False)
            if world.acting is not None:
                overtaken(world, deadline)
                world.registered[scope] = 1 << world.at
                world.status[scope] = scope._cancel_status
                thread = world.born("")
                thread.name = f"deadline {thread.path[-1]} of {world.acting.name}"
                world.timers[scope] = thread
        adds(self, deadline, scope)

    adds = hooks.replace(_run.Deadlines, "add", add)

    def remove(self: Any, deadline: float, scope: Any) -> None:
        world = TrioWorld.current
        if world is not None:
            if world.expiring is not scope:
                touch(world.clock, "now", write=False)
            lapse(world, scope, deadline)
        removes(self, deadline, scope)

    removes = hooks.replace(_run.Deadlines, "remove", remove)

    def expire(self: Any, now: float) -> bool:
        return False if TrioWorld.current is not None else bool(expires(self, now))

    expires = hooks.replace(_run.Deadlines, "expire", expire)
    for module in (trio, trio.lowlevel):
        if hasattr(module, "current_time"):
            hooks.replace(module, "current_time", current_time_of(module.current_time))


def current_time_of(real: Any) -> Any:
    def current_time() -> float:
        world = TrioWorld.current
        if world is not None:
            touch(world.clock, "now", write=False)
        return float(real())

    return current_time


def overtaken(world: TrioWorld, deadline: float) -> None:
    """An earlier deadline than all there are: the first of those could have passed before."""
    live = world.live()
    first = min((scope._registered_deadline for scope in live), default=-math.inf)
    if world.time != "any" or deadline >= first or world.at < 0:
        return
    for scope in live:
        if scope._registered_deadline == first:
            past = world.past_of(scope, first)
            codes = world.codes_of(scope, first)
            world.might.append((world.at, world.timers[scope].tid, codes, past))


def lapse(world: TrioWorld, scope: Any, deadline: float) -> None:
    """A deadline is removed, or passed. Whose scope was cancelled is gone since."""
    thread = world.timers.get(scope)
    if thread is None:
        return
    del world.timers[scope]
    if world.at < 0:
        return
    if world.expiring is scope:
        world.is_gone(scope, deadline)
    elif not world.status[scope].effectively_cancelled:
        withdrawn(world, scope, thread, deadline, world.live())
    world.over(thread)


def withdrawn(world: TrioWorld, scope: Any, thread: Any, deadline: float, live: list[Any]) -> None:
    """It passes no more, and could have passed before, once those that are earlier had."""
    world.could_come_earlier(scope, thread.tid, deadline)
    if world.strikes(deadline):
        earlier = {other for other in live if other._registered_deadline < deadline}
        past = world.past_of(scope, deadline)
        might = world.at, thread.tid, world.codes_of(scope, deadline), past
        world.could_have_passed(might, earlier)
    world.is_gone(scope, deadline)


def nurseries(hooks: Hooks) -> None:
    def _check_nursery_closed(self: Any) -> None:
        """Children end in any order: it is for their parent to see that the last of them did."""
        world = TrioWorld.current
        if world is None or world.at < 0:
            checks(self)
            return
        world.exits[self] = world.exits.get(self, 0) | 1 << world.at
        touch(self, "_children", write=False)
        touch(self._parent_task, "_abort_func", write=False)
        was = self._closed
        outer, world.closing = world.closing, self
        checks(self)
        world.closing = outer
        parent = world.of_task.get(self._parent_task)
        if self._closed and not was and parent is not None:
            world.closed[parent.tid] = self
            world.must[parent.tid] = world.must.get(parent.tid, 0) | world.exits[self]

    checks = hooks.replace(_run.Nursery, "_check_nursery_closed", _check_nursery_closed)

    def started(self: Any, value: Any = None) -> None:
        if TrioWorld.current is not None:
            for nursery in (self._old_nursery, self._new_nursery):
                touch(nursery._cancel_status, "effectively_cancelled", write=True)
        starts(self, value)

    starts = hooks.replace(_run._TaskStatus, "started", started)

"""asyncio's Python tasks and futures in place of those of C, wherever a module has them."""

from __future__ import annotations

import asyncio
import asyncio.futures
import asyncio.tasks
import concurrent.futures
import contextvars
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

from vkemu.worlds.accesses import written_late
from vkemu.worlds.asyncio_loop import Future, PyFuture, Task, ordered_hash
from vkemu.worlds.hooks import Hooks
from vkemu.worlds.instrumenting import instrument_late
from vkemu.worlds.noting import HERE, touch
from vkemu.worlds.overriding import followed_methods
from vkemu.worlds.workers import current

C_TASK = asyncio.Task
C_FUTURE = asyncio.Future
ALL_TASKS = asyncio.all_tasks


def install(hooks: Hooks) -> Callable[[], tuple[Any, float] | None]:
    """What tells whose time it is."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "") in {"_asyncio", "builtins", __name__}:
            continue
        names = getattr(module, "__dict__", None)
        if not isinstance(names, dict):
            continue
        for name, value in list(names.items()):
            if value is C_TASK:
                hooks.replace(module, name, Task)
            elif value is C_FUTURE:
                hooks.replace(module, name, Future)
            elif value is ALL_TASKS:
                hooks.replace(module, name, all_tasks)
    gathering(hooks)
    results(hooks)
    hooks.add(asyncio.Queue, "__init_subclass__", followed_methods)
    if "anyio" in sys.modules:  # it keeps scopes in sets
        backend = importlib.import_module("anyio._backends._asyncio")
        hooks.add(backend.CancelScope, "__hash__", ordered_hash)
        worker_threads(hooks, backend)

    def now() -> tuple[Any, float] | None:
        from vkemu.worlds.asyncio_world import AsyncioWorld

        world = AsyncioWorld.current
        return None if world is None or world.at < 0 else (world.loop, world.now)

    return now


def all_tasks(loop: Any = None) -> Any:
    from vkemu.worlds.asyncio_world import AsyncioWorld

    world = AsyncioWorld.current
    if world is None or not HERE.on:
        return ALL_TASKS(loop)
    written_late("all_tasks")  # by whoever starts a task
    touch(world.loop, "all_tasks", write=False)
    return {task for task in world.of_task if not task.done()}


def worker_threads(hooks: Hooks, backend: Any) -> None:
    """AnyIO keeps threads of its own: its calls are calls of the loop's, which are steps."""
    claim = importlib.import_module("anyio._core._eventloop").claim_worker_thread

    async def run_sync_in_worker_thread(
        cls: Any, func: Any, args: Any, abandon_on_cancel: bool = False, limiter: Any = None
    ) -> Any:
        await cls.checkpoint()
        loop = asyncio.get_running_loop()
        async with limiter or cls.current_default_thread_limiter():
            with backend.CancelScope(shield=not abandon_on_cancel) as scope:
                context = contextvars.copy_context()
                outer = scope if abandon_on_cancel else scope._parent_scope or scope

                def call() -> Any:
                    with claim(backend.AsyncIOBackend, loop):
                        backend.threadlocals.current_cancel_scope = outer
                        return context.run(func, *args)

                instrument_late(func)
                return await loop.run_in_executor(None, call)

    hooks.replace(
        backend.AsyncIOBackend,
        "run_sync_in_worker_thread",
        classmethod(run_sync_in_worker_thread),
    )


def gathering(hooks: Hooks) -> None:
    """The future of `gather` is a subclass, made of the one of C: make it of the other."""
    old = vars(asyncio.tasks)["_GatheringFuture"]
    if issubclass(old, PyFuture):
        return
    names: dict[str, Any] = dict(vars(asyncio.tasks))
    source = inspect.getsource(old)
    exec(compile(source, asyncio.tasks.__file__, "exec"), names)  # noqa: S102 - of asyncio itself
    hooks.replace(asyncio.tasks, "_GatheringFuture", names["_GatheringFuture"])


def results(hooks: Hooks) -> None:
    """A thread of the program that waits for the loop lets it go on."""

    def result(self: Any, timeout: float | None = None) -> Any:
        worker = current()
        if worker is not None and not self.done():
            worker.wait(self.done)
        return real(self, timeout)

    real = hooks.replace(concurrent.futures.Future, "result", result)

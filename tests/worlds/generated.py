"""Async programs drawn from a seed: tasks over locks, events, channels, scopes and plain objects.

Each is the same few tasks in trio and in asyncio. What they share they share in every way that code
does: closure variables, attributes, items of lists and dicts, objects of C.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from random import Random
from typing import Any

import trio
import trio.lowlevel

Op = tuple[str, ...]
OPS = (
    "add", "append", "put", "get", "pop", "sleep", "lock", "set", "wait", "send", "receive",
    "cancel", "scope", "timeout", "attribute", "semaphore", "notify", "await_notify",
)  # fmt: skip

CALLS = (
    *OPS,
    "soon",
    "chain",
    "start",
    "later",
    "context",
)


def drawn(seed: int, ops: tuple[str, ...] = OPS) -> list[list[str]]:
    """What each task does."""
    rng = Random(seed)
    return [[rng.choice(ops) for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(2, 3))]


class Shared:
    def __init__(self) -> None:
        self.total = 0
        self.items: list[Any] = []
        self.table: dict[Any, Any] = {}
        self.queue: deque[Any] = deque()

    def state(self) -> tuple[Any, ...]:
        return (
            self.total, tuple(self.items), tuple(sorted(self.table.items())), tuple(self.queue)
        )  # fmt: skip


def plain(shared: Shared, op: str, me: int) -> bool:
    """An operation without a checkpoint."""
    match op:
        case "append":
            shared.items.append(me)
        case "put":
            shared.table[me % 2] = me
        case "get":
            shared.items.append(shared.table.get(0))
        case "pop":
            if shared.items:
                shared.items.pop()
        case _:
            return False
    return True


def in_trio(tasks: list[list[str]]) -> Callable[[], Awaitable[Any]]:
    async def program() -> Any:
        shared = Shared()
        lock, event = trio.Lock(), trio.Event()
        send, receive = trio.open_memory_channel[int](1)
        scopes = [trio.CancelScope() for _ in tasks]
        semaphore, condition, total = trio.Semaphore(1), trio.Condition(), 0

        async def one(op: str, me: int) -> None:
            nonlocal total
            match op:
                case "add":
                    value = total
                    await trio.lowlevel.checkpoint()
                    total = value + 1
                case "attribute":
                    value = shared.total
                    await trio.lowlevel.checkpoint()
                    shared.total = value + 1
                case "lock":
                    async with lock:
                        shared.queue.append(me)
                        await trio.lowlevel.checkpoint()
                        shared.queue.append(me)
                case "semaphore":
                    async with semaphore:
                        shared.queue.append(me)
                case "set":
                    event.set()
                case "wait":
                    with trio.move_on_after(2):
                        await event.wait()
                case "send":
                    with trio.move_on_after(3):
                        await send.send(me)
                case "receive":
                    with trio.move_on_after(3):
                        shared.items.append(await receive.receive())
                case "cancel":
                    scopes[(me + 1) % len(tasks)].cancel()
                case "scope":
                    with trio.CancelScope() as scope:
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
                case "timeout":
                    with trio.move_on_after(1) as scope:
                        await trio.sleep(1)
                    shared.items.append(scope.cancelled_caught)
                case "notify":
                    async with condition:
                        shared.total += 1
                        condition.notify()
                case "await_notify":
                    with trio.move_on_after(4):
                        async with condition:
                            await condition.wait()
                case _ if not plain(shared, op, me):
                    await trio.lowlevel.checkpoint()

        async def run(me: int) -> None:
            with scopes[me]:
                for op in tasks[me]:
                    await one(op, me)

        async with trio.open_nursery() as nursery:
            for me in range(len(tasks)):
                nursery.start_soon(run, me)
        return (total, *shared.state())

    return program


def by_loop(shared: Shared, op: str, me: int) -> bool:
    """What asyncio's loop is asked to do, some of it when main is over."""
    loop = asyncio.get_running_loop()

    def chain(left: int) -> None:
        shared.table[left] = left
        if left:
            loop.call_soon(chain, left - 1)

    async def late() -> None:
        value = shared.total
        await asyncio.sleep(0)
        shared.total = value + 1

    match op:
        case "soon":
            loop.call_soon(shared.items.append, me)
        case "later":
            loop.call_later(me, shared.items.append, me)
        case "context":
            copy_context().run(shared.items.append, me)
        case "chain":
            chain(2)
        case "start":
            loop.call_soon(lambda: loop.create_task(late()))
        case _:
            return False
    return True


def in_asyncio(tasks: list[list[str]]) -> Callable[[], Awaitable[Any]]:
    async def program() -> Any:
        shared = Shared()
        lock, event = asyncio.Lock(), asyncio.Event()
        channel: asyncio.Queue[int] = asyncio.Queue(1)
        semaphore = asyncio.Semaphore(1)
        condition = asyncio.Condition()
        running: list[asyncio.Task[None]] = []
        total = 0

        async def one(op: str, me: int) -> None:
            nonlocal total
            match op:
                case "add":
                    value = total
                    await asyncio.sleep(0)
                    total = value + 1
                case "attribute":
                    value = shared.total
                    await asyncio.sleep(0)
                    shared.total = value + 1
                case "lock":
                    async with lock:
                        shared.queue.append(me)
                        await asyncio.sleep(0)
                        shared.queue.append(me)
                case "semaphore":
                    async with semaphore:
                        shared.queue.append(me)
                case "set":
                    event.set()
                case "wait":
                    await within(2, event.wait())
                case "send":
                    await within(3, channel.put(me))
                case "receive":
                    shared.items.append(await within(3, channel.get()))
                case "cancel" | "scope":
                    running[(me + 1) % len(tasks)].cancel()
                case "timeout":
                    shared.items.append(await within(1, asyncio.sleep(1, "slept")))
                case "notify":
                    async with condition:
                        shared.total += 1
                        condition.notify()
                case "await_notify":
                    async with condition:
                        await within(4, condition.wait())
                case _ if not (by_loop(shared, op, me) or plain(shared, op, me)):
                    await asyncio.sleep(0)

        async def within(seconds: float, awaited: Awaitable[Any]) -> Any:
            try:
                async with asyncio.timeout(seconds):
                    return await awaited
            except TimeoutError:
                return "late"

        async def run(me: int) -> None:
            for op in tasks[me]:
                await one(op, me)

        running += [asyncio.create_task(run(me)) for me in range(len(tasks))]
        await asyncio.wait(running)
        return (total, *shared.state())

    return program

"""Small programs of kernel threads, described by plain values so that Hypothesis can draw them.

A program is a list of threads, a thread a list of operations. Every step logs what it saw and the
virtual time, so two runs are the same iff their logs are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from vkemu.executors.backend import on_backend
from vkemu.executors.controlled import Choose, Execution
from vkemu.executors.live import Live
from vkprotocol.effects import (
    CLOCK,
    Cell,
    Lock,
    Mailbox,
    RWLock,
    WaitChannel,
    curthread,
    pause,
)

T = TypeVar("T")
Operation = tuple[Any, ...]
Program = list[list[Operation]]
Log = list[tuple[Any, ...]]


class Objects:
    """What the threads of one run share."""

    def __init__(self, execution: Execution, log: Log) -> None:
        self.execution = execution
        self.log = log
        self.x = Cell("x", 0)
        self.lock = Lock("lock")
        self.rwlock = RWLock("rwlock")
        self.channel = WaitChannel("channel")
        self.mailbox = Mailbox("mailbox")

    def note(self, *what: Any) -> None:
        thread = curthread()
        self.log.append((thread.tid, thread.path, CLOCK[0], *what))


async def add(k: Objects, n: int) -> None:
    v = await k.x.load()
    k.note("load", v)
    await k.x.store(v + n)
    k.note("store", v + n)


async def locked_add(k: Objects, n: int) -> None:
    async with k.lock:
        k.note("locked")
        await add(k, n)


async def read_then_upgrade(k: Objects, n: int) -> None:
    await k.rwlock.acquire_shared()
    await add(k, n)
    if await k.rwlock.try_upgrade():
        k.note("upgraded")
        await k.rwlock.release()


async def exclusive_add(k: Objects, n: int) -> None:
    await k.rwlock.acquire_exclusive()
    await add(k, n)
    await k.rwlock.release()


async def send(k: Objects, n: int) -> None:
    await k.mailbox.send(n)
    k.note("sent", n)


async def receive(k: Objects, _: int) -> None:
    k.note("received", await k.mailbox.recv())


async def sleep(k: Objects, n: int) -> None:
    await k.channel.enqueue()
    k.note("woken", await k.channel.sleep(n * 100 or None))


async def wakeup(k: Objects, n: int) -> None:
    await (k.channel.wakeup_one() if n else k.channel.wakeup())
    k.note("wakeup")


async def doze(k: Objects, n: int) -> None:
    await pause(n * 70)
    k.note("paused")


async def wait_for(k: Objects, n: int) -> None:
    k.note("waited", await k.x.wait(lambda v: v >= n, deadline=CLOCK[0] + 1000 * n))


async def fork(k: Objects, n: int) -> None:
    k.execution.spawn(f"child{n}", locked_add(k, n))
    k.note("forked")


async def fail(k: Objects, n: int) -> None:
    if await k.x.load() == n:
        raise ValueError(f"x is {n}")


OPERATIONS: dict[str, Callable[[Objects, int], Awaitable[None]]] = {
    function.__name__: function
    for function in (
        add, locked_add, read_then_upgrade, exclusive_add, send, receive, sleep, wakeup, doze,
        wait_for, fork, fail,
    )
}  # fmt: skip


def build(program: Program, log: Log) -> Callable[[Execution], Objects]:
    def built(execution: Execution) -> Objects:
        k = Objects(execution, log)

        async def thread(operations: list[Operation]) -> None:
            for name, n in operations:
                await OPERATIONS[name](k, n)

        async def ticker() -> None:
            while True:
                await pause(500)
                k.note("tick")

        for i, operations in enumerate(program):
            execution.spawn(f"t{i}", thread(operations))
        execution.spawn("ticker", ticker(), daemon=True)
        return k

    return built


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


def following(schedule: Iterable[int]) -> Choose:
    """The chooser that follows a recorded schedule."""
    tids = iter(schedule)
    return lambda runnable: next(tids)

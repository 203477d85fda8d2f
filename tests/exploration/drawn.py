"""Programs drawn from a seed, of everything a program can be built of; and what they end in."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from vkemu.exploration.primitives.channel import BrokenChannel, ClosedChannel, EndOfChannel
from vkemu.exploration.run import Run
from vkprotocol.effects import curthread

from tests.exploration.generated import Path, paths_of

Op = tuple[Any, ...]
CELLS = ("x", "y")
COMMON = ("load", "store", "store", "add", "cmpset", "swap", "index")
RARE = (
    "await", "lock", "try_lock", "shared", "exclusive", "downgrade", "upgrade", "semaphore",
    "try_down", "up", "set", "clear", "wait", "put", "get", "try_put", "try_get", "cwait", "notify",
    "barrier", "limiter", "try_limiter", "send", "receive", "try_send", "try_receive", "close",
    "clone", "sleep", "timeout", "cancel", "nursery", "choose", "step", "local", "spawn", "raise",
    "busy", "look", "late", "lazy", "join", "select", "set_state", "plain",
)  # fmt: skip
ALWAYS: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "cells": lambda b: lambda: not (b.cells["x"].value == 1 and b.cells["y"].value == 0),
    "lock": lambda b: lambda: b.lock.state is None or b.cells["x"].value != 1,
    "readers": lambda b: lambda: len(b.rwlock.state[1]) < 2,
    "variable": lambda b: lambda: not (b.busy and b.cells["x"].value),
    "queue": lambda b: lambda: not b.queue.value or not b.event.value,
    "channel": lambda b: lambda: len(b.sender.channel.state.items) < 2,
}
AT_END: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "cells": lambda b: lambda: b.cells["x"].value != 2 or b.cells["y"].value != 1,
    "seen": lambda b: lambda: sum(map(len, b.seen.values())) != 1,
    "plain": lambda b: lambda: b.order != [1, 0],
}


class Source(NamedTuple):
    threads: tuple[tuple[Op, ...], ...]
    always: tuple[str, ...] = ()
    at_end: tuple[str, ...] = ()

    @property
    def ops(self) -> set[str]:
        return {op[0] for body in self.threads for op in body}


def draw(seed: int, size: int = 6) -> Source:
    """Two or three threads of at most `size` operations in all, most of them on cells."""
    rng = Random(seed)
    some = rng.sample(RARE, rng.randint(1, 3))
    bodies: list[list[Op]] = [[] for _ in range(rng.randint(2, 3))]
    for _ in range(rng.randint(3, size)):
        name = rng.choice(some if rng.random() < 0.6 else COMMON)
        op = (name, rng.choice(CELLS), rng.randint(0, 2))
        rng.choice(bodies).append(op)
    always = rng.sample(sorted(ALWAYS), 1) if rng.random() < 0.3 else []
    at_end = rng.sample(sorted(AT_END), 1) if rng.random() < 0.2 else []
    if any(name == "plain" for body in bodies for name, *_ in body):
        at_end = ["plain"]  # else nobody sees it
    return Source(tuple(tuple(body) for body in bodies if body), tuple(always), tuple(at_end))


class Built:
    """The objects of one build, and what every thread saw."""

    def __init__(self, k: Any, source: Source) -> None:
        self.k = k
        self.cells = {name: k.cell(name, 0) for name in CELLS}
        self.array = [k.cell(("a", n), 0) for n in range(2)]
        self.lock, self.rwlock = k.lock("l"), k.rwlock("rw")
        self.semaphore, self.event = k.semaphore("s", 1), k.event("e")
        self.queue, self.condition = k.queue("q", 1), k.condition("c")
        self.barrier, self.limiter = k.barrier("b", 2), k.limiter("m", 1)
        self.sender, self.receiver = k.channel("ch", 1)
        self.local = k.local()
        self.busy = False
        self.order: list[int] = []
        self.seen: dict[Any, list[Any]] = {}
        self.threads: list[Any] = []
        k.joinable = "join" in source.ops
        for name in source.always:
            k.always(ALWAYS[name](self))
        for name in source.at_end:
            k.at_end(AT_END[name](self))
        for n, body in enumerate(source.threads):
            self.threads.append(k.spawn(f"t{n}", self.thread, body))

    def final(self) -> tuple[Any, ...]:
        """Everything an execution can end with."""
        holding = [
            *self.cells.values(), *self.array, self.semaphore, self.event, self.queue, self.barrier,
            self.sender.channel,
        ]  # fmt: skip
        held = [
            self.lock, self.rwlock, self.condition.lock, self.condition.channel, self.limiter,
        ]  # fmt: skip
        paths = {tid: thread.path for tid, thread in self.k.execution.threads.items()}
        values = (
            *(plain(thing.state, {}) for thing in holding),
            *(plain(thing.state, paths) for thing in held),
        )
        seen = tuple((path, tuple(log)) for path, log in sorted(self.seen.items()))
        stuck = sorted(
            (thread.path, thread.pending.op)
            for thread in self.k.execution.threads.values()
            if thread.pending is not None
        )
        return values, seen, tuple(stuck), self.busy, tuple(self.order)

    async def thread(self, body: tuple[Op, ...]) -> None:
        log = self.seen[curthread().path] = []
        for name, cell, number in body:
            try:
                await getattr(self, "do_" + name)(log, self.cells[cell], number)
            except (EndOfChannel, BrokenChannel, ClosedChannel, TimeoutError) as error:
                log.append(type(error).__name__)

    async def do_load(self, log: Any, x: Any, n: int) -> None:
        log.append(await x.load())

    async def do_store(self, log: Any, x: Any, n: int) -> None:
        await x.store(n)

    async def do_add(self, log: Any, x: Any, n: int) -> None:
        await x.add(1)

    async def do_swap(self, log: Any, x: Any, n: int) -> None:
        log.append(await x.swap(n))

    async def do_cmpset(self, log: Any, x: Any, n: int) -> None:
        log.append(await x.cmpset(n, n + 1))

    async def do_index(self, log: Any, x: Any, n: int) -> None:
        await self.array[await x.load() % 2].add(1)

    async def do_await(self, log: Any, x: Any, n: int) -> None:
        await x.wait(lambda value: value >= n)

    async def do_lock(self, log: Any, x: Any, n: int) -> None:
        async with self.lock:
            await x.add(1)

    async def do_try_lock(self, log: Any, x: Any, n: int) -> None:
        if await self.lock.try_acquire():
            await self.lock.release()
            log.append("locked")

    async def do_shared(self, log: Any, x: Any, n: int) -> None:
        await self.rwlock.acquire_shared()
        await self.rwlock.release()

    async def do_exclusive(self, log: Any, x: Any, n: int) -> None:
        await self.rwlock.acquire_exclusive()
        await self.rwlock.release()

    async def do_downgrade(self, log: Any, x: Any, n: int) -> None:
        if n:
            await self.rwlock.acquire_exclusive()
        await self.rwlock.downgrade()
        await self.rwlock.release()

    async def do_upgrade(self, log: Any, x: Any, n: int) -> None:
        await self.rwlock.acquire_shared()
        log.append(await self.rwlock.try_upgrade())
        if log[-1]:
            await self.rwlock.release()

    async def do_semaphore(self, log: Any, x: Any, n: int) -> None:
        await self.semaphore.acquire()

    async def do_try_down(self, log: Any, x: Any, n: int) -> None:
        log.append(await self.semaphore.try_acquire())

    async def do_up(self, log: Any, x: Any, n: int) -> None:
        await self.semaphore.release()

    async def do_set(self, log: Any, x: Any, n: int) -> None:
        await self.event.set()

    async def do_clear(self, log: Any, x: Any, n: int) -> None:
        await self.event.clear()

    async def do_wait(self, log: Any, x: Any, n: int) -> None:
        await self.event.wait()

    async def do_put(self, log: Any, x: Any, n: int) -> None:
        await self.queue.put(n)

    async def do_get(self, log: Any, x: Any, n: int) -> None:
        log.append(await self.queue.get())

    async def do_try_put(self, log: Any, x: Any, n: int) -> None:
        log.append(await self.queue.try_put(n))

    async def do_try_get(self, log: Any, x: Any, n: int) -> None:
        log.append(await self.queue.try_get())

    async def do_cwait(self, log: Any, x: Any, n: int) -> None:
        async with self.condition:
            await self.condition.wait()

    async def do_notify(self, log: Any, x: Any, n: int) -> None:
        async with self.condition:
            await (self.condition.notify() if n else self.condition.notify_all())

    async def do_barrier(self, log: Any, x: Any, n: int) -> None:
        log.append(await self.barrier.wait())

    async def do_limiter(self, log: Any, x: Any, n: int) -> None:
        async with self.limiter:
            await x.load()

    async def do_try_limiter(self, log: Any, x: Any, n: int) -> None:
        log.append(await self.limiter.try_acquire())
        if log[-1]:
            await self.limiter.release()

    async def do_send(self, log: Any, x: Any, n: int) -> None:
        await self.sender.send(n)

    async def do_receive(self, log: Any, x: Any, n: int) -> None:
        log.append(await self.receiver.receive())

    async def do_try_send(self, log: Any, x: Any, n: int) -> None:
        log.append(await self.sender.try_send(n))

    async def do_try_receive(self, log: Any, x: Any, n: int) -> None:
        log.append(await self.receiver.try_receive())

    async def do_close(self, log: Any, x: Any, n: int) -> None:
        await (self.receiver if n else self.sender).close()

    async def do_clone(self, log: Any, x: Any, n: int) -> None:
        async with await (self.receiver if n else self.sender).clone():
            await x.load()

    async def do_sleep(self, log: Any, x: Any, n: int) -> None:
        await self.k.sleep(n)
        log.append(self.k.now())

    async def do_timeout(self, log: Any, x: Any, n: int) -> None:
        async with self.k.timeout(n):
            await self.event.wait()
            await x.add(1)

    async def do_cancel(self, log: Any, x: Any, n: int) -> None:
        if n < len(self.threads):  # those of set-up that have been spawned by then
            await self.k.cancel(self.threads[n])

    async def do_nursery(self, log: Any, x: Any, n: int) -> None:
        async with self.k.nursery() as nursery:
            await nursery.start("child", x.add, 1)

    async def do_choose(self, log: Any, x: Any, n: int) -> None:
        log.append(await self.k.choose(2))

    async def do_select(self, log: Any, x: Any, n: int) -> None:
        branches = [
            (self.queue.get(), self.receiver.receive(), self.lock.acquire()),
            (self.semaphore.acquire(), self.queue.put(7), self.sender.send(8)),
            (self.event.wait(), self.k.sleep(1), x.wait(lambda value: value == 1)),
        ]
        for unused in branches[:n] + branches[n + 1 :]:
            for operation in unused:
                operation.close()
        which, value = await self.k.select(*branches[n])
        log.append((which, value))
        if (n, which) == (0, 2):
            await self.lock.release()

    async def do_step(self, log: Any, x: Any, n: int) -> None:
        y = self.cells["y"]
        await self.k.step(x, reads=[y])
        x.state = y.state + 1

    async def do_local(self, log: Any, x: Any, n: int) -> None:
        self.local.mine = n
        await x.load()
        log.append(self.local.mine)

    async def do_spawn(self, log: Any, x: Any, n: int) -> None:
        self.k.spawn("child", self.thread, (("add", "y", 0),) * n)

    async def do_join(self, log: Any, x: Any, n: int) -> None:
        child = self.k.spawn("child", self.thread, (("add", "y", 0),))
        await self.k.join(child)

    async def do_raise(self, log: Any, x: Any, n: int) -> None:
        if await x.load() == n:
            raise (KeyError, ValueError)[n % 2](n)

    async def do_busy(self, log: Any, x: Any, n: int) -> None:
        await self.array[0].store(1)
        self.busy = True
        await self.array[1].load()
        self.busy = False

    async def do_look(self, log: Any, x: Any, n: int) -> None:
        await self.array[0].load()
        log.append(x.value)
        if n:
            log.append(self.lock.state is None)

    async def do_set_state(self, log: Any, x: Any, n: int) -> None:
        await self.array[0].load()
        x.state = n

    async def do_plain(self, log: Any, x: Any, n: int) -> None:
        await self.array[n % 2].load()
        self.order.append(n)

    async def do_late(self, log: Any, x: Any, n: int) -> None:
        await self.array[1].load()
        self.k.always(lambda: self.cells["x"].value != 2 or self.cells["y"].value)

    async def do_lazy(self, log: Any, x: Any, n: int) -> None:
        made = self.k.cell("x")
        await made.store(n)
        log.append(await made.load())


def plain(state: Any, paths: dict[int, Path]) -> Any:
    """The path of a thread for its number, which another search gives otherwise."""
    if isinstance(state, tuple):
        return tuple(plain(item, paths) for item in state)
    return paths.get(state, state) if type(state) is int else state


class Ends:
    """A drawn program, and what its executions under one strategy end in, wherever they are
    taken."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.identity = repr(source)
        self.built: Built | None = None
        self.states: set[Any] = set()
        self.faults: set[str] = set()
        self.schedules: list[list[Path]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Ends, (self.source,)

    def __call__(self, k: Any) -> None:
        self.built = Built(k, self.source)

    def ending(self, run: Run) -> Any:
        assert self.built is not None
        failed = sorted(t.path for t in run.execution.threads.values() if t.error)
        return self.built.final(), tuple(failed), tuple(fault.kind for fault in run.faults)

    def count(self, ending: Any, times: int) -> None:
        self.states.add(ending[:2])
        self.faults.update(ending[2])

    def note(self, run: Run) -> None:
        self.count(self.ending(run), 1)
        self.schedules.append(paths_of(run))

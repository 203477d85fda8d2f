"""The methods of `k` that make shared objects."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

from vkprotocol.effects import (
    CLOCK,
    Cell,
    Effect,
    Lock,
    RWLock,
    Shared,
    Step,
    Thread,
    WaitChannel,
    coroutine,
    fresh_key,
    is_none,
    pause,
)

from vkemu.executors.controlled import Execution
from vkemu.exploration.expected import duration, flag, several, whole, wrong
from vkemu.exploration.own import CANCEL, Own
from vkemu.exploration.primitives.channel import Channel, Held, Receiver, Sender
from vkemu.exploration.primitives.meeting import Barrier, Limiter
from vkemu.exploration.primitives.nursery import Nursery
from vkemu.exploration.primitives.objects import Condition, Event, Queue, Semaphore
from vkemu.exploration.primitives.scopes import SECOND, Cancellation, Local, Timeout
from vkemu.exploration.primitives.select import select
from vkemu.exploration.primitives.together import Together

Made = TypeVar("Made", bound=Shared)


class Making:
    """All but `cell`, `spawn` and `join`."""

    __slots__ = ()

    execution: Execution
    numbers: Any
    watched: dict[Thread, None]  # the threads whose steps say that they may have been cancelled

    def _make(self, kind: type[Made], name: str, state: Any) -> Made:
        raise NotImplementedError

    def spawn(self, name: str, body: Any, *args: Any, daemon: bool = False) -> Thread:
        raise NotImplementedError

    def lock(self, name: str, rank: int | None = None) -> Lock:
        """A mutex: `acquire`, `try_acquire`, `release`, `async with`."""
        check_rank(f"lock {name!r}", rank)
        lock = self._make(Lock, name, None)
        lock.rank = rank
        return lock

    def rwlock(self, name: str, rank: int | None = None) -> RWLock:
        """A shared/exclusive lock: `acquire_shared`, `acquire_exclusive`, `release`, ..."""
        check_rank(f"rwlock {name!r}", rank)
        lock = self._make(RWLock, name, (None, (), 0))
        lock.rank = rank
        return lock

    def semaphore(self, name: str, value: int = 1) -> Semaphore:
        """A counting semaphore: `acquire`, `try_acquire`, `release`, `async with`."""
        whole(f"semaphore {name!r}", value, 0)
        return self._make(Semaphore, name, value)

    def event(self, name: str, value: bool = False) -> Event:
        """A flag: `set`, `clear`, `is_set`, `wait`."""
        flag(f"event {name!r}", value)
        return self._make(Event, name, value)

    def queue(self, name: str, maxsize: int = 0) -> Queue:
        """A FIFO: `put`, `get`, `try_put`, `try_get`; bounded when `maxsize` is not 0."""
        whole(f"queue {name!r}: maxsize", maxsize, 0)
        queue = self._make(Queue, name, ())
        if queue.maxsize != maxsize:
            queue.limit(maxsize)
        return queue

    def condition(
        self, name: str, lock: Lock | None = None, *, unlocked: bool = False
    ) -> Condition:
        """A condition variable of `lock` (its own when None): `wait`, `notify`, `notify_all`.

        `unlocked`: who notifies need not hold the lock.
        """
        if lock is None:
            lock = self.lock(f"{name}.lock")
        elif not isinstance(lock, Lock):
            raise wrong(f"condition {name!r}: lock", lock, "a lock of k.lock", TypeError)
        flag(f"condition {name!r}: unlocked", unlocked)
        return Condition(self._make(WaitChannel, name, ()), lock, unlocked)

    def barrier(self, name: str, parties: int) -> Barrier:
        """A meeting of `parties` threads: `wait`, which returns who I was, from 0."""
        whole(f"barrier {name!r}: parties", parties, 1)
        barrier = self._make(Barrier, name, (0, 0))
        barrier.limit(parties)
        return barrier

    def limiter(self, name: str, tokens: int) -> Limiter:
        """At most `tokens` threads at a time: `acquire`, `try_acquire`, `release`, `async with`."""
        whole(f"limiter {name!r}: tokens", tokens, 1)
        limiter = self._make(Limiter, name, ())
        if limiter.tokens != tokens:
            limiter.limit(tokens)
        return limiter

    def channel(self, name: str, room: int = 0) -> tuple[Sender, Receiver]:
        """A memory channel: its end to send and its end to receive, each to `clone` and `close`.

        `room` is how many items it holds; with 0 they go from hand to hand.
        """
        whole(f"channel {name!r}: room", room, 0)
        channel = self._make(Channel, name, Held())
        channel.room = room
        return Sender(channel), Receiver(channel)

    def nursery(self, name: str = "nursery") -> Nursery:
        """`async with`: threads that `start(name, body, *args)` starts end before the block."""
        nursery = self._make(Nursery, name, 0)
        nursery.k = self
        nursery.renew()
        return nursery

    def local(self) -> Local:
        """An object whose attributes each thread has for itself."""
        return Local()

    # -- time ------------------------------------------------------------------------------------

    def now(self) -> float:
        """Virtual seconds. They pass when nobody can run."""
        return CLOCK[0] / SECOND

    def sleep(self, seconds: float) -> Awaitable[None]:
        duration("sleep", seconds)
        return pause(round(seconds * SECOND))

    def timeout(self, seconds: float) -> Timeout:
        """`async with`: TimeoutError for who waits inside for longer; `expired` says whether."""
        duration("timeout", seconds)
        return Timeout(seconds)

    def cancel(self, thread: Thread) -> Awaitable[None]:
        """A step: `Cancelled` is raised in `thread` in place of its next effect."""
        if not isinstance(thread, Thread):
            raise TypeError(f"cancel: {thread!r}, expected a thread")
        cancellation = Cancellation((CANCEL, *thread.path))
        if cancellation.key not in self.numbers.cancelled:
            self.numbers.cancel(cancellation.key)
            self.watched[thread] = None  # from the next execution on
        elif thread not in self.watched:
            self.numbers.expose(cancellation.key)  # every step might have been cancelled
        return cancellation.cancel(thread, self.execution.divert)

    # -- steps -----------------------------------------------------------------------------------

    def step(self, *writes: Any, reads: Iterable[Any] = ()) -> Awaitable[None]:
        """A step in which the thread, up to its next await, may change `writes` and look at
        `reads`: their `state`."""
        looked_at = several("step: reads", reads)
        touched = (*((shared, True) for shared in writes), *((s, False) for s in looked_at))
        for shared, _ in touched:
            if not isinstance(shared, Shared):
                raise TypeError(f"step: {shared!r}, expected a shared object")
        if not touched:
            raise TypeError("step: expected the shared objects that it touches")
        first, *rest = flags = tuple(dict(reversed(touched)).items())[::-1]
        if not rest:
            return announce(Effect(first[0], "step", write=first[1]))
        together = Together(tuple(shared for shared, _ in flags))
        return announce(Effect(together, "step", write=any(dict(flags).values()), also=flags))

    async def select(self, *operations: Any) -> tuple[int, Any]:
        """Wait until one of several operations, made and not awaited, can go on; that one is done.

        Returns which, from 0, and what it returned. Where several can, each is explored.
        """
        if not operations:
            raise TypeError("select: expected the operations to wait for, as queue.get()")
        return await select(self, operations)

    async def choose(self, count: int, name: str = "choice") -> int:
        """A choice that is not the scheduler's: each of 0 to `count` - 1 is explored."""
        whole("choose", count, 1)
        made = Cell(fresh_key(Own(name)), None)
        take = Effect(made, "choose", write=True, guard=is_none)
        for number in range(count):
            self.spawn(f"{name} {number}", chosen(take, made, number), daemon=True)
        await made.wait(is_made)
        return int(made.state)


def check_rank(name: str, rank: int | None) -> None:
    if rank is not None:
        whole(f"{name}: rank", rank, None)


@coroutine
def announce(effect: Effect) -> Step:
    yield effect


@coroutine
def chosen(take: Effect, made: Cell, number: int) -> Step:
    yield take
    made.state = number


def is_made(state: Any) -> bool:
    return state is not None

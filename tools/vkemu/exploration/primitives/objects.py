"""Shared objects for user programs, made of the same effects as the kernel model's.

`Cell`, `Lock` and `RWLock` are the kernel model's own; these are what other programs also need.
"""

from __future__ import annotations

from typing import Any

from vkprotocol.effects import (
    Body,
    Effect,
    Interrupted,
    Key,
    Lock,
    Shared,
    Step,
    WaitChannel,
    coroutine,
    curthread,
    is_none,
    is_true,
    key_text,
    look_at,
    took,
)

from vkemu.exploration.looks import check_setup
from vkemu.exploration.primitives.scopes import Again


class Semaphore(Shared):
    """A counting semaphore; `state` is how many may still enter."""

    __slots__ = ("_acquire", "_release", "_try")

    def __init__(self, key: Key, value: int = 1) -> None:
        super().__init__(key, value)
        self._acquire = Effect(self, "acquire", write=True, guard=is_true)
        self._try = Effect(self, "try_acquire", write=True)
        self._release = Effect(self, "release", write=True)

    @property
    def value(self) -> Any:
        return look_at(self)

    @coroutine
    def acquire(self) -> Step:
        yield self._acquire
        self.state -= 1

    @coroutine
    def try_acquire(self) -> Step:
        yield self._try
        if not self.state:
            return False
        self.state -= 1
        return True

    @coroutine
    def release(self) -> Step:
        yield self._release
        self.state += 1

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc: object) -> None:
        await self.release()


class Event(Shared):
    """A flag that threads wait for; `state` is True while it is set."""

    __slots__ = ("_clear", "_is_set", "_set", "_wait")

    def __init__(self, key: Key, value: bool = False) -> None:
        super().__init__(key, value)
        self._set = Effect(self, "set", write=True)
        self._clear = Effect(self, "clear", write=True)
        self._is_set = Effect(self, "is_set", write=False)
        self._wait = Effect(self, "wait", write=False, guard=is_true)

    @property
    def value(self) -> Any:
        return look_at(self)

    @coroutine
    def set(self) -> Step:
        yield self._set
        self.state = True

    @coroutine
    def clear(self) -> Step:
        yield self._clear
        self.state = False

    @coroutine
    def is_set(self) -> Step:
        yield self._is_set
        return self.state

    @coroutine
    def wait(self) -> Step:
        yield self._wait


class Queue(Shared):
    """A FIFO, bounded when `maxsize` is not 0; `state` is the tuple of its items."""

    __slots__ = ("_get", "_maxsize", "_put", "_try_get", "_try_put")

    def __init__(self, key: Key, maxsize: int = 0) -> None:
        super().__init__(key, ())
        self.limit(maxsize)
        self._get = Effect(self, "get", write=True, guard=is_true)
        self._try_put = Effect(self, "try_put", write=True)
        self._try_get = Effect(self, "try_get", write=True)

    def limit(self, maxsize: int) -> None:
        """Set-up only."""
        check_setup(self, "limit")
        self._maxsize = maxsize
        room = (lambda items: len(items) < maxsize) if maxsize else None
        self._put = Effect(self, "put", write=True, guard=room)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @property
    def value(self) -> Any:
        return look_at(self)

    @coroutine
    def put(self, item: Any) -> Step:
        """Append; blocks while the queue is full."""
        yield self._put
        self.state = (*self.state, item)

    @coroutine
    def get(self) -> Step:
        """Take the first; blocks while the queue is empty."""
        yield self._get
        first, *rest = self.state
        self.state = tuple(rest)
        return first

    @coroutine
    def try_put(self, item: Any) -> Step:
        """False when the queue is full."""
        yield self._try_put
        if self._maxsize and len(self.state) >= self._maxsize:
            return False
        self.state = (*self.state, item)
        return True

    @coroutine
    def try_get(self, default: Any = None) -> Step:
        """`default` when the queue is empty."""
        yield self._try_get
        if not self.state:
            return default
        first, *rest = self.state
        self.state = tuple(rest)
        return first


class End(Shared):
    """The end of a thread, for others to wait for; `state` is None, then (what it returned,)."""

    __slots__ = ("_end", "_join", "name")

    def __init__(self, key: Key, name: str) -> None:
        super().__init__(key, None)
        self.name = name
        self._end = Effect(self, "end", write=True)
        self._join = Effect(self, "join", write=False, guard=is_true)

    def said(self) -> str:
        return f"{self.name} is not done"

    async def after(self, coro: Body) -> None:
        """`coro`, and then a step that says it is over, with None where it was cancelled."""
        result = None
        try:
            result = await coro
        except Interrupted:
            pass
        await self._reach(result)

    @coroutine
    def _reach(self, result: Any) -> Step:
        yield self._end
        self.state = (result,)

    @coroutine
    def join(self) -> Step:
        yield self._join
        return self.state[0]


class Condition:
    """A condition variable of `lock`.

    `wait` is four steps: join the queue (the lock still held, so that no notify is lost), release
    the lock, sleep until notified, acquire the lock. There are no spurious wake-ups. `unlocked`
    ones may be notified by who does not hold the lock.
    """

    __slots__ = ("_take", "channel", "lock", "unlocked")

    def __init__(self, channel: WaitChannel, lock: Lock, unlocked: bool = False) -> None:
        self.channel = channel
        self.lock = lock
        self.unlocked = unlocked
        self._take = Again(lock, "acquire", write=True, guard=is_none)

    async def wait(self) -> None:
        self._check("wait for")
        await self.channel.enqueue()
        await self.lock.release()
        try:
            await self.channel.sleep()
        except Interrupted:
            me = curthread().tid
            asleep = self.channel.state
            # Who was notified and is interrupted all the same passes it on.
            left = tuple(tid for tid in asleep if tid != me) if me in asleep else asleep[1:]
            self.channel.state = left
            await self._again()
            raise
        await self._again()

    @coroutine
    def _again(self) -> Step:
        me = yield self._take
        if me.held is not None:
            took(me, self.lock)
        self.lock.state = me.tid

    async def notify(self) -> None:
        """Wake the first waiter."""
        if not self.unlocked:
            self._check("notify")
        await self.channel.wakeup_one()

    async def notify_all(self) -> None:
        if not self.unlocked:
            self._check("notify")
        await self.channel.wakeup()

    async def __aenter__(self) -> None:
        await self.lock.acquire()

    async def __aexit__(self, *exc: object) -> None:
        await self.lock.release()

    def _check(self, what: str) -> None:
        # No effect needed: whether *this* thread owns the lock, only this thread can change.
        me = curthread()
        if self.lock.state != me.tid:
            channel, lock = key_text(self.channel.key), key_text(self.lock.key)
            raise RuntimeError(f"{me.name} must hold {lock} to {what} {channel}")

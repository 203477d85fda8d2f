"""Objects whose methods are effects: atomic words, locks, sleep queues, mailboxes.

What an effect is, and what every executor relies on, is in `step.py`, which is re-exported here:
kernel code imports all it may await from this one module.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from vkprotocol.step import (
    CLOCK,
    CURTHREAD,
    LOOK,
    Also,
    Body,
    Effect,
    Guard,
    Interrupted,
    Key,
    Shared,
    Spawn,
    Step,
    Thread,
    coroutine,
    curthread,
    fresh_key,
    is_none,
    is_true,
    key_text,
    look_at,
    pause,
    perform,
    reset_setup,
)

__all__ = [
    "CLOCK",
    "CURTHREAD",
    "LOOK",
    "Also",
    "Body",
    "Cell",
    "Effect",
    "Guard",
    "Interrupted",
    "Key",
    "Lock",
    "LockOrderError",
    "Mailbox",
    "RWLock",
    "Shared",
    "Spawn",
    "Step",
    "Thread",
    "WaitChannel",
    "coroutine",
    "curthread",
    "fresh_key",
    "is_none",
    "is_true",
    "key_text",
    "look_at",
    "pause",
    "perform",
    "reset_setup",
    "took",
]


class Cell(Shared):
    """An atomic word. `.state` is its value; `.value` the same, for predicates and set-up."""

    __slots__ = ("_read", "_write")

    def __init__(self, key: Key, value: Any = 0) -> None:
        super().__init__(key, value)
        self._read = Effect(self, "load", write=False)
        self._write = Effect(self, "store", write=True)

    @property
    def value(self) -> Any:
        return look_at(self)

    @coroutine
    def load(self) -> Step:
        yield self._read
        return self.state

    @coroutine
    def store(self, value: Any) -> Step:
        yield self._write
        self.state = value

    @coroutine
    def swap(self, value: Any) -> Step:
        yield self._write
        old, self.state = self.state, value
        return old

    @coroutine
    def cmpset(self, old: Any, new: Any) -> Step:
        """True iff the cell held `old`; a write in either case."""
        yield self._write
        if self.state != old:
            return False
        self.state = new
        return True

    @coroutine
    def add(self, delta: Any) -> Step:
        """Add, returning the value before."""
        yield self._write
        old = self.state
        self.state = old + delta
        return old

    @coroutine
    def set_bits(self, bits: int) -> Step:
        """atomic_set_int: or the bits in, returning the value before."""
        yield self._write
        old = self.state
        self.state = old | bits
        return old

    @coroutine
    def clear_bits(self, bits: int) -> Step:
        """atomic_clear_int: clear the bits, returning the value before."""
        yield self._write
        old = self.state
        self.state = old & ~bits
        return old

    @coroutine
    def wait(self, guard: Guard, deadline: int | None = None) -> Step:
        """Block until `guard(value)`; False when the deadline passed first."""
        effect = Effect(self, "wait", write=False, guard=guard, deadline=deadline)
        if LOOK[0] is not None:
            LOOK[0](effect)  # whose guard may read more than it is given
        yield effect
        return guard(self.state)


class LockOrderError(AssertionError):
    """Locks were taken against the declared order, or one not held was released. Our bug."""


class Lock(Shared):
    """A spin lock or mutex; `state` is the owner's tid or None. Not recursive.

    `rank` orders lock classes: in checking mode a lock may only be taken while every held lock has
    a smaller rank (None: unordered).
    """

    __slots__ = ("_acquire", "_release", "rank")

    def __init__(self, key: Key, rank: int | None = None) -> None:
        super().__init__(key, None)
        self.rank = rank
        self._acquire = Effect(self, "acquire", write=True, guard=is_none)
        self._release = Effect(self, "release", write=True)

    def holders(self) -> tuple[int, ...]:
        """The tids of who holds it; for messages."""
        owner = look_at(self)
        return () if owner is None else (owner,)

    @coroutine
    def acquire(self) -> Step:
        me = yield self._acquire
        if me.held is not None:
            took(me, self)
        self.state = me.tid

    @coroutine
    def try_acquire(self) -> Step:
        me = yield Effect(self, "try_acquire", write=True)
        if self.state is not None:
            return False
        if me.held is not None:
            me.held.append(self)  # a try cannot deadlock, so no order applies
        self.state = me.tid
        return True

    @coroutine
    def release(self) -> Step:
        me = yield self._release
        if self.state != me.tid:
            raise not_held(me, "releases", self.key, held=self.state is not None)
        if me.held is not None:
            me.held.remove(self)
        self.state = None

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc: object) -> None:
        # A coroutine that is closed, its execution over, may not await any more.
        if exc[0] is not GeneratorExit:
            await self.release()


def took(me: Thread, lock: Any) -> None:
    """Record `lock` as held by `me`; raise when it is taken against the declared order."""
    assert me.held is not None
    if lock.rank is not None:
        for other in me.held:
            if other.rank is not None and other.rank >= lock.rank:
                raise LockOrderError(
                    f"{me.name} takes {key_text(lock.key)} (rank {lock.rank}) "
                    f"while holding {key_text(other.key)} (rank {other.rank})"
                )
    me.held.append(lock)


def not_held(me: Thread, does: str, key: Key, *, held: bool) -> LockOrderError:
    """`me` does to a lock what only who holds it may; `held`: another thread does."""
    who = "another thread does" if held else "nobody does"
    return LockOrderError(f"{me.name} {does} {key_text(key)}, which it does not hold; {who}")


class RWLock(Shared):
    """A lockmgr-style shared/exclusive lock with writer preference.

    `state` is (owner tid or None, sorted tuple of reader tids, writers waiting). An exclusive
    request that finds the lock busy first registers as waiting - a step of its own - so that later
    shared requests queue behind it, as lockmgr's do (the third party of window W43).

    Taking and dropping the lock shared are announced as loads: readers come and go in any order
    with the same result, so that two of them do not depend on each other, while anything exclusive
    depends on all of them.
    """

    __slots__ = ("_drop_shared", "_excl", "_release", "_shared", "_try", "_want", "rank")

    def __init__(self, key: Key, rank: int | None = None) -> None:
        super().__init__(key, (None, (), 0))
        self.rank = rank
        self._shared = Effect(
            self, "shared", write=False, guard=lambda s: s[0] is None and not s[2]
        )
        self._want = Effect(self, "exclusive", write=True)
        self._excl = Effect(
            self, "exclusive", write=True, guard=lambda s: s[0] is None and not s[1]
        )
        self._try = Effect(self, "upgrade", write=True)
        self._release = Effect(self, "release", write=True)
        self._drop_shared = Effect(self, "release", write=False)

    def holders(self) -> tuple[int, ...]:
        """The tids of who holds it; for messages."""
        owner, readers, _ = look_at(self)
        return readers if owner is None else (owner,)

    @coroutine
    def acquire_shared(self) -> Step:
        me = yield self._shared
        if me.held is not None:
            took(me, self)
        owner, readers, want = self.state
        self.state = (owner, tuple(sorted((*readers, me.tid))), want)

    @coroutine
    def acquire_exclusive(self) -> Step:
        me = yield self._want
        owner, readers, want = self.state
        if owner is not None or readers:
            self.state = (owner, readers, want + 1)
            try:
                yield self._excl
            except Interrupted:
                owner, readers, want = self.state
                self.state = (owner, readers, want - 1)
                raise
            _, _, want = self.state
            want -= 1
        if me.held is not None:
            took(me, self)
        self.state = (me.tid, (), want)

    def commute(self, state: Any, tid: int, op: str) -> Any:
        """`state` after a load of thread `tid`. What an object whose loads change it must have."""
        owner, readers, want = state
        if op == "shared":
            return (owner, (*readers, tid), want)
        return (owner, tuple(reader for reader in readers if reader != tid), want)

    @coroutine
    def try_upgrade(self) -> Step:
        """Shared to exclusive if we are the only reader; else False, the shared lock is *lost*
        (DragonFly vm_map.h:vm_map_lock_upgrade releases on failure)."""
        me = yield self._try
        owner, readers, want = self.state
        if readers == (me.tid,):
            self.state = (me.tid, (), want)
            return True
        self._drop(me)
        return False

    @coroutine
    def downgrade(self) -> Step:
        me = yield self._release
        owner, readers, want = self.state
        if owner != me.tid:
            raise not_held(me, "downgrades", self.key, held=owner is not None or bool(readers))
        self.state = (None, (me.tid,), want)

    @coroutine
    def release(self) -> Step:
        # Whether we own it or share it, only we can change, so it may be looked at beforehand.
        shared = curthread().tid in self.state[1]
        me = yield self._drop_shared if shared else self._release
        self._drop(me)

    def _drop(self, me: Thread) -> None:
        owner, readers, want = self.state
        if owner == me.tid:
            owner = None
        elif me.tid in readers:
            i = readers.index(me.tid)
            readers = readers[:i] + readers[i + 1 :]
        else:
            raise not_held(me, "releases", self.key, held=owner is not None or bool(readers))
        if me.held is not None:
            me.held.remove(self)
        self.state = (owner, readers, want)


class WaitChannel(Shared):
    """A sleep queue ident: tsleep/ssleep and wakeup. `state` is the tuple of sleeping tids.

    `enqueue` is tsleep_interlock: called with the spinlock still held, it is what makes a wakeup
    between the unlock and the sleep count. `sleep` then blocks until dequeued.
    """

    __slots__ = ("_enqueue", "_wake")

    def __init__(self, key: Key) -> None:
        super().__init__(key, ())
        self._enqueue = Effect(self, "enqueue", write=True)
        self._wake = Effect(self, "wakeup", write=True)

    def sleepers(self) -> tuple[int, ...]:
        """The tids of who sleeps; for messages."""
        asleep: tuple[int, ...] = look_at(self)
        return asleep

    @coroutine
    def enqueue(self) -> Step:
        me = yield self._enqueue
        self.state = (*self.state, me.tid)

    @coroutine
    def sleep(self, timeout_ns: int | None = None) -> Step:
        """Block until woken; True, or False when the timeout came first (EWOULDBLOCK)."""
        tid = curthread().tid
        deadline = None if timeout_ns is None else CLOCK[0] + timeout_ns
        yield Effect(self, "sleep", write=True, guard=lambda s: tid not in s, deadline=deadline)
        if tid not in self.state:
            return True
        self.state = tuple(t for t in self.state if t != tid)
        return False

    @coroutine
    def wakeup(self) -> Step:
        """Wake all sleepers."""
        yield self._wake
        self.state = ()

    @coroutine
    def wakeup_one(self) -> Step:
        yield self._wake
        self.state = self.state[1:]


class Mailbox(Shared):
    """A FIFO of messages; `state` is how many are queued. A message is a visible operation."""

    __slots__ = ("_recv", "_send", "queue")

    def __init__(self, key: Key) -> None:
        super().__init__(key, 0)
        self.queue: deque[Any] = deque()
        self._send = Effect(self, "send", write=True)
        self._recv = Effect(self, "recv", write=True, guard=is_true)

    @coroutine
    def send(self, message: Any) -> Step:
        yield self._send
        self.queue.append(message)
        self.state = len(self.queue)

    @coroutine
    def recv(self) -> Step:
        yield self._recv
        message = self.queue.popleft()
        self.state = len(self.queue)
        return message

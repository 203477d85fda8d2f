"""Ends that others set: timeouts and cancellation.

A thread that is cancelled, or out of time, has `Interrupted` thrown into it in place of the step it
has announced. Who throws stands between the thread's coroutine and the executor (`Between`).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, Final

from vkprotocol.effects import (
    CLOCK,
    CURTHREAD,
    LOOK,
    Effect,
    Interrupted,
    Key,
    Shared,
    Step,
    Thread,
    coroutine,
    curthread,
)

from vkemu.exploration.looks import Asked
from vkemu.exploration.own import SCOPE

SECOND: Final = 1_000_000_000  # ns of virtual time


class Cancelled(Interrupted):
    """Of a thread that was cancelled. It may clean up, and await; then it is over."""


class TimedOut(Interrupted):
    """On its way out of the scope that it belongs to."""

    def __init__(self, scope: Timeout) -> None:
        super().__init__()
        self.scope = scope


class Between:
    """In the place of a thread's coroutine. The frames inside are those of the coroutine."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def send(self, value: Any) -> Any:
        return self.inner.send(value)

    def throw(self, error: BaseException) -> Any:
        return self.inner.throw(error)

    def close(self) -> None:
        self.inner.close()


class Watched(Between):
    """Of a thread that somebody cancels: each of its steps reads whether that has happened."""

    def __init__(self, inner: Any, cancellation: Cancellation) -> None:
        super().__init__(inner)
        self.reads = ((cancellation, False),)
        self.known: dict[Effect, Effect] = {}

    def send(self, value: Any) -> Any:
        return self.reading(self.inner.send(value))

    def throw(self, error: BaseException) -> Any:
        return self.reading(self.inner.throw(error))

    def reading(self, effect: Any) -> Any:
        """The effect, and the cancellation besides."""
        if not isinstance(effect, Effect):
            return effect
        twin = self.known.get(effect)
        if twin is None:
            twin = self.known[effect] = copy(effect)
            twin.also = (*effect.also, *self.reads)
        return twin


class Diverted(Between):
    """`Cancelled` is thrown in place of the next step, but that what gives something back is done
    first. A thread that does not catch it is over."""

    def __init__(self, inner: Any, cancellation: Cancellation, pending: Effect | None) -> None:
        super().__init__(inner)
        self.cancellation = cancellation
        self.thrown = False
        self.next = self.diverted(pending)  # None: what the thread is just about to announce

    def diverted(self, effect: Any) -> Any:
        """What is announced in place of an effect."""
        if not gives_way(effect):
            return effect
        also = tuple(
            (shared, True) for shared, _ in effect.also if not isinstance(shared, Cancellation)
        )
        # Of the same object, which the thread may have to be taken out of.
        found = Interruption(
            effect.obj, "cancelled", write=True, also=((self.cancellation, False), *also)
        )
        found.was = None
        return found

    def send(self, value: Any) -> Any:
        pending = curthread().pending if self.next is None else self.next
        now = isinstance(pending, Interruption) or self.next is None
        if not self.thrown and now and gives_way(pending):
            self.thrown = True
            return self.throw(Cancelled())
        try:
            effect = self.inner.send(value)
        except Cancelled:
            raise StopIteration from None
        if not self.thrown:
            effect = self.next = self.diverted(effect)
        return effect

    def throw(self, error: BaseException) -> Any:
        try:
            return self.inner.throw(error)
        except Cancelled:
            raise StopIteration from None


def gives_way(effect: Any) -> bool:
    # What is done all the same by a thread that is cancelled.
    gives_back = ("release", "close", "wakeup", "count", "cancel", "end")
    return isinstance(effect, Effect) and effect.op not in gives_back and type(effect) is not Again


class Again(Effect):
    """Of who takes a lock again on the way out of a wait: neither cancelled nor out of time."""

    __slots__ = ()


class Interruption(Effect):
    """In the place of a thread's effect, when it was cancelled. Before that it would have been
    `was`, where that had been announced: see `reduction.interrupted`."""

    __slots__ = ("was",)

    was: Effect | None

    @property
    def write(self) -> bool:
        return True

    @write.setter
    def write(self, value: bool) -> None:
        pass


class Cancellation(Shared):
    """That a thread is to be cancelled; `state` is how often it was."""

    __slots__ = ("_cancel",)

    def __init__(self, key: Key) -> None:
        super().__init__(key, 0)
        self._cancel = Effect(self, "cancel", write=True)

    @coroutine
    def cancel(self, thread: Thread, divert: Callable[[Thread, Effect], None]) -> Step:
        me = yield self._cancel
        instead = thread.pending
        if thread.done or isinstance(instead, Interruption):
            return
        self.state += 1
        if me is thread:
            instead = None
        thread.coro = diverted = Diverted(thread.coro, self, instead)  # type: ignore[assignment]
        if isinstance(diverted.next, Interruption):
            diverted.next.was = instead
            divert(thread, diverted.next)


class Timeout:
    """`async with`: what waits inside for longer is interrupted, and the scope raises TimeoutError.

    Time is virtual: it passes when nobody can run.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.out = False
        self.deadline = 0
        self.timed: Timed | None = None
        self.owner: Thread | None = None  # who waits inside

    @property
    def expired(self) -> bool:
        """Whether it has ended what was inside."""
        me = CURTHREAD[0]
        if LOOK[0] is not None and me is not None and me is not self.owner:
            LOOK[0](Asked(self.owner, "expired"))
        return self.out

    async def __aenter__(self) -> Timeout:
        me, owner = curthread(), self.owner
        if owner is not None:
            if LOOK[0] is not None and me is not owner:
                LOOK[0](Asked(owner, "timeout"))
            raise RuntimeError(
                f"{me.name} enters a timeout that {owner.name} has entered; each is for one block"
            )
        self.owner = me
        self.deadline = CLOCK[0] + round(self.seconds * SECOND)
        self.timed = Timed(me.coro, self)
        me.coro = self.timed  # type: ignore[assignment]
        await enter()  # the executor asks the new one from the next step on
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        me, timed = curthread(), self.timed
        assert timed is not None
        timed.over = True
        running: Any = me.coro
        if running is timed:
            me.coro = timed.inner
        if isinstance(error, TimedOut) and error.scope is self:
            raise TimeoutError(f"{self.seconds} s") from None


@coroutine
def enter() -> Step:
    """A step that touches nothing another thread knows."""
    me = curthread()
    yield Effect(Shared((SCOPE, *me.path)), "enter", write=True)


class Timed(Between):
    """Effects that wait get the deadline of the scope."""

    def __init__(self, inner: Any, scope: Timeout) -> None:
        super().__init__(inner)
        self.scope = scope
        self.over = False
        self.asked: Effect | None = None  # of the thread, when it waits

    def send(self, value: Any) -> Any:
        asked, self.asked = self.asked, None
        late = asked is not None and CLOCK[0] >= self.scope.deadline and not self.over
        if late and not open_now(asked):
            self.scope.out = True
            return self._timed(self.inner.throw(TimedOut(self.scope)))
        return self._timed(self.inner.send(value))

    def throw(self, error: BaseException) -> Any:
        self.asked = None
        return self._timed(self.inner.throw(error))

    def _timed(self, effect: Any) -> Any:
        if self.over or self.scope.out or type(effect) is not Effect or effect.guard is None:
            return effect
        deadline = self.scope.deadline
        if effect.deadline is not None and effect.deadline <= deadline:
            return effect
        self.asked = effect
        return Effect(
            effect.obj, effect.op, write=effect.write, guard=effect.guard, also=effect.also,
            deadline=deadline,
        )  # fmt: skip


def open_now(effect: Effect | None) -> bool:
    """Whether its guard holds; one that raises lets the thread go on, to fail."""
    assert effect is not None
    assert effect.guard is not None
    try:
        return bool(effect.guard(effect.obj.state))
    except Exception:
        return True


class Local:
    """Attributes that each thread has for itself."""

    def __init__(self) -> None:
        object.__setattr__(self, "_of", {})

    def __getattr__(self, name: str) -> Any:
        me = owner(name)
        try:
            return self._of[me.path, name]
        except KeyError:
            raise AttributeError(f"{me.name} has no {name}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._of[owner(name).path, name] = value

    def __delattr__(self, name: str) -> None:
        self.__getattr__(name)
        del self._of[owner(name).path, name]


def owner(name: str) -> Thread:
    me = CURTHREAD[0]
    if me is None:
        raise RuntimeError(f"local: {name} belongs to a thread, and none runs here")
    return me

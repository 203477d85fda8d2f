"""Where threads meet: a barrier, and a limiter of how many may be inside."""

from __future__ import annotations

from typing import Any

from vkprotocol.effects import (
    Effect,
    Key,
    Shared,
    Step,
    coroutine,
    curthread,
    key_text,
    look_at,
    not_held,
)

from vkemu.exploration.looks import check_setup


class Barrier(Shared):
    """`parties` threads wait for each other; `state` is (generation, how many have arrived)."""

    __slots__ = ("_arrive", "_parties")

    def __init__(self, key: Key, parties: int = 1) -> None:
        super().__init__(key, (0, 0))
        self.limit(parties)
        self._arrive = Effect(self, "arrive", write=True)

    def limit(self, parties: int) -> None:
        """Set-up only."""
        check_setup(self, "limit")
        self._parties = parties

    @property
    def parties(self) -> int:
        return self._parties

    def said(self) -> str:
        """How far it is; for messages."""
        return f"{look_at(self)[1]} of {self._parties} have arrived"

    @coroutine
    def wait(self) -> Step:
        """Arrive, and go on when all have; returns which was I, from 0."""
        yield self._arrive
        generation, arrived = self.state
        if arrived + 1 == self._parties:
            self.state = (generation + 1, 0)
            return arrived
        self.state = (generation, arrived + 1)
        yield Effect(self, "wait", write=False, guard=lambda state: state[0] != generation)
        return arrived


class Limiter(Shared):
    """At most `tokens` threads hold it at a time, each once; `state` is the tuple of their tids."""

    __slots__ = ("_acquire", "_release", "_tokens", "_try")

    def __init__(self, key: Key, tokens: int = 1) -> None:
        super().__init__(key, ())
        self._try = Effect(self, "try_acquire", write=True)
        self._release = Effect(self, "release", write=True)
        self.limit(tokens)

    def limit(self, tokens: int) -> None:
        """Set-up only."""
        check_setup(self, "limit")
        self._tokens = tokens
        room = lambda holders: len(holders) < tokens  # noqa: E731
        self._acquire = Effect(self, "acquire", write=True, guard=room)

    @property
    def tokens(self) -> int:
        return self._tokens

    def holders(self) -> tuple[int, ...]:
        """The tids of who holds it; for messages."""
        held: tuple[int, ...] = look_at(self)
        return held

    def _free_of(self, what: str) -> None:
        # Whether I hold it only I can change, so it may be looked at beforehand.
        me = curthread()
        if me.tid in self.state:
            raise RuntimeError(f"{me.name} {what} {key_text(self.key)}, which it holds already")

    @coroutine
    def acquire(self) -> Step:
        self._free_of("acquires")
        me = yield self._acquire
        self.state = (*self.state, me.tid)

    @coroutine
    def try_acquire(self) -> Step:
        self._free_of("tries to acquire")
        me = yield self._try
        if len(self.state) >= self._tokens:
            return False
        self.state = (*self.state, me.tid)
        return True

    @coroutine
    def release(self) -> Step:
        me = yield self._release
        if me.tid not in self.state:
            raise not_held(me, "releases", self.key, held=bool(self.state))
        self.state = tuple(tid for tid in self.state if tid != me.tid)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc: Any) -> None:
        if exc[0] is not GeneratorExit:
            await self.release()

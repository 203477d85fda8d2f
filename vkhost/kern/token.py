"""LWKT tokens, and the sleeps that lose them. DragonFly lwkt_token.c, kern_synch.c.

A token serialises only while its holder runs: whoever sleeps gives up every token it holds and has
them all again when it wakes, so what a token guards may have changed over any sleep.
"""

from __future__ import annotations

from types import TracebackType, coroutine
from typing import Any

from vkprotocol.effects import (
    CLOCK,
    Effect,
    Guard,
    Key,
    Lock,
    LockOrderError,
    Shared,
    Step,
    Thread,
    WaitChannel,
    curthread,
    key_text,
    look_at,
    perform,
)


def _unowned(state: Any) -> bool:
    return state[0] is None and not state[1]


def _unowned_exclusively(state: Any) -> bool:
    return state[0] is None


class Token(Shared):
    """`state` is (exclusive owner's tid or None, tids of shared holders). Recursive.

    Asking for a busy token while holding others gives the others up for the wait, as LWKT does:
    tokens need no order and cannot deadlock.
    """

    __slots__ = (
        "_exclusive", "_release", "_release_shared", "_shared", "_try", "_try_shared", "rank",
    )  # fmt: skip

    def __init__(self, key: Key) -> None:
        super().__init__(key, (None, ()))
        self.rank = None
        self._exclusive = Effect(self, "gettoken", write=True, guard=_unowned)
        # Sharing is announced as a load: sharers come and go in any order with the same result.
        self._shared = Effect(self, "gettoken_shared", write=False, guard=_unowned_exclusively)
        self._try = Effect(self, "trytoken", write=True)
        self._try_shared = Effect(self, "trytoken_shared", write=False)
        self._release = Effect(self, "reltoken", write=True)
        self._release_shared = Effect(self, "reltoken", write=False)

    def holders(self) -> tuple[int, ...]:
        """The tids of who holds it; for messages."""
        owner, readers = look_at(self)
        return readers if owner is None else (owner,)

    async def acquire(self) -> None:
        """lwkt_gettoken."""
        await self._get(exclusive=True)

    async def acquire_shared(self) -> None:
        """lwkt_gettoken_shared."""
        await self._get(exclusive=False)

    async def _get(self, *, exclusive: bool) -> None:
        me = curthread()
        if me.tokens:
            for token, owned in me.tokens:
                if token is self:
                    if exclusive and not owned:
                        raise LockOrderError(f"{me.name} upgrades shared {key_text(self.key)}")
                    me.tokens.append((self, owned))
                    return
            if not await self._attempt(exclusive):
                given_up = await _give_up_tokens(me)
                await _take_back_tokens(me, [*given_up, (self, exclusive)])
                return
        else:
            await self._wait(exclusive)
        me.tokens.append((self, exclusive))

    @coroutine
    def _attempt(self, exclusive: bool) -> Step:
        me = yield self._try if exclusive else self._try_shared
        if not (_unowned if exclusive else _unowned_exclusively)(self.state):
            return False
        self._own(me, exclusive)
        return True

    @coroutine
    def _wait(self, exclusive: bool) -> Step:
        me = yield self._exclusive if exclusive else self._shared
        self._own(me, exclusive)

    def _own(self, me: Thread, exclusive: bool) -> None:
        self.state = (me.tid, ()) if exclusive else (None, tuple(sorted((*self.state[1], me.tid))))
        if me.held is not None:
            me.held.append(self)

    @coroutine
    def _drop(self) -> Step:
        shared = curthread().tid in self.state[1]
        me = yield self._release_shared if shared else self._release
        owner, readers = self.state
        if owner == me.tid:
            self.state = (None, ())
        else:
            i = readers.index(me.tid)
            self.state = (None, readers[:i] + readers[i + 1 :])
        if me.held is not None:
            me.held.remove(self)

    def commute(self, state: Any, tid: int, op: str) -> Any:
        """`state` after a load of thread `tid`: sharing, or no longer."""
        owner, readers = state
        if op == "reltoken":
            return (owner, tuple(reader for reader in readers if reader != tid))
        return state if owner is not None else (owner, (*readers, tid))

    async def release(self) -> None:
        """lwkt_reltoken: give up the latest reference."""
        tokens = curthread().tokens
        for i in range(len(tokens) - 1, -1, -1):
            if tokens[i][0] is self:
                del tokens[i]
                break
        else:
            raise LockOrderError(f"release of {key_text(self.key)}, which is not held")
        if all(token is not self for token, _ in tokens):
            await self._drop()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.release()


Held = list[tuple[Token, bool]]


async def _give_up_tokens(me: Thread) -> Held:
    """lwkt_relalltokens: what a thread does as it is switched out."""
    given_up: Held = me.tokens
    me.tokens = []
    for token in dict(given_up):
        await token._drop()
    return given_up


async def _take_back_tokens(me: Thread, wanted: Held) -> None:
    """lwkt_getalltokens: all of them or none, so that no order between tokens is needed."""
    modes = dict(wanted)  # each token once: a recursive reference has the mode of the first
    order = list(modes)
    while order:
        first, *others = order
        await first._wait(modes[first])
        taken = [first]
        for token in others:
            if not await token._attempt(modes[token]):
                break
            taken.append(token)
        else:
            break
        for mine in taken:
            await mine._drop()
        # Wait for the busy one next time.
        order = [token, *(t for t in order if t is not token)]
    me.tokens = wanted


async def tsleep(
    chan: WaitChannel, timeout_ns: int | None = None, spin: Lock | None = None
) -> bool:
    """Sleep on an ident, without the tokens. False: the timeout came first (EWOULDBLOCK).

    With `spin`, ssleep: the spinlock is released once the thread is on the sleep queue, so that no
    wakeup between the two is lost, and is taken again.
    """
    me = curthread()
    await chan.enqueue()
    if spin is not None:
        await spin.release()
    given_up = await _give_up_tokens(me) if me.tokens else None
    woken: bool = await chan.sleep(timeout_ns)
    if given_up:
        await _take_back_tokens(me, given_up)
    if spin is not None:
        await spin.acquire()
    return woken


async def tsleep_until(
    obj: Shared, guard: Guard, wmesg: str, timeout_ns: int | None = None
) -> bool:
    """Sleep, without the tokens, until `guard(obj.state)`; False when the timeout came first."""
    me = curthread()
    given_up = await _give_up_tokens(me) if me.tokens else None
    deadline = None if timeout_ns is None else CLOCK[0] + timeout_ns
    await perform(Effect(obj, f"sleep {wmesg}", write=False, guard=guard, deadline=deadline))
    held: bool = guard(obj.state)
    if given_up:
        await _take_back_tokens(me, given_up)
    return held

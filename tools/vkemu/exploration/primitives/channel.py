"""A memory channel: a buffer with ends to send and to receive, each to be cloned and closed.

As trio's: what is sent with no room in the buffer is offered, and its sender waits until somebody
has taken it. When all ends to send are closed and the buffer is empty, the channel has ended.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vkprotocol.effects import Effect, Interrupted, Key, Shared, Step, coroutine, key_text, look_at

from vkemu.exploration.primitives.select import Meeting, Wanting


class EndOfChannel(Exception):
    """Nothing is left, and nobody can send any more."""


class BrokenChannel(Exception):
    """Nobody is left to receive."""


class ClosedChannel(Exception):
    """This end has been closed."""


class Held(NamedTuple):
    """The state. The ends are numbers, those that are open; `waiting`: receivers with no item;
    `offers`: what senders wait with, each with the tid of who it is."""

    items: tuple[Any, ...] = ()
    offers: tuple[tuple[int, Any], ...] = ()
    senders: tuple[int, ...] = (0,)
    receivers: tuple[int, ...] = (0,)
    waiting: int = 0
    selects: tuple[Meeting, ...] = ()  # branches that have to meet each other, taken or not
    ends: int = 1  # ever made, on each side


def can_take(held: Held) -> bool:
    return bool(held.items or held.offers)


class Channel(Shared):
    __slots__ = ("room",)

    def __init__(self, key: Key, room: int = 0) -> None:
        super().__init__(key, Held())
        self.room = room

    @property
    def meets(self) -> bool:
        """Whether who sends has to meet who receives."""
        return not self.room

    def full(self, held: Held) -> bool:
        return len(held.items) >= self.room + held.waiting

    def said(self) -> str:
        """How it is; for messages."""
        held: Held = look_at(self)
        ends = f"{len(held.senders)} open to send, {len(held.receivers)} to receive"
        return f"{len(held.items) + len(held.offers)} items, {ends}"


class Sender:
    """An end to send: `send`, `try_send`, `clone`, `close`, `async with`."""

    __slots__ = ("_clone", "_close", "_ready", "_try", "channel", "number")

    def __init__(self, channel: Channel, number: int = 0) -> None:
        self.channel = channel
        self.number = number

        def ready(held: Held) -> bool:
            return not channel.full(held) or not held.receivers or number not in held.senders

        self._ready = ready
        self._try = Effect(channel, "try_send", write=True)
        self._clone = Effect(channel, "clone", write=True)
        self._close = Effect(channel, "close", write=True)

    def _put(self, item: Any) -> bool:
        held: Held = self.channel.state
        if self.number not in held.senders:
            raise ClosedChannel(f"{key_text(self.channel.key)}: this end to send is closed")
        if not held.receivers:
            raise BrokenChannel(f"{key_text(self.channel.key)}: nobody is left to receive")
        if self.channel.full(held):
            return False
        self.channel.state = held._replace(items=(*held.items, item))
        return True

    @coroutine
    def send(self, item: Any) -> Step:
        """Blocks while the buffer is full. BrokenChannel, ClosedChannel."""
        me = yield Wanting(self.channel, "send", self._ready, item)
        if self._put(item):
            return
        held: Held = self.channel.state
        self.channel.state = held._replace(offers=(*held.offers, (me.tid, item)))
        number = self.number

        def over(held: Held) -> bool:
            gone = all(tid != me.tid for tid, _ in held.offers)
            return gone or not held.receivers or number not in held.senders

        try:
            yield Effect(self.channel, "send", write=True, guard=over)
        except Interrupted:
            self._withdraw(me.tid)
            raise
        if self._withdraw(me.tid):
            self._put(item)  # to say what is wrong

    def _withdraw(self, tid: int) -> bool:
        held: Held = self.channel.state
        left = tuple(offer for offer in held.offers if offer[0] != tid)
        self.channel.state = held._replace(offers=left)
        return len(left) < len(held.offers)

    @coroutine
    def try_send(self, item: Any) -> Step:
        """False when it would block."""
        yield self._try
        return self._put(item)

    @coroutine
    def clone(self) -> Step:
        yield self._clone
        held: Held = self.channel.state
        if self.number not in held.senders:
            raise ClosedChannel(f"{key_text(self.channel.key)}: this end to send is closed")
        number = held.ends
        self.channel.state = held._replace(senders=(*held.senders, number), ends=number + 1)
        return Sender(self.channel, number)

    @coroutine
    def close(self) -> Step:
        """Once or several times."""
        yield self._close
        held: Held = self.channel.state
        left = tuple(number for number in held.senders if number != self.number)
        self.channel.state = held._replace(senders=left)

    async def __aenter__(self) -> Sender:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        if exc[0] is not GeneratorExit:
            await self.close()


class Receiver:
    """An end to receive: `receive`, `try_receive`, `clone`, `close`, `async with`, `async for`."""

    __slots__ = ("_clone", "_close", "_receive", "_try", "_want", "channel", "number")

    def __init__(self, channel: Channel, number: int = 0) -> None:
        self.channel = channel
        self.number = number

        def ready(held: Held) -> bool:
            return can_take(held) or not held.senders or number not in held.receivers

        self._want = Wanting(channel, "receive", ready)
        self._receive = Effect(channel, "receive", write=True, guard=ready)
        self._try = Effect(channel, "try_receive", write=True)
        self._clone = Effect(channel, "clone", write=True)
        self._close = Effect(channel, "close", write=True)

    def _open(self) -> Held:
        held: Held = self.channel.state
        if self.number not in held.receivers:
            raise ClosedChannel(f"{key_text(self.channel.key)}: this end to receive is closed")
        return held

    def _take(self, waited: int = 0) -> Any:
        held: Held = self.channel.state
        held = self.channel.state = held._replace(waiting=held.waiting - waited)
        self._open()
        if not can_take(held):
            raise EndOfChannel(f"{key_text(self.channel.key)}: nobody is left to send")
        items, offers = held.items, held.offers
        if offers and len(items) <= self.channel.room + held.waiting:  # there is room now
            items, offers = (*items, offers[0][1]), offers[1:]
        self.channel.state = held._replace(items=items[1:], offers=offers)
        return items[0]

    @coroutine
    def receive(self) -> Step:
        """Blocks while there is nothing. EndOfChannel, ClosedChannel."""
        yield self._want
        held = self._open()
        if can_take(held) or not held.senders:
            return self._take()
        self.channel.state = held._replace(waiting=held.waiting + 1)
        try:
            yield self._receive
        except Interrupted:
            held = self.channel.state
            self.channel.state = held._replace(waiting=held.waiting - 1)
            raise
        return self._take(1)

    @coroutine
    def try_receive(self, default: Any = None) -> Step:
        """`default` when it would block. EndOfChannel, ClosedChannel."""
        yield self._try
        held = self._open()
        return self._take() if can_take(held) or not held.senders else default

    @coroutine
    def clone(self) -> Step:
        yield self._clone
        held = self._open()
        number = held.ends
        self.channel.state = held._replace(receivers=(*held.receivers, number), ends=number + 1)
        return Receiver(self.channel, number)

    @coroutine
    def close(self) -> Step:
        """Once or several times."""
        yield self._close
        held: Held = self.channel.state
        left = tuple(number for number in held.receivers if number != self.number)
        self.channel.state = held._replace(receivers=left)

    def __aiter__(self) -> Receiver:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except EndOfChannel:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Receiver:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        if exc[0] is not GeneratorExit:
            await self.close()

"""A network in memory: ports, and connections between them.

Each direction of a connection is a thread of the world. What was sent gets there in its order, a
piece a step, at any time after it was sent; so do the beginning of a connection, its end and its
reset. Whoever sends touches the direction's `sent`, whoever reads its `arrived`; so the two ends
depend on each other by what arrives and by nothing else. Only who sent more than a window holds
touches what the reader took.

`partial`: what is sent gets there in pieces, and a send may take a part of it. `reset`: each
connection may be reset, at any time.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vkprotocol.effects import Thread

from vkemu.worlds.noting import LOG, touch

if TYPE_CHECKING:
    from vkemu.worlds.world import World

Address = tuple[str, int]
Waiter = Callable[[], object]
WORDS: Final = ("partial", "reset")
WINDOW: Final = 1 << 16  # bytes that may be under way, or there and not taken
EPHEMERAL: Final = 49152
ANY: Final = ("0.0.0.0", "::", "")
END: Final = b""  # the sender has no more
RESET: Final = None


class Line(NamedTuple):
    """A connection as one of its two ends has it."""

    inbound: Pipe
    outbound: Pipe
    local: Address
    remote: Address


class Network:
    """Of one execution. `nobody`: the addresses that were asked for where nobody listened."""

    def __init__(self, world: World, words: tuple[str, ...] = ()) -> None:
        self.world = world
        self.partial = "partial" in words
        self.resets = "reset" in words
        self.listeners: dict[Address, Listener] = {}
        self.nobody: dict[Address, str] = {}
        # By thread, what is under way: since which event, and what happens then.
        self.posted: dict[int, deque[tuple[int, Callable[..., str], tuple[Any, ...]]]] = {}
        self.mishaps: dict[int, Pipe] = {}  # by thread: the connection that it may reset
        self.news = ""  # of what was under way, in the last step
        self.sockets: dict[int, Any] = {}  # by the number it has for a file
        self.files = 1 << 20
        LOG.name(self)

    # -- what is under way -------------------------------------------------------------------------

    def sender(self, what: str) -> Thread:
        owner = self.world.acting
        thread = self.world.born("")
        thread.name = f"{what} {thread.path[-1]} of {owner.name if owner else 'nobody'}"
        self.posted[thread.tid] = deque()
        return thread

    def post(self, thread: Thread, happen: Callable[..., str], *args: Any) -> None:
        at = self.world.at
        self.posted[thread.tid].append((1 << at if at >= 0 else 0, happen, args))

    def under_way(self) -> list[int]:
        return [tid for tid, queue in self.posted.items() if queue]

    def step(self, thread: Thread) -> int:
        """The next of it arrives. The events that this comes after."""
        must, happen, args = self.posted[thread.tid].popleft()
        self.news = happen(*args)
        return must

    # -- resets ------------------------------------------------------------------------------------

    def offer_reset(self, pipe: Pipe) -> None:
        thread = self.world.born("")
        thread.name = f"reset of {pipe.thread.name}"
        self.mishaps[thread.tid] = pipe

    def withdraw_reset(self, pipe: Pipe) -> None:
        """It is closed, and could have been reset before this step."""
        world = self.world
        for tid, other in list(self.mishaps.items()):
            if other is pipe or other.opposite is pipe:
                if world.at >= 0:
                    number = world.objects.number_of
                    places = [(p, f) for p in (other, other.opposite) for f in ("arrived", "sent")]
                    codes = sorted(2 * number((LOG.name(p), f)) + 1 for p, f in places)
                    world.might.append((world.at, tid, tuple(codes), 0))
                del self.mishaps[tid]
                world.over(world.threads[tid])

    def over(self) -> None:
        for pipe in list(self.mishaps.values()):
            self.withdraw_reset(pipe)

    def reset(self, thread: Thread) -> None:
        pipe = self.mishaps.pop(thread.tid)
        pipe.break_off()
        pipe.opposite.break_off()
        self.world.over(thread)
        self.news = "the connection is reset"

    # -- ports -------------------------------------------------------------------------------------

    def port(self, host: str, port: int) -> Address:
        """A port of ours to listen at."""
        if not port:
            touch(self, "ports", write=True)
            port = EPHEMERAL
            while any(used == port for _, used in self.listeners):
                port += 1
        touch(self, ("port", port), write=False)
        if (host, port) in self.listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return host, port

    def listen(self, address: Address) -> Listener:
        touch(self, ("port", address[1]), write=True)
        listener = self.listeners[address] = Listener(self, address)
        return listener

    def at(self, address: Address) -> Listener | None:
        host, port = address
        touch(self, ("port", port), write=False)
        for known in (host, *ANY):
            if (known, port) in self.listeners:
                return self.listeners[known, port]
        return None

    # -- connections -------------------------------------------------------------------------------

    def connect(self, address: Address, done: Callable[[Line | OSError], object]) -> None:
        """Ask for a connection. It comes about later, or does not."""
        thread = self.sender("connection")
        self.post(thread, self.arrive, thread, address, done)

    def arrive(
        self, thread: Any, address: Address, done: Callable[[Line | OSError], object]
    ) -> str:
        listener = self.at(address)
        where = f"{address[0]}:{address[1]}"
        if listener is None:
            self.nobody[address] = where
            done(ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)))
            return f"is refused at {where}"
        there, back = Pipe(self, thread), Pipe(self, self.sender("answers"))
        there.opposite, back.opposite = back, there
        # Told from others by who asks for it: a count would make all connections depend.
        port = EPHEMERAL + zlib.crc32(repr(thread.path).encode()) % (65535 - EPHEMERAL)
        caller = address[0], port
        if self.resets:
            self.offer_reset(there)
        listener.push(Line(there, back, address, caller))
        done(Line(back, there, caller, address))
        return f"gets to {where}"

    def number(self, socket: Any) -> int:
        self.files += 1
        self.sockets[self.files] = socket
        return self.files


class Listener:
    def __init__(self, network: Network, address: Address) -> None:
        self.network = network
        self.address = address
        self.backlog: list[Line] = []
        self.waiters: list[Waiter] = []
        LOG.name(self)

    def push(self, line: Line) -> None:
        touch(self, "backlog", write=True)
        self.backlog.append(line)
        wake(self.waiters)

    def pop(self) -> Line | None:
        touch(self, "backlog", write=bool(self.backlog))
        return self.backlog.pop(0) if self.backlog else None

    def close(self) -> None:
        touch(self.network, ("port", self.address[1]), write=True)
        touch(self, "backlog", write=True)
        self.network.listeners.pop(self.address, None)
        for line in self.backlog:
            line.outbound.reset()
        self.backlog.clear()


class Pipe:
    """One direction of a connection."""

    opposite: Pipe

    def __init__(self, network: Network, thread: Any) -> None:
        self.network = network
        self.thread = thread  # which what is under way belongs to
        self.sent = self.taken = 0
        self.halved = False  # the last send took a half
        self.finished = False  # its sender said so
        self.broken = False  # its sender knows of a reset
        self.arrived = bytearray()
        self.ended = self.was_reset = self.deaf = False  # as its reader has it
        self.readers: list[Waiter] = []
        self.writers: list[Waiter] = []
        LOG.name(self)

    # -- of who sends ------------------------------------------------------------------------------

    def send(self, data: bytes) -> int:
        """How much of it was taken; 0 when there is no room for any."""
        touch(self, "sent", write=True)
        if self.broken or self.finished:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        count = len(data)
        if self.sent + count > WINDOW:
            touch(self, "room", write=False)
            count = min(count, WINDOW - self.sent + self.taken)
        if self.network.partial:
            self.halved = not self.halved and count > 1
            count -= count // 2 if self.halved else 0
        self.sent += count
        for piece in self.pieces(data[:count]):
            self.post(piece)
        return count

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The first byte alone, and the rest in two: short headers and long bodies are cut."""
        cuts = [1, len(data) // 2] if self.network.partial else []
        start = 0
        for cut in (*cuts, len(data)):
            if cut > start:
                yield data[start:cut]
                start = cut

    def finish(self) -> None:
        touch(self, "sent", write=True)
        if not self.finished and not self.broken:
            self.finished = True
            self.post(END)

    def reset(self) -> None:
        """Its sender gives the connection up."""
        touch(self, "sent", write=True)
        if not self.broken:
            self.finished = self.broken = True
            self.post(RESET)

    def post(self, piece: bytes | None) -> None:
        self.network.post(self.thread, self.arrive, piece)

    # -- under way ---------------------------------------------------------------------------------

    def arrive(self, piece: bytes | None) -> str:
        touch(self, "arrived", write=True)
        if piece is RESET:
            self.break_off()
            return "a reset arrives"
        if self.deaf or self.was_reset:
            if piece and self.deaf and not self.opposite.broken:
                self.opposite.reset()
            return "nobody is there for it"
        if piece == END:
            self.ended = True
        self.arrived += piece
        wake(self.readers)
        return f"{len(piece)} bytes arrive" if piece else "the end arrives"

    def break_off(self) -> None:
        """Its reader learns of a reset, and can no more send either."""
        touch(self, "arrived", write=True)
        touch(self.opposite, "sent", write=True)
        self.arrived.clear()
        self.was_reset = self.opposite.broken = True
        wake(self.readers)
        wake(self.opposite.writers)

    # -- of who reads ------------------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether a read would say something."""
        touch(self, "arrived", write=False)
        return bool(self.arrived) or self.ended or self.was_reset

    def take(self, count: int) -> bytes | None:
        """What arrived; None when nothing did."""
        if not self.ready():
            return None
        if self.was_reset:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        touch(self, "arrived", write=bool(self.arrived))
        touch(self, "room", write=True)
        data = bytes(self.arrived[:count])
        del self.arrived[:count]
        self.taken += len(data)
        wake(self.writers)
        return data

    def hang_up(self) -> None:
        """Its reader is gone. What it did not read is answered by a reset, as TCP does."""
        touch(self, "arrived", write=True)
        self.deaf = True
        if self.arrived and not self.was_reset:
            self.opposite.reset()
        else:
            self.opposite.finish()
        self.arrived.clear()
        self.network.withdraw_reset(self)


def wake(waiters: list[Waiter]) -> None:
    waiting, waiters[:] = waiters[:], []
    for waiter in waiting:
        waiter()


def address_of(host: str | bytes | None) -> str:
    """The number of a host: of ours, and of whatever name somebody has for one."""
    name = host.decode() if isinstance(host, bytes) else host
    if not name:
        return ANY[0]
    if name == "localhost":
        return "127.0.0.1"
    if ":" in name or name.replace(".", "").isdigit():
        return name
    digest = zlib.crc32(name.encode())
    return f"10.{digest >> 16 & 255}.{digest >> 8 & 255}.{digest & 255}"

"""asyncio's transports and servers on the network in memory.

What arrives is a step of its own; the loop then calls back, in the order of everything that asked
it to. Each transport's callbacks are a thread, so that connections depend on each other by that
order alone.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

from vkemu.worlds.network import WINDOW
from vkemu.worlds.network_socket import Socket
from vkemu.worlds.noting import LOG, touch

HIGH: Final = 1 << 16


class Transport(asyncio.Transport):
    def __init__(self, loop: Any, sock: Socket, protocol: Any) -> None:
        super().__init__()
        self.loop = loop
        self.sock = sock
        self.protocol = protocol
        self.unsent = bytearray()
        self.finishing = self.closing = self.lost = self.paused = self.held = self.asked = False
        self.high, self.low = HIGH, HIGH // 4
        LOG.name(self)
        loop.transports.append(self)
        assert sock.line is not None
        self.thread = loop.world.born("")
        self.thread.name = f"reader of {sock.line.inbound.thread.name}"

    def begin(self) -> None:
        self.protocol.connection_made(self)
        self.watch()

    # -- reading -----------------------------------------------------------------------------------

    def watch(self) -> None:
        """Call back when something arrives."""
        touch(self, "reading", write=False)
        if self.asked or self.paused or self.closing:
            return
        if self.sock.readable():
            self.arrived()
        else:
            self.sock.when_readable(self.arrived)

    def arrived(self) -> None:
        touch(self, "reading", write=False)
        if not (self.asked or self.paused or self.closing):
            self.asked = True
            self.loop.call_soon(self.read)

    def read(self) -> None:
        touch(self, "reading", write=True)
        self.asked = False
        if self.paused or self.closing:
            return
        try:
            data = self.sock.recv(WINDOW)
        except BlockingIOError:
            self.watch()
        except OSError as error:
            self.fall(error)
        else:
            if data:
                self.give(data)
                self.watch()
            elif not self.protocol.eof_received():
                self.close()

    def give(self, data: bytes) -> None:
        touch(self, "protocol", write=False)
        if not isinstance(self.protocol, asyncio.BufferedProtocol):
            self.protocol.data_received(data)
            return
        while data:
            buffer = memoryview(self.protocol.get_buffer(len(data)))
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            self.protocol.buffer_updated(count)
            data = data[count:]

    def pause_reading(self) -> None:
        touch(self, "reading", write=True)
        self.paused = True

    def resume_reading(self) -> None:
        touch(self, "reading", write=True)
        if self.paused:
            self.paused = False
            self.watch()

    def is_reading(self) -> bool:
        touch(self, "reading", write=False)
        return not self.paused and not self.closing

    # -- writing -----------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        touch(self, "writing", write=True)
        if self.lost or self.finishing:
            return
        self.unsent += data
        if len(self.unsent) == len(data):
            self.flush()
        if len(self.unsent) > self.high and not self.held:
            self.held = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def flush(self) -> None:
        """Send what there is room for; the rest, when there is."""
        touch(self, "writing", write=True)
        try:
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent)]
        except BlockingIOError:
            self.sock.when_writable(lambda: self.loop.call_soon(self.flush))
        except OSError as error:
            self.unsent.clear()
            self.fall(error)
            return
        if self.held and len(self.unsent) <= self.low:
            self.held = False
            self.protocol.resume_writing()
        if not self.unsent and self.finishing and not self.lost:
            self.sock.shutdown(socket.SHUT_WR)
        if not self.unsent and self.closing:
            self.end(None)

    def write_eof(self) -> None:
        touch(self, "writing", write=True)
        if not self.finishing and not self.lost:
            self.finishing = True
            if not self.unsent:
                self.sock.shutdown(socket.SHUT_WR)

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        touch(self, "writing", write=False)
        return len(self.unsent)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self.low, self.high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high if high is not None else HIGH if low is None else 4 * low
        self.low = low if low is not None else self.high // 4

    # -- the end -----------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        touch(self, "reading", write=False)
        return self.closing

    def close(self) -> None:
        touch(self, "reading", write=True)
        touch(self, "writing", write=True)
        if not self.closing:
            self.closing = True
            if not self.unsent:
                self.end(None)

    def abort(self) -> None:
        touch(self, "writing", write=True)
        if not self.lost:
            self.fall(None)

    def fall(self, error: Exception | None) -> None:
        """The connection is no more."""
        touch(self, "reading", write=True)
        touch(self, "writing", write=True)
        self.closing = True
        self.unsent.clear()
        self.end(error)

    def end(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self.loop.call_soon(self.say_lost, error)

    def say_lost(self, error: Exception | None) -> None:
        touch(self, "writing", write=True)
        try:
            self.protocol.connection_lost(error)
        finally:
            self.sock.close()

    # -- about it ----------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        assert self.sock.line is not None
        known = {
            "socket": self.sock,
            "sockname": self.sock.full(self.sock.line.local),
            "peername": self.sock.full(self.sock.line.remote),
        }
        return known.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        touch(self, "protocol", write=True)
        self.protocol = protocol

    def get_protocol(self) -> Any:
        touch(self, "protocol", write=False)
        return self.protocol


class Server(asyncio.AbstractServer):
    def __init__(self, loop: Any, socks: list[Socket], factory: Any, backlog: int) -> None:
        self.loop = loop
        self.socks: list[Socket] | None = socks
        self.factory = factory
        self.backlog = backlog
        self.serving: Any = None
        self.closers: list[Any] = []
        self.started = False
        LOG.name(self)

    @property
    def sockets(self) -> tuple[Any, ...]:
        touch(self, "serving", write=False)
        return tuple(self.socks or ())

    def get_loop(self) -> Any:
        return self.loop

    def is_serving(self) -> bool:
        touch(self, "serving", write=False)
        return self.started and self.socks is not None

    def start(self) -> None:
        touch(self, "serving", write=True)
        if not self.started:
            self.started = True
            for sock in self.socks or ():
                sock.listen(self.backlog)
                self.watch(sock)

    def watch(self, sock: Socket) -> None:
        if sock.readable():
            self.loop.call_soon(self.accept, sock)
        else:
            sock.when_readable(lambda: self.loop.call_soon(self.accept, sock))

    def accept(self, sock: Socket) -> None:
        touch(self, "serving", write=False)
        while self.socks is not None:
            try:
                accepted, _ = sock.accept()
            except BlockingIOError:
                self.watch(sock)
                return
            transport = Transport(self.loop, accepted, self.factory())
            self.loop.call_soon(transport.begin)

    async def start_serving(self) -> None:
        self.start()
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        self.start()
        self.serving = self.loop.create_future()
        try:
            await self.serving
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise

    def close(self) -> None:
        touch(self, "serving", write=True)
        if self.socks is None:
            return
        socks, self.socks = self.socks, None
        for sock in socks:
            sock.close()
        if self.serving is not None and not self.serving.done():
            self.serving.cancel()

    async def wait_closed(self) -> None:
        await asyncio.sleep(0)

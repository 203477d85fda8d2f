"""The log of a live host: written by a thread of its own, which the host never waits for.

The host renders a line and puts it down; the thread takes all that lie there and writes them at
once. When more than BYTES wait - the disk is slow, the reader of the pipe has stopped - events are
dropped, before they cost anything. They keep their `seq`. As soon as there is room again one
`log.dropped` says how many they were, and which, so that whoever reads the log knows that it does
not know.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from io import FileIO
from typing import Any, Final, Protocol, TextIO, TypeAlias

from structlog.typing import Processor
from vkprotocol.effects import Thread

from vkemu.record.log import EventLog, Shown, renderer_for
from vkemu.record.rundir import DROPPED, RunFolder
from vkemu.record.zstd import module

BYTES: Final = 8 << 20  # of lines that wait or are being written
CLOSE_SECONDS: Final = 5.0  # for what still waits at the end


class Pack(Protocol):
    """A compressor that goes on from one call to the next."""

    def __call__(self, data: bytes, /, *, last: bool) -> bytes: ...


def unpacked(data: bytes, /, *, last: bool) -> bytes:
    return data


def zstd_pack() -> Pack:
    """Each call ends a block, so that a reader has all that was written."""
    compressor = module("--zstd").ZstdCompressor()

    def pack(data: bytes, /, *, last: bool) -> bytes:
        mode = compressor.FLUSH_FRAME if last else compressor.FLUSH_BLOCK
        packed: bytes = compressor.compress(data, mode)
        return packed

    return pack


# How to write, to pack and to end.
Output: TypeAlias = tuple[Callable[[bytes], int], Pack, Callable[[], None]]


class Writer:
    """The thread, and what waits for it. `write_some` is os.write on a file, or stands for it;
    `end` is called when nothing more will be written. `again` opens it anew (`reopen`)."""

    def __init__(
        self,
        write_some: Callable[[bytes], int],
        *,
        pack: Pack = unpacked,
        limit: int = BYTES,
        end: Callable[[], None] = lambda: None,
        again: Callable[[], Output] | None = None,
    ) -> None:
        self.limit = limit
        self.refused = 0  # lines for which there was no room, or nobody to write them
        self.error: Exception | None = None  # what ended the writing
        self._write_some = write_some
        self._pack = pack
        self._end = end
        self._again = again
        self._reopening = False
        # Lines that wait, and those that are being written. Whoever puts one down takes no lock for
        # it: one thread adds at the end, the other takes from the beginning, each in one go.
        self._waiting = bytearray()
        self._taken = b""
        self._lost = 0  # lines that waited when the writing ended
        self._asleep = False
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        return len(self._waiting) + len(self._taken) >= self.limit or self.error is not None

    @property
    def lines(self) -> int:
        """Those that are not written yet."""
        return self._waiting.count(b"\n") + self._taken.count(b"\n") + self._lost

    def write(self, line: bytes) -> None:
        """Put it down. It is not looked whether there is room."""
        if self.error is not None:
            self.refused += 1
            return
        self._waiting += line
        if self._asleep:
            with self._changed:
                self._changed.notify_all()

    def offer(self, line: bytes) -> None:
        """Put it down if there is room."""
        if self.full:
            self.refused += 1
        else:
            self.write(line)

    def reopen(self) -> None:
        """Somebody has moved the file away (logrotate): go on in a new one of its name."""
        if self._again is not None:
            with self._changed:
                self._reopening = True
                self._changed.notify_all()

    def close(self, seconds: float = CLOSE_SECONDS) -> int:
        """Let the thread finish. How many lines were not written."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        self._thread.join(seconds)
        return self.lines + self.refused

    def why(self, seconds: float) -> str:
        """Once closed: what kept lines from being written, if it was not the room."""
        error = self.error
        if isinstance(error, OSError) and error.strerror:
            return f": {error.strerror}"
        if error is not None:
            return f": {type(error).__name__}: {error}"
        late = self._thread.is_alive()
        return f": it could not be written within {seconds:g} s" if late else ""

    def _run(self) -> None:
        try:
            try:
                while self._batch():
                    pass
            finally:
                self._end()
        except Exception as error:  # of the file, the stream or the compressor
            with self._changed:
                self.error = error
            left = self._take()
            self._lost += left.count(b"\n")

    def _take(self) -> bytes:
        taken = bytes(self._waiting)
        del self._waiting[: len(taken)]
        return taken

    def _batch(self) -> bool:
        with self._changed:
            self._asleep = True  # before it looks: who puts a line down looks after that
            while not self._waiting and not self._closing.is_set() and not self._reopening:
                self._changed.wait()
            self._asleep = False
        gather_seconds = 0.05  # a write each line would take the host's time
        self._closing.wait(gather_seconds)
        with self._changed:
            last = self._closing.is_set()
            reopening, self._reopening = self._reopening, False
        self._taken = self._take()
        rest = memoryview(self._pack(self._taken, last=last or reopening))
        while rest:
            rest = rest[self._write_some(rest) :]  # type: ignore[arg-type]
        if reopening and not last:
            assert self._again is not None
            self._end()
            self._write_some, self._pack, self._end = self._again()
        self._taken = b""
        return not last


class LiveLog(EventLog):
    """An EventLog on a Writer. `dropped` counts the events that are not in it."""

    def __init__(
        self,
        writer: Writer,
        run: str,
        schedule: Sequence[int] = (),
        processors: Sequence[Processor] = (),
        renderer: Processor | None = None,
    ) -> None:
        super().__init__(writer, run, schedule, None, processors, renderer)
        self.writer = writer
        self.dropped = 0
        self.beside: Writer | None = None  # where the events are shown too
        self._gap = 0  # how many were dropped since the last line
        self._missing: str | None = None  # once closed

    def _look(self, thread: Thread | None) -> bool:
        """Whether there is room is seen once a turn, which is short."""
        self._tid = -1
        return not self.writer.full and not self._gap and super()._look(thread)

    def _process(self, name: str, args: tuple[Any, ...]) -> None:
        if self.writer.full:
            self.seq += 1
            self.dropped += 1
            self._gap += 1
            return
        if self._gap:
            self._say_gap()
        super()._process(name, args)

    def _say_gap(self) -> None:
        count, self._gap = self._gap, 0
        self.counts[DROPPED] += 1
        super()._process(DROPPED, (count, self.seq - count, self.seq - 1))

    def tell(self, line: str) -> None:
        """A line for standard error, in the midst of no event that is shown there."""
        if self.beside is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.beside.write(f"{line}\n".encode())

    def reopen(self) -> None:
        self.writer.reopen()

    def close(self, seconds: float = CLOSE_SECONDS) -> str:
        """Finish the log. What is missing in it, in a line; empty when nothing is."""
        if self._missing is None:
            self._missing = self._close(seconds)
        return self._missing

    def _close(self, seconds: float) -> str:
        if self._gap and self.writer.error is None:
            self._say_gap()
        unshown = 0
        beside = self.beside
        if beside is not None and beside is not self.writer:
            unshown = beside.close(seconds)
        self.dropped += self.writer.close(seconds)
        missing = []
        why = self.writer.why(seconds)
        if self.dropped:
            missing.append(f"{self.dropped} events are not in the log{why}")
        elif self.writer.error is not None:
            missing.append(f"the log may lack its end{why}")
        if beside is not None and unshown:
            missing.append(f"{unshown} lines were not shown{beside.why(seconds)}")
        return "; ".join(missing)

    def __enter__(self) -> LiveLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_log(
    run: str, folder: RunFolder | None, *, zstd: bool = False, shown: TextIO | None = None
) -> LiveLog:
    """A log in `folder`, shown on `shown`, or both."""
    if folder is None:
        assert shown is not None
        writer = Writer(to_stream(shown))
        log = LiveLog(writer, run, renderer=renderer_for(shown))
        log.beside = writer
        return log

    def again() -> Output:
        file = FileIO(folder.events_path(zstd=zstd), "wb")
        return file.write, zstd_pack() if zstd else unpacked, file.close

    write_some, pack, end = again()
    writer = Writer(write_some, pack=pack, end=end, again=again)
    if shown is None:
        return LiveLog(writer, run)
    beside = Writer(to_stream(shown))
    log = LiveLog(writer, run, processors=[Shown(renderer_for(shown), beside.offer)])
    log.beside = beside
    return log


def to_stream(stream: TextIO) -> Callable[[bytes], int]:
    """Past its buffer, whose lock the host would wait for too; unless it is no file at all."""
    try:
        fd = stream.fileno()
    except AttributeError:  # there is none: it was closed when we were started
        return len
    except (OSError, ValueError):
        return lambda data: stream.write(bytes(data).decode()) and len(data)
    return lambda data: os.write(fd, data)

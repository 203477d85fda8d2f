"""The event log: every `emit` of a run as one JSON line, through processors of structlog.

Each line has seq, step (how many steps were taken, this one included), t (virtual ns), ts (t from a
fixed base, for viewers that want a date), run, actor, cpu, guest, event and level, then the event's
own fields by name, then vc, the step's vector clock, where one is kept. No wall clock: two runs of
one schedule write the same bytes.

The chain of processors, in this order:

1. `EventLog.head` puts the head before the fields;
2. `structlog.contextvars.merge_contextvars` adds what is bound with `bind_contextvars`; the head
   and the fields win where a name is taken;
3. `EventLog.captured` gives the event to `structlog.testing.capture_logs` while that is active, and
   then to nobody else;
4. `processors`, the user's own: each may change the event, or raise `structlog.DropEvent`;
5. `render` makes the line, or `Console` one for a terminal.

Where nobody has anything to say in 2 to 4, `Line` makes the same line at once.
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Protocol, TextIO, TypeAlias

import msgspec
import orjson
import structlog
from msgspec import Struct
from structlog import DropEvent
from structlog.contextvars import merge_contextvars
from structlog.testing import LogCapture
from structlog.typing import EventDict, Processor
from vkprotocol.effects import CLOCK, CURTHREAD, Thread
from vkprotocol.events import EVENTS

BASE = datetime(2000, 1, 1, tzinfo=UTC)
KERNEL = "kernel"  # the actor of what happens outside any thread, at boot

# On a terminal: what is the same on every line, or says in more characters what `t` says.
UNSHOWN: Final = frozenset({"seq", "step", "ts", "run", "vc"})

# Where a thread runs: on which real CPU, for which guest, if for any.
Place = tuple[int | None, str | None]


def nowhere(_thread: Thread) -> Place:
    return None, None


def timestamp(t: int) -> str:
    """The `ts` of virtual nanosecond `t`."""
    seconds, ns = divmod(t, 1_000_000_000)
    return f"{_date(seconds)}.{ns:09d}Z"


@lru_cache(1)
def _date(seconds: int) -> str:
    return f"{BASE + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"


def plain(value: Any) -> str:
    """What JSON has no type for: page contents, compressed (`vkemu.inspect.check` reads them)."""
    if isinstance(value, bytes):
        return "z:" + base64.b64encode(zlib.compress(value, 1)).decode()
    raise TypeError(f"{type(value).__name__} in an event")


def as_line(fields: EventDict) -> bytes:
    try:
        return orjson.dumps(fields, default=plain, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a mask of more than 64 CPUs
        narrow = {name: wide_text(value) for name, value in fields.items()}
        return orjson.dumps(narrow, default=plain, option=orjson.OPT_APPEND_NEWLINE)


def wide_text(value: Any) -> Any:
    """A number of more than 64 bits as text, which is how all readers of JSON take it."""
    word_bits = 64
    wide = isinstance(value, int) and value.bit_length() > word_bits
    return hex(value) if wide else value


class Out(Protocol):
    """A file that takes bytes."""

    def write(self, data: bytes, /) -> Any: ...


class Causality(Protocol):
    """Who knows the vector clock of the step under way (`vkemu.record.vector_clock.Clocked`)."""

    @property
    def clock(self) -> Mapping[str, int]: ...

    @property
    def text(self) -> Sequence[bytes]:
        """The same as JSON, in pieces."""
        ...

    def name(self, thread: Thread) -> str: ...


# seq, step, t, actor, cpu, guest.
Head: TypeAlias = tuple[int, int, int, str, int | None, str | None]


class EventLog:
    """`emit` for a Kernel: names the positional fields and logs them."""

    def __init__(
        self,
        out: Out,
        run: str,
        schedule: Sequence[int] = (),
        causality: Causality | None = None,
        processors: Sequence[Processor] = (),
        renderer: Processor | None = None,
    ) -> None:
        self.run = run
        self.seq = 0
        self.schedule = schedule  # grows by one before each step
        self.causality = causality
        self.place: Callable[[Thread], Place] = nowhere
        self.counts: dict[str, int] = dict.fromkeys(EVENTS, 0)
        self._stamp = (-1, "")
        # The list that capture_logs changes in place.
        self._configured: list[Processor] = structlog.get_config()["processors"]
        self.processors: list[Any] = [
            self.head,
            merge_contextvars,
            self.captured,
            *processors,
            render if renderer is None else renderer,
        ]
        self._out = out
        self._write = out.write
        self._fields = {
            event.name: (event.level, tuple(field.name for field in event.fields))
            for event in EVENTS.values()
        }
        self._line = Line(run)
        self._at_once = not processors and renderer is None

    def emit(self, name: str, *args: Any) -> None:
        self.counts[name] += 1
        if self._at_once and not self._capture and not merge_contextvars(None, "", {}):
            vc = () if self.causality is None else self.causality.text
            self._write(self._line(name, args, self._head(), vc))
            return
        level, fields = self._fields[name]
        event: Any = dict(zip(fields, args, strict=True))
        event["event"] = name
        # What a structlog.BoundLogger does, which copies the event twice on the way.
        try:
            for processor in self.processors:
                event = processor(self._out, level, event)
        except DropEvent:
            return
        self._out.write(event)

    def _head(self) -> Head:
        thread = CURTHREAD[0]
        cpu, guest = (None, None) if thread is None else self.place(thread)
        causality = self.causality
        if thread is None:
            actor = KERNEL
        else:
            actor = thread.name if causality is None else causality.name(thread)
        seq = self.seq
        self.seq = seq + 1
        return seq, len(self.schedule), CLOCK[0], actor, cpu, guest

    def head(self, _logger: Any, level: str, event: EventDict) -> EventDict:
        """Put the head before the fields; a field of the same name wins, as `cpu` of ipi.send."""
        seq, step, t, actor, cpu, guest = self._head()
        if t != self._stamp[0]:
            self._stamp = (t, timestamp(t))
        if self.causality is not None:
            event["vc"] = self.causality.clock
        return {
            "seq": seq,
            "step": step,
            "t": t,
            "ts": self._stamp[1],
            "run": self.run,
            "actor": actor,
            "cpu": cpu,
            "guest": guest,
            "event": event.pop("event"),
            "level": level,
            **event,
        }

    @property
    def _capture(self) -> bool:
        configured = self._configured
        return bool(configured) and isinstance(configured[-1], LogCapture)

    def captured(self, logger: Any, level: str, event: EventDict) -> EventDict:
        if self._capture:
            for process in self._configured:
                event = process(logger, level, event)  # type: ignore[assignment]
        return event


class Line:
    """What `head` and `render` make of an event of this run, by a Struct for each kind of event: a
    live host has 40 events for a fault."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._when = (-1, "")
        self._kinds: dict[str, tuple[Callable[..., Struct], str, int]] = {}
        self._encode = msgspec.json.Encoder().encode

    def __call__(self, name: str, args: tuple[Any, ...], head: Head, vc: Sequence[bytes]) -> bytes:
        seq, step, t, actor, cpu, guest = head
        if t != self._when[0]:
            self._when = (t, timestamp(t))
        kind, level, at = self._kinds.get(name) or self._kind(name)
        if at >= 0:  # a field that wins over the head's
            cpu = args[at]
            args = args[:at] + args[at + 1 :]
        when, run = self._when[1], self._run
        event = kind(seq, step, t, when, run, actor, cpu, guest, name, level, *args)
        for value in args:  # is there one that only `as_line` knows how to write?
            if value.__class__ is int:
                if not -(1 << 63) <= value < 1 << 64:
                    break
            elif value.__class__ is not str and value.__class__ is not bool:
                break
        else:
            said = self._encode(event)
            return b"".join((said[:-1], b',"vc":', *vc, b"}\n")) if vc else said + b"\n"
        said = as_line(msgspec.structs.asdict(event))
        return b"".join((said[:-2], b',"vc":', *vc, b"}\n")) if vc else said

    def _kind(self, name: str) -> tuple[Callable[..., Struct], str, int]:
        """How it is made, its level, and which of its fields is the CPU."""
        event = EVENTS[name]
        own = [field.name for field in event.fields]
        at = own.index("cpu") if "cpu" in own else -1
        head = ["seq", "step", "t", "ts", "run", "actor", "cpu", "guest", "event", "level"]
        fields = head + [field for field in own if field != "cpu"]
        kind = msgspec.defstruct(name, [(field, Any) for field in fields], gc=False)
        self._kinds[name] = kind, event.level, at
        return self._kinds[name]


class Console:
    """In place of `render`: the line for a terminal, by structlog's ConsoleRenderer."""

    def __init__(self, *, colours: bool) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=colours, timestamp_key="t", pad_event_to=15, sort_keys=False
        )

    def __call__(self, logger: Any, level: str, event: EventDict) -> bytes:
        shown = {name: event[name] for name in event if name not in UNSHOWN}
        shown["logger"] = shown.pop("actor", KERNEL)
        for name, value in shown.items():
            if isinstance(value, bytes):
                shown[name] = f"{len(value)} bytes"
        return f"{self._render(logger, level, shown)}\n".encode()


class Shown:
    """A processor that shows the event besides."""

    def __init__(self, renderer: Processor, write: Callable[[bytes], object]) -> None:
        self.renderer = renderer
        self.write = write

    def __call__(self, logger: Any, level: str, event: EventDict) -> EventDict:
        self.write(self.renderer(logger, level, event))  # type: ignore[arg-type]
        return event


def renderer_for(stream: TextIO) -> Processor:
    """Columns on a terminal, in colours unless NO_COLOR is set (no-color.org); lines elsewhere."""
    return Console(colours=not os.environ.get("NO_COLOR")) if stream.isatty() else render


def shown_on(stream: TextIO) -> Shown:
    """Show events there at once: for what may wait for its reader."""
    return Shown(renderer_for(stream), lambda line: stream.write(line.decode()))


def console_on(stream: TextIO) -> Shown:
    """What guests show there at once: kernels their lines, programs what they write to 1 and 2.
    Characters that would command a terminal are spelt out."""

    def typed(_logger: Any, _level: str, event: EventDict) -> bytes:
        if event["event"] == "console":
            return f"{event['text']}\n".encode()
        return bytes(event["content"]) if event["event"] == "guest.write" else b""

    def write(raw: bytes) -> None:
        text = raw.decode(errors="backslashreplace")
        stream.write("".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text))

    return Shown(typed, write)


def render(_logger: Any, _level: str, event: EventDict) -> bytes:
    return as_line(event)

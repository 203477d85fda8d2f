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

Where nobody has anything to say in 2 to 4, `Line` makes the same line without them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TextIO

import orjson
import structlog
from structlog import DropEvent
from structlog.contextvars import merge_contextvars
from structlog.testing import LogCapture
from structlog.typing import EventDict, Processor
from vkprotocol.effects import CLOCK, CURTHREAD, Thread
from vkprotocol.events import EVENTS

from vkemu.record.line import Around, Line, plain, timestamp, wide_text

KERNEL = "kernel"  # the actor of what happens outside any thread, at boot

# Every variable that was ever bound. In most runs there is none, which `merge_contextvars` finds
# out by a look at all that anybody has set.
_BOUND: Final = getattr(structlog.contextvars, "_CONTEXT_VARS", True)

# On a terminal: what is the same on every line, or says in more characters what `t` says.
UNSHOWN: Final = frozenset({"seq", "step", "ts", "run", "vc"})

# Where a thread runs: on which real CPU, for which guest, if for any.
Place = tuple[int | None, str | None]


def nowhere(_thread: Thread) -> Place:
    return None, None


def as_line(fields: EventDict) -> bytes:
    try:
        return orjson.dumps(fields, default=plain, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a mask of more than 64 CPUs
        narrow = {name: wide_text(value) for name, value in fields.items()}
        return orjson.dumps(narrow, default=plain, option=orjson.OPT_APPEND_NEWLINE)


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
        self._around = Around(b"", b"", b"", b"")  # of the events of this thread, step and time
        self._tid = self._step = self._t = -1
        self._at_once = not processors and renderer is None

    def emit(self, name: str, *args: Any) -> None:
        self.counts[name] += 1
        thread = CURTHREAD[0]
        if (
            thread is None
            or thread.tid != self._tid
            or CLOCK[0] != self._t
            or len(self.schedule) != self._step
        ) and not self._look(thread):
            self._process(name, args)
            return
        seq = self.seq
        self.seq = seq + 1
        self._write(self._line[name](seq, self._around, args))

    def _look(self, thread: Thread | None) -> bool:
        """See whose turn it is, and whether nobody has anything to say but `head` and `render`.
        That is so, and who acts is where it is, to the end of its turn or of its step."""
        self._tid = -1
        if not self._at_once or (_BOUND and merge_contextvars(None, "", {})) or self._captures:
            return False
        actor, cpu, guest = self._actor(thread)
        end: Iterable[bytes] = ()
        if self.causality is not None:
            end = (b',"vc":', *self.causality.text)
        self._step, self._t = len(self.schedule), CLOCK[0]
        self._around = self._line.around(self._step, self._t, actor, cpu, guest, end)
        if thread is not None:
            self._tid = thread.tid
        return True

    @property
    def _captures(self) -> bool:
        configured = self._configured
        return bool(configured) and isinstance(configured[-1], LogCapture)

    def _process(self, name: str, args: tuple[Any, ...]) -> None:
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

    def _actor(self, thread: Thread | None) -> tuple[str, int | None, str | None]:
        """Who acts, on which CPU, for which guest."""
        if thread is None:
            return KERNEL, None, None
        name = thread.name if self.causality is None else self.causality.name(thread)
        return name, *self.place(thread)

    def head(self, _logger: Any, level: str, event: EventDict) -> EventDict:
        """Put the head before the fields; a field of the same name wins, as `cpu` of ipi.send."""
        actor, cpu, guest = self._actor(CURTHREAD[0])
        seq, t = self.seq, CLOCK[0]
        self.seq = seq + 1
        if self.causality is not None:
            event["vc"] = self.causality.clock
        return {
            "seq": seq,
            "step": len(self.schedule),
            "t": t,
            "ts": timestamp(t),
            "run": self.run,
            "actor": actor,
            "cpu": cpu,
            "guest": guest,
            "event": event.pop("event"),
            "level": level,
            **event,
        }

    def captured(self, logger: Any, level: str, event: EventDict) -> EventDict:
        if self._captures:
            for process in self._configured:
                event = process(logger, level, event)  # type: ignore[assignment]
        return event


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

"""The line of an event, as `EventLog.head` and `render` make it, but for a host that has 40 events
for a fault: a template for each kind, and texts that are kept.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import msgspec
from vkprotocol.events import EVENTS

BASE = datetime(2000, 1, 1, tzinfo=UTC)


class Around(NamedTuple):
    """What the lines of a step have in common: to the CPU, after it, with it, and the end."""

    before: bytes
    after: bytes
    whole: bytes
    end: bytes


# The line of one kind of event, from its seq, what is said of the step, and its fields.
Maker: TypeAlias = Callable[[int, Around, tuple[Any, ...]], bytes]


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


def wide_text(value: Any) -> Any:
    """A number of more than 64 bits as text, which is how all readers of JSON take it."""
    word_bits = 64
    wide = isinstance(value, int) and value.bit_length() > word_bits
    return hex(value) if wide else value


class Texts(dict[Any, bytes]):
    """Values as JSON, but not true and false, which are 1 and 0 to a dict. Most come again."""

    def __missing__(self, value: Any) -> bytes:
        most, longest = 4096, 64
        if value.__class__ is int and -(1 << 63) <= value < 1 << 64:
            text = b"%d" % value
        elif value.__class__ is bytes:
            return msgspec.json.encode(plain(value))
        else:
            text = msgspec.json.encode(wide_text(value))
        if len(text) <= longest:
            if len(self) >= most:
                self.clear()
            self[value] = text
        return text


class Line(dict[str, Maker]):
    """The lines of a run: by the name of the event, how they are made."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self._text = Texts().__getitem__
        self._run = msgspec.json.encode(run)
        self._when = (-1, b"")

    def around(
        self,
        step: int,
        t: int,
        actor: str,
        cpu: int | None,
        guest: str | None,
        more: Iterable[bytes],
    ) -> Around:
        if t != self._when[0]:
            self._when = (t, timestamp(t).encode())
        text = self._text
        before = b',"step":%d,"t":%d,"ts":"%b","run":%b,"actor":%b,"cpu":' % (
            step, t, self._when[1], self._run, text(actor),
        )  # fmt: skip
        after = b',"guest":%b,' % text(guest)
        return Around(before, after, before + text(cpu) + after, b"".join((*more, b"}\n")))

    def __missing__(self, name: str) -> Maker:
        event = EVENTS[name]
        own = [field for field in event.fields if field.name != "cpu"]
        said = "".join(f',"{field.name}":%b' for field in own)
        template = f'{{"seq":%d%b"event":"{name}","level":"{event.level}"{said}%b'.encode()
        truths = tuple(n for n, field in enumerate(own) if field.kind == "bool")
        if len(own) < len(event.fields):
            at = next(n for n, field in enumerate(event.fields) if field.name == "cpu")
            maker = self._with_cpu(at, template, truths)
        elif truths:
            maker = self._with_truths(template, truths)
        elif own and all(field.kind == "int" for field in own):
            maker = self._of_numbers(template)
        else:
            maker = self._of_any(template)
        self[name] = maker
        return maker

    def _of_any(self, template: bytes) -> Maker:
        text = self._text

        def line(seq: int, around: Around, args: tuple[Any, ...]) -> bytes:
            return template % (seq, around.whole, *map(text, args), around.end)

        return line

    def _of_numbers(self, template: bytes) -> Maker:
        """As they are, unless one is too wide."""
        text = self._text
        seq, around, *fields, end = template.split(b"%b")
        numbers = b"%b".join((seq, b"%d".join((around, *fields)), end))

        def line(seq: int, around: Around, args: tuple[Any, ...]) -> bytes:
            if max(args) < 1 << 64:
                return numbers % (seq, around.whole, *args, around.end)
            return template % (seq, around.whole, *map(text, args), around.end)

        return line

    def _with_truths(self, template: bytes, truths: tuple[int, ...]) -> Maker:
        text = self._text

        def line(seq: int, around: Around, args: tuple[Any, ...]) -> bytes:
            texts = list(map(text, args))
            for n in truths:
                texts[n] = b"true" if args[n] else b"false"
            return template % (seq, around.whole, *texts, around.end)

        return line

    def _with_cpu(self, at: int, template: bytes, truths: tuple[int, ...]) -> Maker:
        """A field that wins over what is said of the step."""
        text = self._text
        inner = self._with_truths(template, truths)

        def line(seq: int, around: Around, args: tuple[Any, ...]) -> bytes:
            whole = around.before + text(args[at]) + around.after
            around = Around(around.before, around.after, whole, around.end)
            return inner(seq, around, args[:at] + args[at + 1 :])

        return line

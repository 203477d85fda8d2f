"""Recorded events, streamed from `.ndjson` or `.ndjson.zst` in bounded memory.

A command names the columns it needs as a `msgspec.Struct`; whole chunks of lines are then decoded
at once into those columns only, which still checks the syntax of everything skipped. Only when a
chunk does not decode is it taken line by line, to say which line is wrong.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

import msgspec

from vkemu.record.rundir import EVENTS, FAILURE
from vkemu.record.zstd import SUFFIX, open_zstd
from vkemu.verdict import UsageError

CHUNK_BYTES: Final = 1 << 16  # decoded lines that stay in the cache
NAMES: Final = (EVENTS, EVENTS + SUFFIX)

T = TypeVar("T")


class BadLog(UsageError):
    """A log that cannot be read. The user's to mend: the message says where and what."""


class Line(msgspec.Struct):
    """What every line has. `step` counts scheduling steps, of which an event is a part."""

    seq: int
    t: int
    actor: str
    event: str
    step: int | None = None


def locate(name: str | Path) -> Path:
    """The log meant by a file name, a run folder, or `runs/latest`."""
    path = Path(name)
    if path.is_dir():
        for candidate in NAMES:
            if (path / candidate).is_file():
                return path / candidate
        report = path / FAILURE
        hint = ""
        if report.is_file() and " replay: vkemu replay " in report.read_text(errors="replace"):
            again = f"`vkemu replay {shlex.quote(str(path))} --runs runs`"
            hint = f"; a report has no log, {again} makes one"
        raise BadLog(f"{path}: no {' or '.join(NAMES)} in this folder{hint}")
    if not path.exists():
        raise BadLog(f"{path}: no such file")
    return path


def is_compressed(path: Path) -> bool:
    return path.suffix == SUFFIX


class Log:
    """A recorded run. `skipped` counts the malformed lines a reading left out, when asked to; `cut`
    says where it was cut off, if it was."""

    def __init__(self, path: str | Path, *, skip_malformed: bool = False) -> None:
        self.path = locate(path)
        self._compressed = is_compressed(self.path)
        self.skip_malformed = skip_malformed
        self.skipped = 0
        self.cut = ""

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event with all its fields, of which those of `Line` are what they should be."""
        decode = msgspec.json.Decoder(dict[str, Any]).decode_lines
        for _, chunk in self.batches(Line):
            yield from decode(chunk)

    def numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every event with the number of its line."""
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        self.skipped = 0
        number = 0
        for chunk in self.chunks():
            for line in chunk.splitlines():
                number += 1
                try:
                    event = decode(line)
                except msgspec.MsgspecError as error:
                    if line.strip():
                        self.malformed(number, line, error)
                else:
                    yield number, event

    def rows(self, columns: type[T]) -> Iterator[T]:
        """Every event as `columns`, a Struct of the fields wanted."""
        for decoded, _ in self.batches(columns):
            yield from decoded

    def batches(self, columns: type[T]) -> Iterator[tuple[list[T], bytes]]:
        """Chunks of events, decoded and as the bytes they were, line for line."""
        decoder = msgspec.json.Decoder(columns)
        self.skipped = 0
        number = 1
        for chunk in self.chunks():
            try:
                yield decoder.decode_lines(chunk), chunk
            except msgspec.MsgspecError:
                yield self._line_by_line(decoder, chunk, number)
            number += chunk.count(b"\n")

    def _line_by_line(
        self, decoder: msgspec.json.Decoder[T], chunk: bytes, number: int
    ) -> tuple[list[T], bytes]:
        decoded: list[T] = []
        kept: list[bytes] = []
        for offset, line in enumerate(chunk.splitlines()):
            try:
                row = decoder.decode(line)
            except msgspec.MsgspecError as error:
                if not line.strip():
                    continue
                self.malformed(number + offset, line, error)
            else:
                decoded.append(row)
                kept.append(line)
        return decoded, b"\n".join(kept) + b"\n"

    def malformed(self, number: int, line: bytes, error: Exception) -> None:
        """Leave the line out, or say what is wrong with it."""
        if not self.skip_malformed:
            what = "truncated" if "truncated" in str(error) else "malformed"
            start = line[:60].decode("utf-8", "replace")
            raise BadLog(f"{self.path}:{number}: {what} line ({error}): {start}") from None
        self.skipped += 1

    def chunks(self) -> Iterator[bytes]:
        """The file in pieces that end at the end of a line."""
        line_bytes_max = 1 << 24
        with open_log(self.path) as file:
            rest = b""
            lines = 0  # given away
            while piece := self._piece(file, lines):
                rest += piece
                end = rest.rfind(b"\n") + 1
                if end:
                    yield rest[:end]
                    if self._compressed:
                        lines += rest.count(b"\n", 0, end)
                    rest = rest[end:]
                elif len(rest) > line_bytes_max:
                    raise BadLog(f"{self.path}: a line of more than {line_bytes_max} bytes")
            if rest.strip() and not self.cut:
                yield rest

    def _piece(self, file: IO[bytes], lines: int) -> bytes:
        if not self._compressed:
            return file.read(CHUNK_BYTES)
        try:
            # What there is before the place where it breaks; `read` would lose it.
            return cast("BufferedReader", file).read1(CHUNK_BYTES)
        except Exception as error:
            # EOFError for a file that was cut off, ZstdError for one that is something else.
            read = f"after {lines} lines" if lines else "before the first line"
            if not isinstance(error, EOFError):
                raise BadLog(f"{self.path}: cannot be decompressed {read} ({error})") from None
            self.cut = f"cut off {read}"
            if self.skip_malformed:
                return b""
            raise BadLog(f"{self.path}: {self.cut} (--skip-malformed takes those)") from None


def open_log(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed."""
    if not is_compressed(path):
        return path.open("rb")
    return open_zstd(path, "rb", f"{path}: without `zstd -d`, reading .zst")

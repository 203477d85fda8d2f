"""A file of answers: what is known of many questions, for another day.

Its first line says of which questions and of which code; every other is an answer, written when it
came. A line that was not written to its end does not count.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from vkemu.workers.code import code_digest
from vkemu.workers.job import WorkersError


class Head(msgspec.Struct, frozen=True):
    version: int
    what: str
    questions: str  # a digest of them
    code: str


class Line(msgspec.Struct, frozen=True):
    place: int
    value: msgspec.Raw


class Answers:
    """Those to `questions`, each a value of type `kind`; `values` by the place of the question."""

    def __init__(self, file: Path, what: str, questions: Any, kind: Any) -> None:
        self.file = file
        self.values: dict[int, Any] = {}
        text = msgspec.json.encode(questions)
        version = 1
        self._head = Head(version, what, hashlib.sha256(text).hexdigest()[:16], code_digest())
        try:
            lines = file.read_bytes().split(b"\n") if file.exists() else []
            if lines:
                self._read(lines, kind)
            else:
                file.write_bytes(msgspec.json.encode(self._head) + b"\n")
        except OSError as error:
            raise WorkersError(
                f"checkpoint {file}: {error.strerror}, expected a file to write"
            ) from None

    def _read(self, lines: list[bytes], kind: Any) -> None:
        try:
            head = msgspec.json.decode(lines[0], type=Head)
        except msgspec.MsgspecError as error:
            raise WorkersError(f"checkpoint {self.file}: cannot be read: {error}") from None
        for name in ("version", "what", "questions", "code"):
            if getattr(head, name) != getattr(self._head, name):
                raise WorkersError(
                    f"checkpoint {self.file}: its {name} is {getattr(head, name)!r}, expected "
                    f"{getattr(self._head, name)!r}"
                )
        for number, text in enumerate(lines[1:-1], 2):
            try:
                line = msgspec.json.decode(text, type=Line)
                self.values[line.place] = msgspec.json.decode(line.value, type=kind)
            except msgspec.MsgspecError as error:
                raise WorkersError(f"checkpoint {self.file}: line {number}: {error}") from None
        if lines[-1]:  # torn: what follows begins a line of its own
            whole = b"\n".join(lines[:-1]) + b"\n"
            self.file.write_bytes(whole)

    def add(self, place: int, value: Any) -> None:
        with self.file.open("ab") as out:
            out.write(msgspec.json.encode({"place": place, "value": value}) + b"\n")

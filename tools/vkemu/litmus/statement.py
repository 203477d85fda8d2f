"""Statements of a litmus thread: `[if CONDITION:] [reg =] verb arg ...`, one a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from vkemu.litmus.condition import Condition
from vkemu.verdict import UsageError


class Register(str):
    """A register of the thread, where a value may stand."""

    __slots__ = ()


Arg: TypeAlias = int | str

_STATEMENT = re.compile(
    r"(?:if\s+(?P<when>[^:]+):\s*)?(?:(?P<target>[a-z]\w*)\s*=\s*)?(?P<verb>[a-z_]\w*)(?P<rest>.*)"
)
_NUMBER = re.compile(r"-?(0x[0-9a-fA-F]+|0|[1-9][0-9]*)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_|+.]*")


@dataclass(frozen=True, slots=True)
class Statement:
    """One operation of a thread. `when` is over the thread's own registers; `where` is its place
    in the file."""

    text: str
    verb: str
    args: tuple[Arg, ...] = ()
    target: str | None = None
    when: Condition | None = None
    where: str = ""


# Heard when a statement is over: of which thread, and what it gave.
Said: TypeAlias = Callable[[str, Statement, int | None], None]


def parse(text: str, where: str, registers: Collection[str] = ()) -> Statement:
    """One line; UsageError naming `where` when it is none. `registers` are written before it."""
    match = _STATEMENT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{where}: {text!r}, expected `[if COND:] [reg =] verb arg ...`")
    when = match["when"]
    return Statement(
        text=text.strip(),
        verb=match["verb"],
        args=tuple(_arg(word, where, registers) for word in match["rest"].split()),
        target=match["target"],
        when=None if when is None else Condition(when.strip(), where),
        where=where,
    )


def _arg(word: str, where: str, registers: Collection[str]) -> Arg:
    digits_max = 40  # of a number: more than any operand has
    if _NUMBER.fullmatch(word) and len(word) <= digits_max:
        return int(word, 0)
    if word in registers:
        return Register(word)
    if _NAME.fullmatch(word):
        return word
    word = word if len(word) <= digits_max else word[:digits_max] + "..."
    raise UsageError(f"{where}: {word!r}, expected a number or a name")

"""Statements of a litmus thread: `[if CONDITION:] [reg =] verb arg ...`, one a line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from vkemu.litmus.condition import Condition
from vkemu.verdict import UsageError

Arg: TypeAlias = int | str

_STATEMENT = re.compile(
    r"(?:if\s+(?P<when>[^:]+):\s*)?(?:(?P<target>[a-z]\w*)\s*=\s*)?(?P<verb>[a-z_]\w*)(?P<rest>.*)"
)
_NUMBER = re.compile(r"-?(0x[0-9a-fA-F]+|\d+)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_|+.]*")


@dataclass(frozen=True, slots=True)
class Statement:
    """One operation of a thread. `when` is over the thread's own registers."""

    text: str
    verb: str
    args: tuple[Arg, ...] = ()
    target: str | None = None
    when: Condition | None = None


def parse(text: str, where: str) -> Statement:
    """One line; UsageError naming `where` when it is none."""
    match = _STATEMENT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{where}: {text!r}, expected `[if COND:] [reg =] verb arg ...`")
    when = match["when"]
    return Statement(
        text=text.strip(),
        verb=match["verb"],
        args=tuple(_arg(word, where) for word in match["rest"].split()),
        target=match["target"],
        when=None if when is None else Condition(when.strip(), where),
    )


def _arg(word: str, where: str) -> Arg:
    if _NUMBER.fullmatch(word):
        return int(word, 0)
    if _NAME.fullmatch(word):
        return word
    raise UsageError(f"{where}: {word!r}, expected a number or a name")

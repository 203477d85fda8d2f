"""The three verdicts, and the exit statuses that carry them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["pass", "fail", "unknown"]


class Status(IntEnum):
    """What a shell sees."""

    PASS = 0
    VIOLATION = 1
    USAGE = 2
    UNKNOWN = 3


OF_VERDICT: dict[Verdict, Status] = {
    "pass": Status.PASS,
    "fail": Status.VIOLATION,
    "unknown": Status.UNKNOWN,
}


class Unread(BrokenPipeError):
    """Nobody reads what is printed any more (`| head`), but `status` was decided before."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


@contextmanager
def telling(status: int) -> Iterator[None]:
    """Print what is decided already: it stays so whether or not it is read to its end."""
    try:
        yield
    except BrokenPipeError:
        raise Unread(status) from None


INTERRUPTED = 128 + 2  # as a shell says it of what SIGINT has ended


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what is known by then."""

    def __init__(self, known: str) -> None:
        super().__init__(known)
        self.known = known


class UsageError(Exception):
    """The user's input is wrong: one line that says where, what, and what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def one_of(value: str, known: Iterable[str]) -> str:
    """`expected one of ...`, the nearest to `value` first when that is near."""
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(value, names, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed_max = 16  # names that a message lists in full
    listed = ", ".join(names[:listed_max]) or "(there is none)"
    more = f" and {len(names) - listed_max} more" if len(names) > listed_max else ""
    return f"{hint}expected one of {listed}{more}"


def once(where: str, values: Sequence[object]) -> None:
    """UsageError for the first of a list that stands there twice: the second has no effect."""
    for i, value in enumerate(values):
        if value in values[:i]:
            raise UsageError(f"{where}[{i}]: {value!r} again, expected each once")


def all_known(where: str, values: Sequence[str], there: list[str]) -> None:
    for i, value in enumerate(values):
        known(f"{where}[{i}]", value, there)
    once(where, values)


def known(where: str, value: str, there: list[str]) -> None:
    if value not in there:
        raise UsageError(f"{where}: unknown {value!r}, {one_of(value, there)}")

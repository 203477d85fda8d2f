"""A failing execution, told: one column a thread, conflicting steps marked, and the source line of
each, the innermost one that is not of the shared objects themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any, Final, NamedTuple

from vkemu.executors.announced import shown

STEPS_SHOWN: Final = 200  # of the first and of the last, in a narration
FOLDED: Final = "  ... {} steps ..."
STARRED: Final = "* another thread touches the same object, and one of the two writes"
CONTINUED: Final[dict[str, Any]] = {"subsequent_indent": " " * 8, "break_on_hyphens": False}


class StepRecord(NamedTuple):
    """One step of a failing execution."""

    position: int
    thread: str
    tid: int
    op: str
    object: str
    before: Any
    after: Any
    file: str
    line: int
    # Positions of other threads' steps on its objects, one writing; in a long execution of each
    # thread the nearest.
    conflicts: tuple[int, ...]
    expected: tuple[Any, ...] = ()  # of a compare-and-set that failed: the one value it expected

    @property
    def where(self) -> str:
        return f"{self.file.rpartition('/')[2]}:{self.line}" if self.line else ""

    def __str__(self) -> str:
        return f"{self.position} {self.thread} {self.text} {self.where}".rstrip()

    @property
    def value(self) -> str:
        """What it left its object at; or what a compare-and-set found there, which left it."""
        if self.expected:
            expected, found = _short(shown(self.expected[0])), _short(shown(self.before))
            return f"failed, expected {expected}, found {found}"
        before, after = shown(self.before), shown(self.after)
        return f"{_short(before)} -> {_short(after)}" if before != after else _short(after)

    @property
    def text(self) -> str:
        if not self.op:  # a step that says itself what it did
            return self.object
        return f"{self.op} {self.object}: {self.value}"


def _short(text: str) -> str:
    return text if len(text) <= 32 else text[:29] + "..."


def narrate(
    message: str, details: Sequence[str], steps: Sequence[StepRecord], token: str, columns: int = 0
) -> str:
    """A failure as text, one column a thread; where that is wider than `columns`, a line a step.
    `details` are lines for those who read on."""
    head = [message, *(f"  {detail}" for detail in details)]
    told = table(steps)
    wide = 160  # columns of a page, for steps that have much to say
    most = columns or (wide if any(not step.op for step in steps) else 0)
    if 0 < most < max(map(len, told)):
        told = list(listed(steps))
    lines = [*head, "", *told]
    if columns:
        lines = [part for line in lines for part in wrap(line, columns, **CONTINUED) or [""]]
    return "\n".join([*lines, "", f"token: {token}"])


def listed(steps: Sequence[StepRecord]) -> Iterator[str]:
    digits = len(str(max(len(steps) - 1, 0)))
    for step in steps:
        if STEPS_SHOWN <= step.position < len(steps) - STEPS_SHOWN:
            if step.position == STEPS_SHOWN:
                yield FOLDED.format(len(steps) - 2 * STEPS_SHOWN)
            continue
        mark = "*" if step.conflicts else " "
        yield f"{mark} {step.position:>{digits}}  {step.thread}: {step.text}  {step.where}".rstrip()
    if any(step.conflicts for step in steps):
        yield STARRED


def table(steps: Sequence[StepRecord]) -> list[str]:
    threads: dict[int, str] = {}
    for step in steps:
        threads.setdefault(step.tid, step.thread)
    order = sorted(threads)
    widths = {tid: len(threads[tid]) for tid in order}
    for step in steps:
        widths[step.tid] = max(widths[step.tid], len(step.text))
    digits = len(str(max(len(steps) - 1, 0)))
    head = " " * (digits + 4) + "  ".join(threads[tid].ljust(widths[tid]) for tid in order)
    lines = [head.rstrip()]
    for step in steps:
        if STEPS_SHOWN <= step.position < len(steps) - STEPS_SHOWN:
            if step.position == STEPS_SHOWN:
                lines.append(FOLDED.format(len(steps) - 2 * STEPS_SHOWN))
            continue
        mark = "*" if step.conflicts else " "
        cells = [(step.text if tid == step.tid else "").ljust(widths[tid]) for tid in order]
        lines.append(f"{mark} {step.position:>{digits}}  {'  '.join(cells)}  {step.where}".rstrip())
    if any(step.conflicts for step in steps):
        lines.append(STARRED)
    return lines

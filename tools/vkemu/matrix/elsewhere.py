"""The second table of docs/windows.md: races of other kernels, before their fixes and after.

A litmus test of vkemu.litmus.elsewhere is the mended form, its variant `before` the other; the
comment it begins with names where the race was described.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Final

from vkemu.launch.scenario import read_document
from vkemu.litmus.file import Litmus, elsewhere, read
from vkemu.matrix.cell import Cell, Question, answer

POLICY: Final = "pv_entry"  # the exact map: what fails on it is not the reverse map's

HEAD: Final = f"""\
## Windows from elsewhere

Races of other kernels, after their public fixes, in the words of docs/litmus.md: a guest's kernel
stands for the kernel, INVAL for its TLB flush. Each is decided when this page is generated, on
`{POLICY}` unless it says otherwise. *Mended* is how many interleavings of the mended form differ,
all of them explored; *before* is the variant `before`, the kernel as it was.
"""


@cache
def cells(path: Path) -> tuple[Litmus, Cell, Cell]:
    """(the test, the mended form, the one before), decided."""
    litmus = read(read_document(path), path)
    policy = (litmus.file.litmus.policies or (POLICY,))[0]
    mended, before = (
        answer(Question("", litmus.name, variant, policy)) for variant in ("", "before")
    )
    return litmus, mended, before


def source(path: Path) -> str:
    """What a litmus file models: the comment it begins with."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def section(paths: Sequence[Path] = ()) -> Iterator[str]:
    yield HEAD
    yield "| Test | | Source | Mended | Before |"
    yield "|---|---|---|---|---|"
    reasons = []
    for path in paths or elsewhere():
        litmus, mended, before = cells(path)
        name, heading = f"`{litmus.name}`", litmus.file.litmus
        on = "" if mended.policy == POLICY else f" (on `{mended.policy}`)"
        what = f"{heading.title}. Breaks: {heading.breaks}"
        row = f"{name}{on}", what, source(path).rstrip("."), text(mended), text(before)
        yield f"| {' | '.join(row)} |"
        reasons.append(f"- {name} before ({litmus.file.variant[0].about}): {before.reason}")
    yield ""
    yield from reasons


def text(cell: Cell) -> str:
    """As in the tables of the windows."""
    if cell.verdict == "fail":
        return "**FAIL**"
    return f"{cell.executions:,}" if cell.exhausted else "*bounded*"

"""All the cells, in worker processes, given back in the order of the questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from vkemu.launch.names import policies
from vkemu.launch.scenario import read_document
from vkemu.litmus.file import read, shipped
from vkemu.matrix.cell import MAX_SECONDS, Cell, Question, answer
from vkemu.workers.calls import answered
from vkemu.workers.job import Workers
from vkemu.workers.processes import Here, Processes

PRELOAD: Final = ("vkemu.matrix.cell", "vkemu.exploration.strategies.dpor")


def questions(
    windows: Iterable[str] = (),
    on: Iterable[str] = (),
    *,
    all_variants: bool = False,
    strategy: str = "dpor",
    max_seconds: float = MAX_SECONDS,
    tree: str = "",
) -> list[Question]:
    """One for each test and policy: window by window, the base test first."""
    wanted, chosen = set(windows), list(on) or policies()
    asked = []
    for path in shipped():
        litmus = read(read_document(path), path)
        window = litmus.file.litmus.window
        if wanted and window not in wanted:
            continue
        variants = [""] + ([v.name for v in litmus.file.variant] if all_variants else [])
        asked += [
            Question(window, litmus.name, variant, policy, strategy, max_seconds, tree)
            for variant in variants
            for policy in chosen
        ]
    return asked


def compute(
    asked: Sequence[Question],
    jobs: int = 2,
    tell: Callable[[Cell], None] | None = None,
    cells: Iterable[Cell] | None = None,
) -> tuple[list[Cell], bool]:
    """(cells in order, whether that is all of them): ^C leaves those that are known. They come from
    `cells`, where that says who works them out."""
    known: list[Cell] = []
    try:
        for cell in _answers(asked, jobs) if cells is None else cells:
            known.append(cell)
            if tell is not None:
                tell(cell)
    except KeyboardInterrupt:
        return known, False
    return known, True


def _answers(asked: Sequence[Question], jobs: int) -> Iterator[Cell]:
    alone = jobs == 1 or len(asked) < 2
    workers: Workers = Here() if alone else Processes(jobs, PRELOAD)
    try:
        yield from answered(answer, [(question,) for question in asked], workers)
    finally:
        workers.close()

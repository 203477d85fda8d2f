"""All the cells, in worker processes, given back in the order of the questions."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import get_context

from vkemu.launch.names import policies
from vkemu.launch.scenario import read_document
from vkemu.litmus.file import read, shipped
from vkemu.matrix.cell import Cell, Question, answer


def questions(
    windows: Iterable[str] = (),
    on: Iterable[str] = (),
    *,
    all_variants: bool = False,
    strategy: str = "dpor",
    max_seconds: float = 10.0,
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
    asked: Sequence[Question], jobs: int = 2, tell: Callable[[Cell], None] | None = None
) -> tuple[list[Cell], bool]:
    """(cells in order, whether that is all of them): ^C leaves those that are known."""
    cells: list[Cell] = []
    try:
        for cell in _answers(asked, jobs):
            cells.append(cell)
            if tell is not None:
                tell(cell)
    except KeyboardInterrupt:
        return cells, False
    return cells, True


def _answers(asked: Sequence[Question], jobs: int) -> Iterator[Cell]:
    if jobs == 1 or len(asked) < 2:
        yield from map(answer, asked)
        return
    context = get_context("forkserver")
    context.set_forkserver_preload(["vkemu.matrix.cell"])
    with context.Pool(jobs, initializer=_ignore_interrupts) as pool:
        yield from pool.imap(answer, asked)


def _ignore_interrupts() -> None:
    """^C is for the parent, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

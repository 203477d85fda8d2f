"""Whether all who search a drawn program say what plain search says of it.

    python -m tests.exploration.agreement FROM TO [--size N]

goes through the programs of these seeds, and says of each that differs how it does, and of those
that plain search does not get through how many they are. Any range can be run by itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from vkemu import explore
from vkemu.exploration.program import Program
from vkemu.exploration.run import Run
from vkemu.workers.processes import Processes

from tests.exploration.drawn import AT_END, Built, Ends, Source, draw
from tests.exploration.generated import trace_of

DFS_MAX = 400
REDUCTIONS = ("dpor", "source-dpor")
OTHERS = ("portfolio", "bounded")
# Of these there are more executions than traces: more has to count than effects say.
EVERY_STEP_COUNTS = {"look", "late", "set_state", *AT_END}


class Truth:
    """What plain search finds in a program; `complete` unless it was stopped."""

    def __init__(self, source: Source, most: int = DFS_MAX, *, counted: bool = False) -> None:
        self.source = source
        self.most = most
        self.ends = ends = Ends(source)
        self.found = explore(
            ends, strategy="dfs", stop_on_failure=False, max_executions=most, max_steps=200,
            each=ends.note,
        )  # fmt: skip
        self.complete = self.found.exhausted
        # Where there are no more executions than traces.
        self.ordered = not source.always and not {*source.ops, *source.at_end} & EVERY_STEP_COUNTS
        self.traces = self.classes(ends) if counted and self.complete and self.ordered else None

    def classes(self, ends: Ends) -> set[Any]:
        run = Run(Program(partial(Built, source=self.source), {}), 0, stop_on_failure=False)
        return {trace_of(run, schedule) for schedule in ends.schedules}

    def agrees(self, strategy: str) -> None:
        """That the strategy finds the same; if `counted`, the traces too."""
        ends = Ends(self.source)
        found = explore(
            ends, strategy=strategy, stop_on_failure=False, max_executions=10 * self.most,
            max_steps=200, each=ends.note,
        )  # fmt: skip
        self.compare(ends, found)
        if self.traces is None:
            return
        assert self.classes(ends) == self.traces, self.source
        if strategy in REDUCTIONS:
            assert found.executions == len(self.traces), self.source

    def compare(self, ends: Ends, found: Any) -> None:
        assert ends.states == self.ends.states, self.source
        assert ends.faults == self.ends.faults, self.source
        assert (found.verdict, found.exhausted) == (self.found.verdict, True), self.source

    def parts_agree(self, file: Path | None, **options: Any) -> None:
        """In parts; with a file, taken up again and again after a few executions."""
        whole = explore(Ends(self.source), stop_on_failure=False, max_steps=200)
        few = 7
        for most in (few << n for n in count()) if file is not None else [None]:  # in all
            ends = Ends(self.source)
            found = explore(
                ends, stop_on_failure=False, max_steps=200, checkpoint=file, max_executions=most,
                **options,
            )  # fmt: skip
            if most is None or found.exhausted:
                break
        self.compare(ends, found)
        if self.ordered:
            counts = found.executions, found.failures
            assert counts == (whole.executions, whole.failures), self.source


class Lasting(Processes):
    """The same two for all programs: to start them takes longer than most searches."""

    def __init__(self) -> None:
        super().__init__(2, ("vkemu.exploration.strategies.dpor", "tests.exploration.drawn"))

    def close(self) -> None:
        """A search is over."""


def differing(seeds: range, size: int, most: int, workers: Processes) -> Counter[str]:
    """How many of these programs were compared, and how many not, and why. Who differs is told."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        try:
            truth = Truth(draw(seed, size), most, counted=True)
            if not truth.complete:
                counts["cut" if truth.found.cut else "too many for dfs"] += 1
                continue
            counts["compared"] += 1
            for strategy in REDUCTIONS + OTHERS:
                truth.agrees(strategy)
            with tempfile.TemporaryDirectory() as folder:
                truth.parts_agree(Path(folder) / "checkpoint")
            truth.parts_agree(None, workers=workers)
        except Exception as error:
            counts["different"] += 1
            print(f"{seed}: {type(error).__name__}: {error}", flush=True)
    return counts


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exploration.agreement")
    parser.add_argument("first", type=int, metavar="FROM")
    parser.add_argument("last", type=int, metavar="TO")
    parser.add_argument("--size", type=int, default=7, help="operations of a program at most")
    parser.add_argument("--most", type=int, default=DFS_MAX, help="executions of plain search")
    asked = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    workers = Lasting()
    try:
        for first in range(asked.first, asked.last, 50):
            seeds = range(first, min(first + 50, asked.last))
            counts += differing(seeds, asked.size, asked.most, workers)
            said = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
            print(f"{asked.first} to {seeds.stop}: {said}", flush=True)
    finally:
        Processes.close(workers)
    return bool(counts["different"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

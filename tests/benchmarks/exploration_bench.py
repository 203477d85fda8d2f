"""What exploring costs: against a bare trampoline in the same run, and whole processes.

    python tests/benchmarks/exploration_bench.py [--long]

The trampoline makes the coroutines of the same program and takes the same schedules; it knows
nothing of guards, verdicts, choices or replays. Its shared objects are made once, those of
`explore` are reset for every execution. Both are timed in pieces of some tenths of a millisecond,
several times over in alternation, and the fastest time of every piece counts: what else the machine
has to do comes between only for longer.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from time import process_time
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "tools")]

from vkemu.exploration.program import Program  # noqa: E402
from vkemu.exploration.run import Run  # noqa: E402
from vkemu.exploration.strategies.dfs import Dfs  # noqa: E402
from vkemu.exploration.strategies.random_walk import RandomWalk  # noqa: E402
from vkprotocol.effects import CURTHREAD, Cell, Thread  # noqa: E402

from tests.exploration.literature import Build, independent  # noqa: E402

TURNS = 7
PIECE_STEPS = 300


class Bare:
    """The trampoline. Its `k` makes an object when it first hears the name."""

    def __init__(self, build: Build) -> None:
        self.build = build
        self.cells: dict[str, Cell] = {}
        self.threads: list[Thread] = []

    def cell(self, name: str, value: Any) -> Cell:
        cell = self.cells.get(name)
        if cell is None:
            cell = self.cells[name] = Cell(name)
        cell.state = value
        return cell

    def spawn(self, name: str, body: Any, *args: Any) -> None:
        coro = body(*args)
        coro.send(None)
        self.threads.append(coro)

    def at_end(self, predicate: Any) -> None:
        pass

    def take(self, schedule: list[int]) -> None:
        threads: list[Any] = []
        self.threads = threads
        self.build(self)
        for tid in schedule:
            try:
                threads[tid].send(None)
            except StopIteration:
                pass


def walk(n: int, steps: int) -> Build:
    """Threads that only step: what a step costs, not what an execution costs."""

    def program(k: Any) -> None:
        cells = [k.cell(f"c{t}", 0) for t in range(n)]

        async def run(cell: Any) -> None:
            for _ in range(steps // 2):
                await cell.store(await cell.load())

        for t in range(n):
            k.spawn(f"t{t}", run, cells[t])

    return program


def paired(one: Callable[[], Iterator[None]], other: Callable[[], Iterator[None]]) -> list[float]:
    """Seconds of processor time. The work is done in pieces, one at every `next`."""
    best: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for which, work in enumerate((one, other)):
            spent = []
            began = process_time()  # others' work on this machine is not ours
            for _ in work():
                spent.append(process_time() - began)
                began = process_time()
            known = best[which] or spent
            best[which] = [min(pair) for pair in zip(known, spent, strict=True)]
    CURTHREAD[0] = None
    return [sum(pieces) for pieces in best]


def schedules_of(build: Build, strategy: Any, count: int) -> tuple[list[list[int]], Run]:
    run = Run(Program(build, {}), 10_000_000)
    found: list[list[int]] = []
    while len(found) < count and strategy.start():
        run.begin()
        strategy.conduct(run)
        run.finish()
        found.append(list(run.schedule))
    return found, run


def against_trampoline(label: str, build: Build, make: Callable[[], Any], count: int) -> None:
    schedules, run = schedules_of(build, make(), count)
    steps = sum(map(len, schedules))

    piece = max(1, PIECE_STEPS * count // steps)

    def ours() -> Iterator[None]:
        strategy = make()
        left = count
        while left and strategy.start():
            left -= 1
            run.begin()
            strategy.conduct(run)
            run.finish()
            if not left % piece:
                yield

    def bare() -> Iterator[None]:
        trampoline = Bare(build)
        left = count
        for schedule in schedules:
            left -= 1
            trampoline.take(schedule)
            if not left % piece:
                yield

    mine, its = paired(ours, bare)
    print(
        f"{label:34} {mine / its:5.2f}x   {len(schedules) / mine:9,.0f} executions/s"
        f"   {1e6 * mine / steps:6.3f} us/step   trampoline {1e6 * its / steps:6.3f} us/step"
    )


WHOLE = """
import sys, time
sys.path[:0] = {paths!r}
from vkemu import explore
from tests.exploration.literature import {name}
found = explore({name}({n}))
print(found.executions, found.blocked, found.seconds)
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def whole_process(name: str, n: int, nidhugg: float | None, genmc: float | None) -> None:
    """Processor time from the start of Python to its end."""
    best = float("inf")
    for _ in range(3):
        script = WHOLE.format(paths=sys.path[:3], name=name, n=n)
        before = getrusage(RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True
        )
        after = getrusage(RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = min(best, spent)
    traces, blocked, inside, memory = done.stdout.split()
    others = "".join(
        f"   {tool} {seconds:5.2f} s" for tool, seconds in (("Nidhugg", nidhugg), ("GenMC", genmc))
        if seconds is not None
    )  # fmt: skip
    print(
        f"{name}({n}):{'':{16 - len(name) - len(str(n))}} {best:6.2f} s   {traces:>7} traces,"
        f" {blocked} blocked   {float(inside):6.2f} s inside   {memory} MiB{others}"
    )


def main() -> None:
    print("against a bare trampoline taking the same schedules")
    against_trampoline("random, 4 threads x 250 steps", walk(4, 250), lambda: RandomWalk(0), 100)
    against_trampoline(
        "random, 3 x 4 independent steps", independent(3), lambda: RandomWalk(0), 4000
    )
    against_trampoline("dfs, 3 x 4 independent steps", independent(3), Dfs, 34650)
    print("\ndpor, whole processes (others' figures are of another machine)")
    whole_process("readers", 13, 3.5, 0.32)
    whole_process("lastzero", 10, 0.98, 0.23)
    whole_process("indexer", 15, 19.0, None)
    whole_process("filesystem", 19, 0.44, 0.23)
    if "--long" in sys.argv:
        whole_process("lastzero", 15, 74.0, None)


if __name__ == "__main__":
    main()

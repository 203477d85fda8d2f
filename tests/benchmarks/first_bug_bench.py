"""How many executions it takes to find the first bug: medians over seeds, as a Markdown table.

python tests/benchmarks/first_bug_bench.py [--seeds 100]
"""

from __future__ import annotations

import argparse
import sys
from math import comb, log
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "tools")]

from vkemu.exploration.program import Program  # noqa: E402
from vkemu.exploration.result import Result  # noqa: E402
from vkemu.exploration.run import Run  # noqa: E402
from vkemu.exploration.search import Search  # noqa: E402
from vkemu.exploration.strategies import strategy_named  # noqa: E402

from tests.exploration.literature import Build  # noqa: E402

LIMIT = 20_000  # of random executions
LIMIT_DPOR = 200_000


def lost_update(n: int) -> Build:
    """The sum is short of n when two tasks read before either writes; here: all of them do."""

    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def increment() -> None:
            v = await x.load()
            await x.store(v + 1)

        for t in range(n):
            k.spawn(f"t{t}", increment)
        k.at_end(lambda: x.value > 1)

    return program


def starvation(n: int) -> Build:
    """The victim tries n times, after each time waiting for the holder's next round, and starves
    when it finds the lock taken every time: n delays, each of them inside another round."""

    def program(k: Any) -> None:
        lock, rounds = k.lock("lock"), k.cell("rounds", 0)

        async def holder() -> None:
            for _ in range(n):
                await lock.acquire()
                await lock.release()
                await rounds.add(1)

        async def victim() -> None:
            for _ in range(n):
                before = await rounds.load()
                if await lock.try_acquire():
                    await lock.release()
                    return
                await rounds.wait(lambda done, before=before: done > before)
            raise AssertionError("starved")

        k.spawn("holder", holder)
        k.spawn("victim", victim)

    return program


class Classic(NamedTuple):
    name: str
    program: Build
    threads: int
    steps: int  # of its longest execution
    depth: int  # how many constraints on the order make the bug (Burckhardt et al.)


CLASSICS = (
    Classic("lost update, 2 tasks", lost_update(2), 2, 4, 2),
    Classic("lost update, 3 tasks", lost_update(3), 3, 6, 3),
    Classic("lost update, 4 tasks", lost_update(4), 4, 8, 4),
    Classic("starvation, 6 delays", starvation(6), 2, 36, 7),
    Classic("starvation, 12 delays", starvation(12), 2, 72, 13),
)


def first_bug(classic: Classic, strategy: str, seed: int, limit: int = LIMIT) -> int:
    """The number of the first failing execution, or one more than the limit."""
    run = Run(Program(classic.program, {}), 10_000)
    result = Result(strategy, seed)
    made = strategy_named(strategy, seed, run.program.numbers)
    Search(run, made, result, max_executions=limit).go()
    return result.executions if result.failures else limit + 1


def shown(executions: float, limit: int = LIMIT) -> str:
    return f"> {limit:,}" if executions > limit else f"{executions:,.0f}"


def promised(classic: Classic) -> str:
    """Executions for an even chance, by the bound of PCT at the bug's own depth."""
    executions = log(2) * classic.threads * float(classic.steps) ** (classic.depth - 1)
    return f"{executions:,.0f}" if executions < 1e6 else f"{executions:.0e}"


def interleavings(classic: Classic) -> str:
    """Of threads with equally many steps, as if nothing waited."""
    each, total = classic.steps // classic.threads, 1
    for t in range(1, classic.threads + 1):
        total *= comb(t * each, each)
    return f"{total:,}" if total < 1e6 else f"{total:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=100)
    seeds = range(parser.parse_args().seeds)
    print("| bug | random | pct | pct:d | bound for pct:d | pos | urw | dpor | interleavings |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for classic in CLASSICS:
        cells = [
            shown(median(first_bug(classic, strategy, seed) for seed in seeds))
            for strategy in ("random", "pct", f"pct:{classic.depth}", "pos", "urw")
        ]
        cells.insert(3, promised(classic))
        cells.append(shown(first_bug(classic, "dpor", 0, LIMIT_DPOR), LIMIT_DPOR))
        print(f"| {classic.name} | {' | '.join(cells)} | {interleavings(classic)} |", flush=True)


if __name__ == "__main__":
    main()

"""How many executions it takes to find the first bug: medians over seeds, as a Markdown table.

    python tests/benchmarks/first_bug_bench.py [--seeds 100] [--limit N] [--limit-dpor N] [BUG ...]

A seed that has not found the bug within the limit is censored: it counts as more than the limit,
and the table says of how many that is so. BUG is the beginning of a name, as `starvation`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import cache
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

LIMIT = 50_000  # of random executions, for a seed
LIMIT_DPOR = 20_000_000


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


def shown(found: list[int], limit: int) -> str:
    """The median, as far as it is known, and how many seeds were given up on."""
    censored = sum(executions > limit for executions in found)
    given_up = f"> {limit:,} in {censored} of {len(found)}"
    if 2 * censored >= len(found):
        return given_up
    middle = f"{median(found):,.0f}"
    return f"{middle}; {given_up}" if censored else middle


def chance_of_a_walk(n: int) -> float:
    """That a random walk starves the victim of n delays: over the chain of the program's states."""

    @cache
    def starves(holder: int, tries: int, at: int, before: int) -> float:
        """`holder`: steps it has taken, three a round. `at`: the victim loads, tries, or waits."""
        if tries == n:
            return 1.0
        rounds, held = holder // 3, holder % 3 == 1
        ways = [starves(holder + 1, tries, at, before)] if holder < 3 * n else []
        if at == 0:
            ways.append(starves(holder, tries, 1, rounds))
        elif at == 1:
            ways.append(starves(holder, tries, 2, before) if held else 0.0)
        elif rounds > before:
            ways.append(starves(holder, tries + 1, 0, 0))
        return sum(ways) / len(ways) if ways else 0.0

    return starves(0, 0, 0, 0)


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
    parser.add_argument("bugs", nargs="*", metavar="BUG", default=[""])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--limit", type=int, default=LIMIT)
    parser.add_argument("--limit-dpor", type=int, default=LIMIT_DPOR)
    args = parser.parse_args()
    for n in (6, 12):
        walks = log(2) / chance_of_a_walk(n)
        print(f"starvation, {n} delays: {walks:,.0f} random walks for an even chance, exactly")
    print()
    print("| bug | random | pct | pct:d | bound for pct:d | pos | urw | dpor | interleavings |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for classic in CLASSICS:
        if classic.name.startswith(tuple(args.bugs)):
            print(row(classic, range(args.seeds), args.limit, args.limit_dpor), flush=True)


def row(classic: Classic, seeds: Sequence[int], limit: int, limit_dpor: int) -> str:
    cells = [
        shown([first_bug(classic, strategy, seed, limit) for seed in seeds], limit)
        for strategy in ("random", "pct", f"pct:{classic.depth}", "pos", "urw")
    ]
    cells.insert(3, promised(classic))
    by_dpor = first_bug(classic, "dpor", 0, limit_dpor)  # which has no seed
    cells.append(f"> {limit_dpor:,}" if by_dpor > limit_dpor else f"{by_dpor:,}")
    return f"| {classic.name} | {' | '.join(cells)} | {interleavings(classic)} |"


if __name__ == "__main__":
    main()

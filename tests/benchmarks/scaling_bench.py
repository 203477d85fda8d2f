"""What a job costs, and how many workers one coordinator feeds.

    python tests/benchmarks/scaling_bench.py [--dask | --dask-ms 1] [--workers 10,100,1000,10000]

First the costs, measured: bytes of a job and of its report, the coordinator's milliseconds, and
with --dask those of Dask on this machine. Then a simulation, event by event, of divided searches
and of many calls: the coordinator is one server, calls are as long as the cells of the recorded
matrix, slices as long as those of a search, and a part that is split is split as real ones are.
docs/scaling.md has the figures.
"""

from __future__ import annotations

import argparse
import heapq
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from statistics import mean, median
from time import perf_counter, process_time
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "tools")]

from vkemu.exploration.result import Result  # noqa: E402
from vkemu.exploration.sharing import parallel  # noqa: E402
from vkemu.exploration.sharing.division import Division  # noqa: E402
from vkemu.exploration.sharing.jobs import Hand, Job, Task, search_of  # noqa: E402
from vkemu.exploration.sharing.parallel import Coordinator  # noqa: E402
from vkemu.litmus.decide import Test  # noqa: E402
from vkemu.litmus.file import load_litmus  # noqa: E402
from vkemu.workers.calls import answered  # noqa: E402
from vkemu.workers.processes import Here  # noqa: E402

from tests.exploration.divided import lastzero  # noqa: E402
from tests.workers.calls import square  # noqa: E402

LATENCY = 0.001  # seconds, there and back, on a local network


class Weighed(Here):
    """Does the jobs here, and notes what they are and take."""

    def __init__(self, kept: dict[Any, Any], count: int) -> None:
        super().__init__(kept)
        self.count = count
        self.jobs: list[int] = []
        self.reports: list[int] = []
        self.seconds: list[float] = []

    def submit(self, job: Any) -> None:
        self.jobs.append(len(pickle.dumps(job)))
        super().submit(job)

    def results(self) -> list[Any]:
        began = process_time()
        reports = super().results()
        self.seconds.append(process_time() - began)
        self.reports += [len(pickle.dumps(report)) for report in reports]
        return reports


def weigh(name: str, program: Any, max_steps: int, count: int) -> float:
    """Seconds of the coordinator for a job, in a search by so many workers."""
    task = Task("dpor", 0, max_steps, False, "unknown", False)
    search = search_of(program, task)
    workers = Weighed({search: Hand(program, task)}, count)
    result = Result("dpor", 0)
    coordinator = Coordinator(
        workers, count, result, stop_on_failure=False, max_executions=None, max_seconds=None,
        progress=None, search=search,
    )  # fmt: skip
    division = Division()
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(division.parts) + len(coordinator.under_way))

    began = process_time()
    coordinator.exhaustive(division, look)
    whole = process_time() - began
    n = len(workers.jobs)
    service = (whole - sum(workers.seconds)) / n
    print(
        f"{name:16}{count:5} workers {n:5} jobs of {median(workers.seconds):.3f} s,"
        f" {mean(workers.jobs) / 1024:7.1f} KiB out, {mean(workers.reports) / 1024:7.1f} KiB back,"
        f" {1e3 * service:6.2f} ms here, {most:4} parts at most,"
        f" {result.executions:6} executions, {result.blocked} blocked"
    )
    return service


def split_shares(program: Any) -> list[float]:
    """Of parts that are split at some point of a real search, how much of what is left the second
    part is: both are explored to their ends."""
    task = Task("dpor", 0, 10_000, False, "unknown", False)
    found = []
    for executions in range(20, 400, 40):
        hand, division = Hand(program, task), Division()
        explored(hand, division, executions, 2)
        if len(division.parts) < 2:
            break
        given = explored(hand, division, 1 << 60, 0)
        rest = 0
        while division.parts:
            rest += explored(hand, division, 1 << 60, 0)
        found.append(rest / (given + rest))
    return found


def explored(hand: Hand, division: Division, most: int, wanted: int) -> int:
    """Executions of the next part."""
    part = division.first()
    division.parts.popleft()
    report = hand.perform(Job(1, part.frontier, most, 60.0))
    division.take_back(part, report, wanted)
    return report.executions


def dask_overhead() -> float:
    """Seconds of everything, for a job that does nothing, on a cluster of two here."""
    from vkemu.workers.cluster import connected

    questions = [(n,) for n in range(1000)]
    with connected("dask-local:2") as workers:
        list(answered(square, questions[:50], workers))
        began = perf_counter()
        list(answered(square, questions, workers))
        return (perf_counter() - began) / len(questions)


def served(
    workers: int, service: float, begin: Callable[[], Iterator[float]], more: Callable[[], None]
) -> float:
    """Seconds that a coordinator and so many workers take. `begin` gives the lengths of the jobs
    there are to hand out; `more` is called as one comes back, and may make some."""
    clock = free = 0.0  # of the coordinator
    idle = workers
    under_way: list[float] = []
    waiting: list[float] = []
    while True:
        waiting += begin()
        while idle and waiting:
            length = waiting.pop()
            free = max(free, clock) + service / 2
            heapq.heappush(under_way, free + LATENCY + length)
            idle -= 1
        if not under_way:
            return max(clock, free)
        clock = heapq.heappop(under_way)
        free = max(free, clock) + service / 2
        idle += 1
        more()


def simulate_calls(workers: int, lengths: list[float], count: int, service: float) -> float:
    """How much of the workers' time is work, for so many calls."""
    rng = Random(workers)
    left = [rng.choice(lengths) for _ in range(count)]
    work = sum(left)

    def begin() -> Iterator[float]:
        nonlocal left
        now, left = left, []
        return iter(now)

    return work / workers / served(workers, service, begin, lambda: None)


class Searching:
    """A divided search of `work` seconds, by the rules of `parallel` and `division`."""

    def __init__(self, workers: int, work: float, shares: list[float], service: float) -> None:
        self.rng = Random(workers)
        self.workers = workers
        self.shares = shares
        self.service = service
        self.parts = [work]
        self.under_way: list[tuple[float, int, float]] = []  # back at, order, what is left then

    def run(self) -> float:
        clock = free = 0.0
        number = 0
        work = sum(self.parts)
        while self.parts or self.under_way:
            while self.parts and len(self.under_way) < self.workers:
                spread = len(self.under_way) + len(self.parts) < self.workers
                length = parallel.slice_seconds(clock, len(self.under_way) + 1, spread)
                part = self.parts.pop(0)
                length = min(part, length)
                free = max(free, clock) + self.service / 2
                number += 1
                back = free + LATENCY + length
                heapq.heappush(self.under_way, (back, number, part - length))
            clock, _, left = heapq.heappop(self.under_way)
            free = max(free, clock) + self.service / 2
            if left > 0:
                idle = self.workers - len(self.under_way)
                while idle > len(self.parts) + 1 and left > parallel.FIRST_SLICE_SECONDS:
                    others = left * self.rng.choice(self.shares)
                    self.parts.append(others)
                    left -= others
                self.parts.append(left)
        return work / self.workers / max(clock, free)


def recorded_lengths() -> list[float]:
    cells = json.loads((ROOT / "tests/matrix/recorded.json").read_text())
    return [cell["seconds"] for cell in cells if cell["verdict"] != "n/a"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dask", action="store_true", help="measure Dask's own overhead too")
    parser.add_argument("--dask-ms", type=float, default=1.0, help="or take so many")
    parser.add_argument("--workers", default="10,100,1000,10000")
    args = parser.parse_args()
    services = []
    for name, policy in (("W02", "shadow"), ("W43", "pv_entry")):
        litmus = load_litmus(name)
        test = Test(litmus, policy)
        services.append(weigh(f"{name}[{policy}]", test, litmus.file.litmus.max_steps, 2))
    services += [weigh("lastzero(11)", partial(lastzero, n=11), 10_000, count) for count in (2, 16)]
    shares = [
        share
        for program in (partial(lastzero, n=8), Test(load_litmus("W43"), "pv_entry"))
        for share in split_shares(program)
    ]
    print(f"a split gives away {median(shares):.0%} of what is left ({len(shares)} splits)")
    dask = dask_overhead() if args.dask else args.dask_ms / 1e3
    print(f"a job of Dask's: {1e3 * dask:.2f} ms" + ("" if args.dask else ", as said"))
    service = median(services) + dask
    lengths = recorded_lengths()
    counts = [int(word) for word in args.workers.split(",")]
    print(f"\nhow much of the workers' time is work; {1e3 * service:.1f} ms of coordinator a job")
    print(f"{'workers':>28}" + "".join(f"{count:>9,}" for count in counts))

    def searched(seconds: float, n: int) -> float:
        return Searching(n, seconds, shares, service).run()

    def calls(n: int, count: int) -> float:
        return simulate_calls(n, lengths, count, service)

    rows: list[tuple[str, Callable[[int], float]]] = [
        (f"{len(lengths)} cells of the matrix", lambda n: calls(n, len(lengths))),
        ("100,000 such calls", lambda n: calls(n, 100_000)),
    ]
    searches = {"a search of 10 min": 600.0, "of 10 hours": 36e3, "of 40 days": 3.5e6}
    rows += [(text, partial(searched, seconds)) for text, seconds in searches.items()]
    for text, row in rows:
        print(f"{text:>28}" + "".join(f"{row(count):9.0%}" for count in counts), flush=True)


if __name__ == "__main__":
    main()

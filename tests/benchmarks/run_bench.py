"""How fast scenarios run: steps a second under control, oracle on, with and without the log.

python tests/benchmarks/run_bench.py [SCENARIO ...] [--seeds 5]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from vkemu.executors.chance import seeded
from vkemu.launch.scenario import Scenario, load
from vkemu.report.trial import Origin, attempt, record


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=["quickstart", "no-pressure", "fleet"])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    print(f"{'scenario':<16} {'steps/run':>10} {'steps/s':>10} {'with log':>10}")
    for name in args.scenarios:
        measure(name, load(name), args.seeds)


def measure(name: str, scenario: Scenario, seeds: int) -> None:
    start = time.perf_counter()
    steps = sum(attempt(scenario, seeded(seed)).steps for seed in range(1, seeds + 1))
    alone = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        logged = record(scenario, seeded(1), Origin(name, (), "random", 1), Path(folder))
        with_log = time.perf_counter() - start
    rate = logged.outcome.steps / with_log
    print(f"{name:<16} {steps // seeds:>10,} {steps / alone:>10,.0f} {rate:>10,.0f}")


if __name__ == "__main__":
    main()

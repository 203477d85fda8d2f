"""What the log commands cost beside DuckDB's scan of the same file, in pairs.

python tests/benchmarks/log_bench.py [LOG] [--pairs 5]

LOG is a run folder of a million events or more, such as that of a fleet whose workloads have many
rounds; without it the shipped fleet is run, which has some 55,000 events, so that both sides spend
most of their time on starting up.

Each command runs in a process of its own, next to one in which DuckDB counts the events. The
figures are CPU seconds of each, their ratio within the pair, and the most memory the command held.
Wall time is printed too, but depends on what else the machine does. The bound is a ratio of 3.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from vkemu.inspect.reader import locate

VKEMU = [sys.executable, "-m", "vkemu"]
COUNT = "import duckdb,sys; print(duckdb.sql(sys.argv[1]).fetchall())"
COMMANDS = {
    "windows": ["windows"],
    "stats": ["stats"],
    "filter": ["show", "event=pte.write", "why=enter", "t>=0", "--json"],
}
BOUND = 3.0


@dataclass(frozen=True)
class Cost:
    cpu: float
    wall: float
    mib: float


def cost(command: list[str]) -> Cost:
    """Of one process, its output thrown away."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - begin, usage.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("log", nargs="?")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    if args.log is not None:
        compare(locate(args.log), args.pairs)
        return
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a child's memory is never less than what its parent had.
        subprocess.run([*VKEMU, "run", "fleet", "--runs", folder, "--json"], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        compare(locate(Path(folder) / "latest"), args.pairs)


def compare(path: Path, count: int) -> None:
    sql = f"SELECT count(*) FROM read_json('{path}', format='newline_delimited')"
    scan = [sys.executable, "-c", COUNT, sql]
    size = path.stat().st_size
    print(f"{path}: {size / 1e6:,.0f} MB")
    print(f"{'command':<9} {'CPU s':>7} {'DuckDB':>7} {'ratio':>6} {'worst':>6}"
          f" {'wall s':>7} {'DuckDB':>7} {'MiB':>6}")  # fmt: skip
    cost(scan)  # the file is in the page cache from here on
    for name, words in COMMANDS.items():
        command = [*VKEMU, "log", words[0], str(path), *words[1:]]
        pairs = [(cost(command), cost(scan)) for _ in range(count)]
        ratios = [ours.cpu / theirs.cpu for ours, theirs in pairs]
        middle = statistics.median
        print(
            f"{name:<9} {middle(o.cpu for o, _ in pairs):>7.2f}"
            f" {middle(t.cpu for _, t in pairs):>7.2f} {middle(ratios):>6.2f}"
            f" {max(ratios):>6.2f} {middle(o.wall for o, _ in pairs):>7.2f}"
            f" {middle(t.wall for _, t in pairs):>7.2f} {max(o.mib for o, _ in pairs):>6.0f}"
            f"{'' if middle(ratios) <= BOUND else '   above the bound'}"
        )


if __name__ == "__main__":
    main()

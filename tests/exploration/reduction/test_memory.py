"""A search keeps one path, not what it has done."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from vkemu import explore

from tests.exploration.literature import lastzero, readers

ROOT = Path(__file__).parents[3]
SCRIPT = """
import resource, sys
sys.path[:0] = {paths!r}
from vkemu import explore
from tests.exploration.literature import {name}
found = explore({name}({n}))
# Not ru_maxrss: that keeps the peak of the process that forked us.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(found.executions, int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n", "traces"), [("readers", 13, 8192), ("lastzero", 10, 3328)])
def test_a_large_search_stays_under_200_mib(name: str, n: int, traces: int) -> None:
    paths = [str(ROOT), str(ROOT / "protocol"), str(ROOT / "tools")]
    script = SCRIPT.format(paths=paths, name=name, n=n)
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    executions, mebibytes = map(int, done.stdout.split())
    assert executions == traces
    assert mebibytes < 200


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["dpor", "source-dpor", "dfs", "random", "pct", "bounded"])
@pytest.mark.parametrize(("program", "traces"), [(readers(9), 512), (lastzero(8), 704)])
def test_memory_does_not_grow_with_executions(program: Any, traces: int, strategy: str) -> None:
    """At the end, that is: in between, wakeup trees hold what is known to be left to do."""
    sizes: dict[int, int] = {}
    count = 0

    def each(run: Any) -> None:
        nonlocal count
        count += 1
        if count in {50, traces}:
            gc.collect()
            sizes[count] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        explore(program, strategy=strategy, max_executions=traces, each=each)
    finally:
        tracemalloc.stop()
    assert sizes[traces] - sizes[50] < 20_000

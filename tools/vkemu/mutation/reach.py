"""Which lines of the kernels each check executes, by coverage.py, and what each says as they are.

Of a search a few executions are looked at, of the seeds of a scenario the first two: what they
reach, the rest reaches too. A check that fails without a mutant says nothing with one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import msgspec

from vkemu.mutation.planted import ROOT, sources
from vkemu.mutation.trial import checks, perform
from vkemu.verdict import UsageError

EXECUTIONS: Final = 3
# Of a mutant that all reach, the first two are tried; those that pass what they are asked.
POLICIES: Final = (
    "pv_entry", "vpte_list", "shadow", "nested", "notifier", "bloom", "hybrid", "broadcast",
    "wired", "vptmapped", "extent_scan",
)  # fmt: skip


class Reach(msgspec.Struct, frozen=True):
    """Of one check: its verdict, how long it takes, and the lines by file below the root."""

    check: str
    verdict: str
    seconds: float
    lines: dict[str, list[int]]


def reach(
    policies: tuple[str, ...] = POLICIES,
    jobs: int = 1,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[list[Reach], list[bytes]]:
    """Of every check there is, and what coverage.py has seen."""
    looked_at = ("0", "1")  # seeds
    every = [c for c in checks(policies) if not c.startswith("run") or c.endswith(looked_at)]
    share = 40  # checks looked at in one piece
    shares = [every[i : i + share] for i in range(0, len(every), share)]
    found: list[Reach] = []
    seen: list[bytes] = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for number, part in enumerate(pool.map(look, shares), 1):
            found += part[0]
            seen.append(part[1])
            tell(min(number * share, len(every)), len(every))
    return found, seen


def look(share: Iterable[str]) -> tuple[list[Reach], bytes]:
    coverage = tracer()
    coverage.start()
    said: list[tuple[str, str, float]] = []
    for check in share:
        coverage.switch_context(check)
        start = time.process_time()
        try:
            verdict, _ = perform(check, executions=EXECUTIONS)
        except UsageError:
            continue
        said.append((check, verdict, round(time.process_time() - start, 3)))
    coverage.stop()
    data = coverage.get_data()
    lines: dict[str, dict[str, list[int]]] = {}
    for path in map(str, sources()):
        for line, contexts in data.contexts_by_lineno(path).items():
            name = str(Path(path).relative_to(ROOT))
            for context in contexts:
                lines.setdefault(context, {}).setdefault(name, []).append(line)
    reached = [Reach(c, verdict, took, lines.get(c, {})) for c, verdict, took in said]
    return reached, data.dumps()


class Missed(msgspec.Struct, frozen=True):
    """Of a file: lines that nothing executes, and branches (from line, to line) not taken."""

    lines: list[int]
    branches: list[tuple[int, int]]


def unreached(seen: Iterable[bytes]) -> dict[str, Missed]:
    """By file, what no check has reached."""
    coverage = tracer()
    for piece in seen:
        part = coverage.get_data().__class__(no_disk=True)
        part.loads(piece)
        coverage.get_data().update(part)
    with NamedTemporaryFile(suffix=".json") as file:
        coverage.json_report(outfile=file.name)
        report = msgspec.json.decode(Path(file.name).read_bytes())
    missed: dict[str, Missed] = {}
    for path, said in report["files"].items():
        name = str(Path(path).resolve().relative_to(ROOT))
        branches = [(a, b) for a, b in said["missing_branches"]]
        missed[name] = Missed(said["missing_lines"], branches)
    return missed


def tracer() -> Any:
    """coverage.py over both kernels, in memory."""
    try:
        from coverage import Coverage
    except ImportError:
        raise UsageError("coverage: not installed, expected `pip install vkemu[dev]`") from None
    return Coverage(data_file=None, branch=True, include=[str(p) for p in sources()])


def reaching(reached: Iterable[Reach], path: str, first: int, last: int) -> list[str]:
    """The checks that get to these lines and say nothing as they are, in the order to try them:
    cheap ones first, and of those that ask the same of many policies the first two."""
    hits = [
        r
        for r in reached
        if (r.verdict == "pass" or (r.verdict == "unknown" and not r.check.startswith("run")))
        and any(first <= line <= last for line in r.lines.get(path, ()))
    ]
    searches: list[Reach] = []
    asked: dict[str, int] = {}
    for r in hits:
        kind, name, *_ = r.check.split()
        if kind != "run" and asked.setdefault(name, 0) < 2:
            asked[name] += 1
            searches.append(r)
    runs = dict.fromkeys(tuple(r.check.split()[1:3]) for r in hits if r.check.startswith("run"))
    return [r.check for r in sorted(searches, key=lambda r: r.seconds)] + list(_seeds(runs))


def _seeds(runs: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Seed by seed: what is seldom needs many, and each alone is cheap."""
    from vkemu.mutation.trial import SEEDS

    few = [pair for pair in runs if pair[1] in _first(runs)]
    for seed in range(SEEDS):
        for scenario, policy in few:
            yield f"run {scenario} {policy} {seed}"


def _first(runs: Iterable[tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(policy for _, policy in runs))[:2]

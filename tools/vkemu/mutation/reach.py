"""Which lines of the kernels each check executes, by coverage.py, and what each says as they are.

Of a search a few executions are looked at, of the seeds of a scenario the first two: what they
reach, the rest reaches too. A check that fails without a mutant says nothing with one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from operator import itemgetter
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final, NamedTuple

import msgspec

from vkemu.mutation.planted import ROOT, sources
from vkemu.mutation.reasons import spans
from vkemu.mutation.trial import DRAWN, FEW, SEEDS, checks, perform
from vkemu.verdict import UsageError

ALIKE: Final = 2  # policies of which the same is asked
# What most lines are looked for with: of two trees, and both know every PTE that matters.
USUAL: Final = ("pv_entry", "vpte_list")
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


class Looked(msgspec.Struct, frozen=True):
    """Of a share of the checks; and what coverage.py has seen."""

    reached: list[Reach]
    seen: bytes


def shares(
    policies: tuple[str, ...] = POLICIES, also: Iterable[str] = ()
) -> list[tuple[list[str]]]:
    """What `look` is asked: every check there is, some at a time."""
    looked_at = ("0", "1")  # seeds
    every = [c for c in checks(policies) if not c.startswith("run") or c.endswith(looked_at)]
    every += also
    share = 40  # checks looked at in one piece
    return [(every[i : i + share],) for i in range(0, len(every), share)]


def others() -> list[str]:
    """What finds the lines of the other reverse maps: each test as it stands, drawn runs."""
    every = checks(tuple(p for p in POLICIES if p not in USUAL))
    return [c for c in every if "+" not in c and c.split()[3:] in ([], ["0"]) and "x86" not in c]


def look(share: Iterable[str]) -> Looked:
    coverage = tracer()
    coverage.start()
    said: list[tuple[str, str, float]] = []
    few = 2
    for check in share:
        coverage.switch_context(check)
        executions = 10 * few if check.startswith("program") else few  # small, of one race each
        start = time.process_time()
        try:
            verdict, _ = perform(check, executions=executions)
        except UsageError:
            continue
        took = (time.process_time() - start) * few / executions  # as of a few
        said.append((check, verdict, round(took, 3)))
    coverage.stop()
    data = coverage.get_data()
    lines: dict[str, dict[str, list[int]]] = {}
    for path in map(str, sources()):
        for line, contexts in data.contexts_by_lineno(path).items():
            name = str(Path(path).relative_to(ROOT))
            for context in contexts:
                lines.setdefault(context, {}).setdefault(name, []).append(line)
    reached = [Reach(c, verdict, took, lines.get(c, {})) for c, verdict, took in said]
    return Looked(reached, data.dumps())


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


class Asked(NamedTuple):
    """A check, and how many executions of a search."""

    check: str
    executions: int


# Of a mutant that nothing is known to reach: not all seeds were looked at.
EARLY: Final = [
    Asked(f"run {scenario} {policy} {n}", 1)
    for n in range(FEW)
    for scenario in DRAWN
    for policy in ("pv_entry", "nested")
]


def reaching(reached: Sequence[Reach], path: str, first: int, last: int) -> list[Asked]:
    """The checks that get to these lines, in the order to try them: searches, the cheap ones first,
    and runs seed by seed, by turns, each as long as the other; then longer searches."""
    hits = [r for r in reached if any(first <= line <= last for line in r.lines.get(path, ()))]
    # Of a reverse map by its own policy, if it is one of the two that are asked the same.
    fine = [r for r in hits if r.verdict != "fail"]
    fine.sort(key=lambda r: (r.check.split()[2] != Path(path).stem, r.seconds))
    some, own, many = 60, 300, 1500  # executions of a search, at first and when all was silent
    searches = sorted((r.seconds, r.check) for r in _searches(fine))
    ran = {tuple(r.check.split()[:3]): r.seconds for r in fine}
    runs = [(ran[tuple(c.split()[:3])], c) for c in _seeds([r.check for r in fine])]
    turns = merge(_spent(searches), _spent(runs), key=itemgetter(0))
    begin = {"run": 1, "program": own}
    asked = [Asked(c, begin.get(c.partition(" ")[0], some)) for _, c in turns]
    return [*asked, *(Asked(c, many) for _, c in searches)]


def nearby(reached: Sequence[Reach], path: str, line: int) -> list[Asked]:
    """The checks to try of a line that none is known to reach: those of its function, if any gets
    there, or of its file, which has used it as it was imported; and a few runs."""
    source = (ROOT / path).read_text()
    for first, last in [*spans(source, line), (1, source.count("\n"))]:
        if found := reaching(reached, path, first, last):
            return [*found, *EARLY]
    return EARLY


def _spent(checks: Iterable[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """Each with the time of all before it."""
    spent = 0.0
    for seconds, check in checks:
        yield spent, check
        spent += seconds


def _searches(hits: Iterable[Reach]) -> list[Reach]:
    """Of those that ask the same of many policies the first two."""
    asked: Counter[str] = Counter()
    found = []
    for r in hits:
        kind, name, *_ = r.check.split()
        asked[name] += kind != "run"
        if kind != "run" and asked[name] <= ALIKE:
            found.append(r)
    return found


def _seeds(hits: Iterable[str]) -> Iterator[str]:
    """Seed by seed: what is seldom needs many, and each alone is cheap."""
    ran = dict.fromkeys(tuple(check.split()[1:3]) for check in hits if check.startswith("run"))
    few: list[tuple[str, ...]] = []
    for pair in ran:
        if sum(scenario == pair[0] for scenario, _ in few) < ALIKE:
            few.append(pair)
    for seed in range(SEEDS):
        for scenario, policy in few:
            if scenario in DRAWN or seed < FEW:
                yield f"run {scenario} {policy} {seed}"

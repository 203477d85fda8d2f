"""docs/guest-races.md: `python -m tests.docs.guest_page`; with --record every search is made anew,
for tests/litmus/guest.json."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from vkemu.exploration import explore
from vkemu.exploration.run import Run
from vkemu.litmus.decide import Test
from vkemu.litmus.file import load_litmus, of_guest
from vkemu.matrix.elsewhere import source

from vkguest.mutants import GUEST_MUTANTS

PAGE = Path(__file__).parents[2] / "docs" / "guest-races.md"
RECORD = Path(__file__).parents[1] / "litmus" / "guest.json"
EXECUTIONS = 300
HEAD = f"""\
# Races within the guest's kernel

Generated: `python -m tests.docs.guest_page`. The windows are about the host; these litmus tests
are about the vkernel on it. Each boots one, lets its process do what came `before`, and then takes
every interleaving that matters of what its threads say: calls and accesses of programs, each
lwp on a vCPU, and the page daemon on another ([litmus.md](litmus.md#a-guest)). Both kernels run
with the oracle, the reference and the books on.

    vkemu explore guest-fork
    vkemu explore guest-fork --variant without-protect

*As it is*: how many interleavings differ, all of them explored; or *bounded*, when these are only
the first {EXECUTIONS} of `dpor`. None fails. A variant is the kernel with a mistake in it; behind
it is in which execution that shows - of `pct`, where `dpor` does not come so far - and what it
breaks.

| Test | | As it is | With a mistake |
|---|---|---|---|
"""


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a search has said. `executions`: of a failure up to it."""

    test: str
    variant: str
    verdict: str
    executions: int
    exhausted: bool = False
    reason: str = ""
    strategy: str = "dpor"


class Found(Exception):
    """An execution fails. Nobody is to shrink it."""


def searched(test: str, variant: str) -> Row:
    """By dpor; what that does not find within its bound, at random."""
    row = _searched(test, variant, "dpor")
    return row if row.verdict != "unknown" or not variant else _searched(test, variant, "pct")


def _searched(name: str, variant: str, strategy: str) -> Row:
    test = Test(load_litmus(name, variant), "pv_entry")
    count = 0

    def each(run: Run) -> None:
        nonlocal count
        count += 1
        if run.error is not None:
            raise Found(f"{run.error}".splitlines()[0])

    bound = EXECUTIONS if strategy == "dpor" else 10 * EXECUTIONS
    try:
        result = explore(test, strategy=strategy, each=each, max_executions=bound, max_steps=20_000)
    except Found as found:
        return Row(name, variant, "fail", count, reason=str(found), strategy=strategy)
    return Row(name, variant, result.verdict, count, result.exhausted, strategy=strategy)


def asked() -> Iterator[tuple[str, str]]:
    """Each and its variants."""
    for path in of_guest():
        yield path.stem, ""
        for variant in load_litmus(path.stem).file.variant:
            yield path.stem, variant.name


def recorded() -> list[Row]:
    return msgspec.json.decode(RECORD.read_bytes(), type=list[Row])


def page() -> str:
    rows = {(row.test, row.variant): row for row in recorded()}
    lines = []
    for path in of_guest():
        litmus = load_litmus(path.stem)
        plain = rows[path.stem, ""]
        found = f"{plain.executions:,}" + ("" if plain.exhausted else ", *bounded*")
        mistakes = []
        for variant in litmus.file.variant:
            row = rows[path.stem, variant.name]
            what = "; ".join(GUEST_MUTANTS[name] for name in variant.guest["mutants"])
            found_in = f"{row.executions}{' of pct' * (row.strategy == 'pct')}"
            mistakes.append(f"`{variant.name}` ({what}): {found_in}, {row.reason}")
        heading = litmus.file.litmus
        what = f"{heading.title} ({source(path)}). Breaks: {heading.breaks}"
        lines.append(f"| `{path.stem}` | {what} | {found} | {'<br>'.join(mistakes)} |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--record" in sys.argv:
        rows = []
        for test in asked():
            rows.append(searched(*test))
            print(rows[-1])
        RECORD.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
    PAGE.write_text(page())

"""`vkemu mutants`: the deliberate defects, and which check catches each.

Exit status 1 if one survives that should not.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from vkemu.commands import arguments, sharing
from vkemu.oracle.violation import INVARIANTS
from vkemu.verdict import INTERRUPTED, Status, UsageError, telling
from vkguest.mutants import GUEST_MENDS, GUEST_MUTANTS
from vkhost.mutants import DEADLOCK_OR_PANIC, MUTANTS

if TYPE_CHECKING:
    from vkemu.mutation.generate import Fate


SECONDS: Final = 60


WORDS: Final = {"tests": "by unit tests alone"}


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One defect - or mend, of a defect the real guest kernel has."""

    name: str
    of: str  # host, guest, or mend
    description: str
    where: str = ""
    invariants: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    status: str = ""  # caught, survived, equivalent; empty: not run
    by: str = ""
    said: str = ""
    control: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", type=arguments.name, nargs="*", help="only those with this in their name"
    )
    parser.add_argument(
        "--generate", action="store_true", help="mutants by machine, not those with a name"
    )
    sample = 40
    parser.add_argument(
        "--sample", type=arguments.whole(1, 100_000), default=sample, metavar="N",
        help=f"how many of the generated ones (default {sample})",
    )  # fmt: skip
    parser.add_argument("--seed", type=arguments.whole(0), default=0, help="which ones")
    parser.add_argument(
        "--seconds", type=arguments.whole(1, 100_000), default=SECONDS, metavar="N",
        help=f"of CPU for the checks of each generated one (default {SECONDS})",
    )  # fmt: skip
    parser.add_argument(
        "--tests", type=arguments.path, metavar="DIR",
        help="what no check notices: by the unit tests below DIR, too",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="say what there is, run nothing")
    sharing.add_arguments(parser, os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    if args.generate:
        return generated(args)
    found = [row for row in rows() if not args.name or any(n in row.name for n in args.name)]
    if not found:
        raise UsageError(f"mutants: no name contains {' or '.join(args.name)}")
    judged: list[Row] = []
    left = ""
    try:
        for row in found if args.list else hunted(found, args):
            judged.append(row)
            if not args.json:
                show(row)
    except KeyboardInterrupt:
        left = f"vkemu: interrupted: {len(found) - len(judged)} of {len(found)} were not judged"
    survived = any(row.status == "survived" for row in judged)
    status = Status.VIOLATION if survived else INTERRUPTED if left else Status.PASS
    with telling(status):
        if args.json:
            sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(judged)) + b"\n")
        elif not args.list:
            print(summary(judged))
        if left:
            print(left, file=sys.stderr)
    return status


def generated(args: argparse.Namespace) -> int:
    """`--generate`: a line for each, and at the end those that survived, with their diff."""
    from vkemu.mutation.generate import Fate, fate, questions, reach_of, sample
    from vkemu.mutation.reach import Looked, look

    chosen = [m for m in sample(args.sample, args.seed) if not args.name or any(
        n in m.name for n in args.name
    )]  # fmt: skip
    if args.list and args.json:
        listed = [{"name": mutant.name, "diff": mutant.diff()} for mutant in chosen]
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(listed)) + b"\n")
        return Status.PASS
    if args.list:
        for mutant in chosen:
            print(f"{mutant.name}\n{mutant.diff()}")
        return Status.PASS
    found: list[Fate] = []
    tests = str(args.tests or "")
    elsewhere = argparse.Namespace(**vars(args) | {"checkpoint": None})  # that is of the mutants
    preload = ["vkemu.mutation.generate"]
    reached = reach_of(
        lambda shares: sharing.each(elsewhere, "reach", look, shares, Looked, preload=preload)
    )
    asked = questions(chosen, reached, args.seconds, tests)
    for one in sharing.each(args, "mutants", fate, asked, Fate, preload=preload):
        found.append(one)
        if not args.json:
            print(f"{one.name}: {one.status}" + f" by {one.by}: {one.said}" * bool(one.by))
    status = Status(any(one.status in ("survived", "unreached") for one in found))
    with telling(status):
        if args.json:
            sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        else:
            for one in found:
                if one.diff:
                    print(f"\n{one.status}: {one.said}".rstrip(": ") + f"\n{one.diff}")
            print(tally(found))
    return status


def tally(found: list[Fate]) -> str:
    kinds = ("noticed", "tests", "equivalent", "survived", "unreached")
    counts = {kind: sum(one.status == kind for one in found) for kind in kinds}
    real = len(found) - counts["equivalent"]
    said = ", ".join(f"{count} {WORDS.get(kind, kind)}" for kind, count in counts.items() if count)
    if not real:
        return f"{len(found)} generated mutants: {said}"
    share = f"{100 * counts['noticed'] / real:.0f} % of those not equivalent"
    if counts["tests"]:
        both = counts["noticed"] + counts["tests"]
        share += f", {100 * both / real:.0f} % with the unit tests"
    return f"{len(found)} generated mutants: {said}; noticed: {share}"


def hunted(found: list[Row], args: argparse.Namespace) -> Iterator[Row]:
    """Each row with what became of its mutant; a mend is nothing to catch."""
    from vkemu.mutation import Caught, hunt

    names = [(row.name,) for row in found if row.of != "mend"]
    preload = ["vkemu.mutation.hunt"]
    caught = sharing.each(args, "mutants", hunt, names, Caught, preload=preload)
    for row in found:
        if row.of == "mend":
            yield row
            continue
        result = next(caught)
        yield msgspec.structs.replace(
            row, status=result.status, by=result.by, said=result.said, control=result.control
        )


def show(row: Row) -> None:
    print(f"{row.name}  ({row.of})" + (f": {row.status}" if row.status else ""))
    print(f"    {row.description}")
    if row.where:
        print(f"    in {row.where}")
    if row.invariants:
        print(f"    can break: {'; '.join(row.invariants)}")
    if row.windows:
        print(f"    windows: {' '.join(row.windows)}")
    if row.by:
        print(f"    by {row.by} (without it: {row.control})")
    if row.said:
        print(f"    {row.said}")


def summary(judged: list[Row]) -> str:
    run = [row for row in judged if row.status]
    counts = {s: sum(row.status == s for row in run) for s in ("caught", "equivalent", "survived")}
    return f"{len(run)} mutants: " + ", ".join(f"{n} {status}" for status, n in counts.items())


def rows() -> Iterator[Row]:
    for name, mutant in MUTANTS.items():
        broken = tuple(map(invariant, mutant.invariants))
        yield Row(name, "host", mutant.description, mutant.where, broken, mutant.windows)
    for kind, table in (("guest", GUEST_MUTANTS), ("mend", GUEST_MENDS)):
        for name, description in table.items():
            window, colon, text = description.partition(": ")
            if colon and window.startswith("W"):
                yield Row(name, kind, text, windows=(window,))
            else:
                yield Row(name, kind, description)


def invariant(number: int) -> str:
    if number == DEADLOCK_OR_PANIC:
        return "deadlock or panic"
    return f"{number} {INVARIANTS.get(number, 'liveness')}"

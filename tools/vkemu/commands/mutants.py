"""`vkemu mutants`: the deliberate defects, where each is, and what it can break."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import msgspec

from vkemu.oracle.violation import INVARIANTS
from vkguest.mutants import GUEST_MENDS, GUEST_MUTANTS
from vkhost.mutants import DEADLOCK_OR_PANIC, MUTANTS


class Row(msgspec.Struct, frozen=True):
    """One defect - or mend, of a defect the real guest kernel has."""

    name: str
    of: str  # host, guest, or mend
    description: str
    where: str = ""
    invariants: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="", help="only those with this in their name")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    found = [row for row in rows() if args.name in row.name]
    if args.json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        return 0
    for row in found:
        print(f"{row.name}  ({row.of})")
        print(f"    {row.description}")
        if row.where:
            print(f"    in {row.where}")
        if row.invariants:
            print(f"    can break: {'; '.join(row.invariants)}")
        if row.windows:
            print(f"    windows: {' '.join(row.windows)}")
    return 0


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

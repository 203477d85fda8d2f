"""`vkemu matrix`: which window each reverse-map policy leaves open, decided by running."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from vkemu.commands import sharing
from vkemu.commands.arguments import names, path, seconds
from vkemu.verdict import INTERRUPTED, Status, UsageError, telling
from vkhost.tree import TREES

if TYPE_CHECKING:
    from vkemu.matrix import Cell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--windows", type=names, default=[], metavar="W01,W07", help="only these")
    parser.add_argument("--policies", type=names, default=[], metavar="P,...", help="only these")
    parser.add_argument(
        "--tree", choices=list(TREES), default="",
        help="model this tree, instead of each policy's own",
    )  # fmt: skip
    parser.add_argument(
        "--all-variants", action="store_true", help="also with the interlock off, guests that "
        "misbehave, kernels with a defect: a row each",
    )  # fmt: skip
    parser.add_argument("--strategy", default="dpor", help="how cells are decided (default: dpor)")
    parser.add_argument(
        "--max-seconds", type=seconds, default=40.0, metavar="S",
        help="for one cell, before it is only searched up to a bound (default: 40)",
    )  # fmt: skip
    sharing.add_arguments(parser, 2)
    parser.add_argument("--read", type=path, metavar="FILE", help="show what --json once printed")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--markdown", action="store_true", help="docs/windows.md")


def run(args: argparse.Namespace) -> int:
    cells, complete = recorded(args) if args.read is not None else computed(args)
    status = status_of(cells)
    if not complete and status != Status.VIOLATION:
        status = INTERRUPTED
    with telling(status):
        show(cells, args)
    if not complete:
        print(
            f"vkemu: interrupted: {len(cells)} cells are decided, the rest is not", file=sys.stderr
        )
    return status


def status_of(cells: Sequence[Cell]) -> int:
    found = {cell.verdict for cell in cells}
    if "fail" in found:
        return Status.VIOLATION
    return Status.UNKNOWN if "bounded" in found else Status.PASS


def show(cells: Sequence[Cell], args: argparse.Namespace) -> None:
    if args.json:
        sys.stdout.write(encode(cells))
    elif args.markdown:
        from vkemu.matrix.document import document

        sys.stdout.write(document(cells))
    else:
        from vkemu.matrix.table import render

        sys.stdout.write(render(cells))


def encode(cells: Sequence[Cell]) -> str:
    """A cell a line: what changes shows in a diff."""
    rows = ",\n".join(msgspec.json.encode(cell).decode() for cell in cells)
    return f"[\n{rows}\n]\n"


def recorded(args: argparse.Namespace) -> tuple[list[Cell], bool]:
    from vkemu.matrix import Cell

    for option, given in (
        ("--windows", args.windows), ("--policies", args.policies), ("--tree", args.tree),
        ("--all-variants", args.all_variants),
    ):  # fmt: skip
        if given:
            raise UsageError(f"--read {args.read}: {option}, expected without: nothing is decided")
    try:
        return msgspec.json.decode(args.read.read_bytes(), type=list[Cell]), True
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"--read {args.read}: {error}, expected what --json printed") from None


def computed(args: argparse.Namespace) -> tuple[list[Cell], bool]:
    from vkemu.matrix import Cell, answer, compute, questions
    from vkemu.matrix.compute import PRELOAD

    windows, chosen = args.windows, args.policies
    check(args.strategy, windows, chosen)
    asked = questions(
        windows, chosen, all_variants=args.all_variants, strategy=args.strategy,
        max_seconds=args.max_seconds, tree=args.tree,
    )  # fmt: skip
    cells = sharing.each(
        args, "matrix", answer, [(question,) for question in asked], Cell, preload=PRELOAD
    )
    return compute(asked, cells=cells)


def check(strategy: str, windows: Sequence[str], chosen: Sequence[str]) -> None:
    from vkemu.exploration.strategies import NAMES
    from vkemu.launch.names import policies
    from vkemu.litmus.file import shipped

    known = [path.name[:3] for path in shipped()]
    for what, asked, there in (
        ("--windows", windows, known),
        ("--policies", chosen, policies()),
        ("--strategy", [strategy], list(NAMES)),
    ):
        for name in asked:
            if name not in there:
                raise UsageError(f"{what} {name!r}, expected one of {', '.join(there)}")

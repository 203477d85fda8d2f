"""`vkemu compare`: what each reverse map costs, as work grows."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from vkemu.commands import sharing
from vkemu.commands.arguments import names, path
from vkemu.compare.axes import AXES
from vkemu.compare.claims import Judged, judged
from vkemu.compare.costs import COSTS
from vkemu.compare.measure import Series, longest_first, measure
from vkemu.compare.page import render
from vkemu.compare.text import lines
from vkemu.verdict import INTERRUPTED, Status, UsageError, telling
from vkhost.rmap import POLICIES

# Under `removed` no vkernel boots: mmap refuses MAP_VPAGETABLE.
COMPARED = tuple(policy for policy in sorted(POLICIES) if policy != "removed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--axis", type=names, default=[], help=f"only these, of {', '.join(AXES)}")
    parser.add_argument(
        "--policies", type=names, default=[], help="only these, separated by commas"
    )
    parser.add_argument("--quick", action="store_true", help="the four smallest sizes")
    sharing.add_arguments(parser, os.cpu_count() or 1)
    parser.add_argument("--html", type=path, metavar="FILE", help="plots, in one file")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    axes = chosen("--axis", args.axis, tuple(AXES))
    policies = chosen("--policies", args.policies, COMPARED)
    if args.html is not None:
        writable(args.html, "--html")
    cells = [(axis, policy) for axis in axes for policy in policies]
    asked = [(*cell, args.quick) for cell in cells]
    first = longest_first(cells)
    found: list[Series] = []
    left = ""
    try:
        found.extend(sharing.each(args, "compare", measure, asked, Series, first=first))
    except KeyboardInterrupt:
        left = f"vkemu: interrupted: {len(found)} of {len(asked)} series are measured"
    # A growth is known only where it had room to show.
    claims = [] if args.quick else list(judged(found))
    if args.html is not None:
        args.html.write_text(render(found, claims))
    with telling(INTERRUPTED if left else Status.PASS):
        if args.json:
            text = msgspec.json.format(msgspec.json.encode(document(found, claims)))
            sys.stdout.buffer.write(text + b"\n")
        elif found:
            print("\n".join(lines(found, claims)))
    if left:
        print(left, file=sys.stderr)
    return INTERRUPTED if left else Status.PASS


def writable(file: Path, option: str) -> None:
    """Say at once what would be said after minutes of work."""
    try:
        file.open("a").close()
    except OSError as error:
        raise UsageError(f"{option}: {file}: {error.strerror}, expected a file to write") from None


def chosen(option: str, names: list[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """The names asked for, in the order of `known`; all if none is."""
    for name in names:
        if name not in known:
            raise UsageError(f"{option}: {name!r}, expected one of {', '.join(known)}")
    return tuple(name for name in known if name in names) if names else known


def document(found: list[Series], claims: list[Judged]) -> dict[str, Any]:
    return {"series": found, "claims": claims, "costs": COSTS}

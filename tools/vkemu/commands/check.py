"""`vkemu check POLICY|FILE.py`: one design through every window, run and reference, on one page.

Exit status 1 when it fails where `pv_entry` passes, or in a run; 3 when a bound was reached.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial

import msgspec

from vkemu.commands import arguments, sharing
from vkemu.matrix.cell import Cell
from vkemu.matrix.design import EXACT, Design, design
from vkemu.verdict import Status, telling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "design", metavar="POLICY|FILE.py", help="a reverse map of ours, or of your own"
    )
    parser.add_argument("--windows", type=arguments.names, default=[], help="only these, W01,W07")
    parser.add_argument(
        "--seeds", type=arguments.whole(0, 10_000), default=20, help="of each scenario (20)"
    )
    sharing.add_arguments(parser, os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    preload = ("vkemu.matrix.design",)
    each = partial(sharing.each, args, f"check {args.design}", preload=preload)
    found = design(args.design, each, windows=tuple(args.windows), seeds=args.seeds)
    status = status_of(found)
    with telling(status):
        if args.json:
            sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        else:
            print("\n".join(page(found)))
    return status


def own_failures(found: Design) -> list[Cell]:
    """Where it fails and pv_entry does not."""
    exact = {cell.row: cell.verdict for cell in found.exact}
    return [c for c in found.cells if c.verdict == "fail" and exact.get(c.row) != "fail"]


def status_of(found: Design) -> Status:
    if found.policy == EXACT:
        failed = False
    else:
        failed = bool(own_failures(found))
    if failed or any(ran.failed is not None for ran in found.runs):
        return Status.VIOLATION
    bounded = any(cell.verdict == "bounded" for cell in found.cells)
    return Status.UNKNOWN if bounded or any(ran.unknown for ran in found.runs) else Status.PASS


def page(found: Design) -> list[str]:
    """What fails with its witness, what passes exhausted, what is bounded, what was not reached."""
    own = [] if found.policy == EXACT else own_failures(found)
    lines = [f"{found.policy}: {len(found.cells)} tests of windows in {found.seconds:g} s", ""]
    if own:
        lines.append(f"fails, where {EXACT} passes:")
        for cell in own:
            lines += [f"  {cell.name}  {cell.reason}", f"      witness {cell.token}"]
        if found.source != found.policy:
            lines.append(f"  to see one: vkemu replay WITNESS --policy {found.source}")
    for ran in found.runs:
        if ran.failed is not None:
            again = f"vkemu run {ran.scenario} --policy {found.source} --seed {ran.failed}"
            lines += [f"fails in {ran.scenario}, seed {ran.failed}: {ran.reason}", f"      {again}"]
    common = [c.name for c in found.cells if c.verdict == "fail" and c not in own]
    lines += _names(f"fails on {EXACT} too:" if found.policy != EXACT else "fails:", common)
    for text, verdict in (("passes, exhausted:", "pass"), ("does not apply:", "n/a")):
        lines += _names(text, [cell.name for cell in found.cells if cell.verdict == verdict])
    for cell in found.cells:
        if cell.verdict == "bounded":
            lines.append(f"bounded: {cell.name}: {cell.reason}")
    for ran in found.runs:
        more = f", {ran.unknown} with no end" if ran.unknown else ""
        lines.append(f"runs of {ran.scenario}: {ran.passed} seeds pass{more}")
    if found.unreached:
        lines.append(f"never reached, lines of its own: {', '.join(map(str, found.unreached))}")
    elif found.unreached is not None:
        lines.append("every line of its own was reached")
    return lines


def _names(text: str, names: list[str]) -> list[str]:
    """`text W01 W02 ...`, in lines of some width; nothing for none."""
    if not names:
        return []
    lines, line = [], f"{text} ({len(names)})"
    width = 96
    for name in names:
        if len(line) + len(name) + 1 > width:
            lines.append(line)
            line = " "
        line += f" {name}"
    return [*lines, line]

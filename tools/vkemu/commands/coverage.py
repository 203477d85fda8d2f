"""`vkemu coverage`: the lines and branches of the kernels that no check of the product executes.

The checks are those of `vkemu mutants --generate`: every litmus test with its variants and a few
runs of each scenario, on every policy; and a run of each other scenario that is shipped. Exit
status 1 when something is unreached without a reason
(mutation/reasons.py).
"""

from __future__ import annotations

import argparse
import os
import sys

import msgspec

from vkemu.commands import sharing
from vkemu.verdict import Status, telling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sharing.add_arguments(parser, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="as JSON")


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line that nothing executes, or a branch from it that nothing takes."""

    path: str
    line: int
    text: str  # of it
    to: int = 0  # of a branch
    reason: str = ""


def run(args: argparse.Namespace) -> int:
    from vkemu.mutation.planted import ROOT
    from vkemu.mutation.reach import Looked, look, shares, unreached
    from vkemu.mutation.reasons import at_work

    asked = shares(also=also())
    preload = ["vkemu.mutation.reach"]
    looked = sharing.each(args, "coverage", look, asked, Looked, preload=preload)
    found = []
    for path, missed in sorted(unreached(one.seen for one in looked).items()):
        source = (ROOT / path).read_text()
        work, texts = at_work(source), source.splitlines()
        places = [(line, 0) for line in missed.lines]
        gone = set(missed.lines)
        places += [(a, b) for a, b in missed.branches if a not in gone and abs(b) not in gone]
        found += [
            Line(path, a, texts[a - 1].strip(), b, why(path, a, b))
            for a, b in sorted(places)
            if a in work
        ]
    status = Status(any(not line.reason for line in found))
    with telling(status):
        if args.json:
            sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
        else:
            show(found)
    return status


def why(path: str, line: int, to: int) -> str:
    """Why nothing gets there: to the line, or from it to the other."""
    from vkemu.mutation.planted import ROOT
    from vkemu.mutation.reasons import reason

    return reason(path, line, ROOT) or (reason(path, to, ROOT) if to > 0 else "")


def also() -> list[str]:
    """Of the scenarios that mutants are not tried with, a run each."""
    from vkemu.launch.scenario import load, shipped_names
    from vkemu.mutation.trial import SCENARIOS

    others = [name for name in shipped_names() if name not in SCENARIOS]
    return [f"run {name} {load(name).policy} 1" for name in others]


def show(found: list[Line]) -> None:
    for line in found:
        branch = f" -> {line.to if line.to > 0 else 'end'}" if line.to else ""
        print(f"{line.path}:{line.line}{branch}" + (f"  ({line.reason})" if line.reason else ""))
    open_ones = sum(not line.reason for line in found)
    print(f"{len(found)} lines and branches unreached, {open_ones} without a reason")

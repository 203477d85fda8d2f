"""`vkemu compare`."""

from __future__ import annotations

import argparse

from vkemu.verdict import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rest", nargs="*")


def run(args: argparse.Namespace) -> int:
    raise UsageError("vkemu compare: not built yet")

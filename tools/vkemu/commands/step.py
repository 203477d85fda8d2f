"""`vkemu step`: a scenario or litmus test by hand, one thread at a time."""

from __future__ import annotations

import argparse
from pathlib import Path

from vkemu.verdict import Status, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a scenario or litmus test in TOML, or a window (W07)")
    parser.add_argument("--policy", help="reverse map of the host (the file's)")
    parser.add_argument("--variant", default="", help="one of the litmus test's variants")
    parser.add_argument(
        "--save", type=Path, default=Path("step.token"), metavar="FILE", help="(step.token)"
    )


def run(args: argparse.Namespace) -> int:
    try:
        from vkemu.inspect.step_app import StepApp
    except ImportError:
        raise UsageError("vkemu step: needs Textual, `pip install 'vkemu[tui]'`") from None
    from vkemu.inspect.stages import Subject

    subject = Subject(args.file, args.policy, args.variant)
    StepApp(subject.stepper(), subject.name, subject.token, args.save).run()
    return Status.PASS

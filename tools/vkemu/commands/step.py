"""`vkemu step`: a scenario or litmus test by hand, one thread at a time."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vkemu.commands.arguments import name, path, policy, token_in
from vkemu.commands.subject import check_policy
from vkemu.verdict import Status, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        help="a scenario or litmus test in TOML, a window (W07), or a token: one saved here, or a "
        "litmus test's failure; or a file with one",
    )
    parser.add_argument(
        "--policy", type=policy, help="reverse map of the host, or FILE.py with one (the file's)"
    )
    parser.add_argument("--variant", type=name, help="one of the litmus test's variants")
    parser.add_argument("--scenario", help="where a token's file is now, if it was moved")
    parser.add_argument(
        "--save", type=path, default=Path("step.token"), metavar="FILE", help="(step.token)"
    )


def run(args: argparse.Namespace) -> int:
    try:
        from vkemu.stepping.step_app import StepApp
    except ImportError:
        raise UsageError("vkemu step: needs Textual, `pip install 'vkemu[tui]'`") from None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("vkemu step: no terminal, expected one to step in")
    from vkemu.litmus import token as litmus_token
    from vkemu.record import token
    from vkemu.stepping import step_token
    from vkemu.stepping.stages import Subject

    word = token_in(args.file)
    if word.startswith((token.PREFIX, "vkx1.")):
        raise UsageError(
            "step: a token of a run or of a Python program, expected one saved here or of a litmus "
            "test (`vkemu replay` takes those)"
        )
    if word.startswith((step_token.PREFIX, litmus_token.PREFIX)):
        if args.policy is not None or args.variant is not None:
            raise UsageError("step: --policy and --variant, expected none: the token says them")
        subject, stepper = Subject.at(word, args.scenario)
    else:
        if args.scenario is not None:
            raise UsageError(f"step: --scenario {args.scenario}, expected with a token")
        check_policy(args.policy)
        subject = Subject(args.file, args.policy, args.variant or "")
        stepper = subject.stepper()
    StepApp(stepper, subject.name, subject.token, args.save).run()
    return Status.PASS

"""What the command line lays over a scenario: run, serve and fleet have the same options."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

import msgspec

from vkemu.commands.arguments import add_faults, name, policy, setting
from vkemu.verdict import UsageError
from vkhost.tree import TREES


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--policy", type=policy, help="reverse map or FILE.py with one, instead of the scenario's")
    add("--tree", choices=list(TREES), help="which of DragonFly's trees it models")
    add("--mutant", type=name, action="append", default=[], help="add a deliberate defect")
    add_faults(parser)
    add(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="lay a setting over the scenario, as host.interlock=false",
    )
    parser.set_defaults(max_steps=None)


def of(args: Namespace) -> tuple[str, ...]:
    """The options that change what a scenario is, as settings laid over the file."""
    settings = list(args.settings)
    if args.policy is not None:
        settings.append(f"policy = {quoted(args.policy)}")
    if args.tree is not None:
        settings.append(f"host.tree = {quoted(args.tree)}")
    if args.mutant:
        settings.append(f"mutants = [{', '.join(map(quoted, args.mutant))}]")
    if args.max_steps is not None:
        settings.append(f"max_steps = {args.max_steps}")
    if args.fault:
        settings.append(f"fault = [{', '.join(args.fault)}]")
    return tuple(settings)


def quoted(text: str) -> str:
    """`text` as a TOML string."""
    try:
        return msgspec.json.encode(text).decode()
    except UnicodeEncodeError:  # bytes of the command line that are no text
        raise UsageError(f"vkemu run: {text!a}, expected UTF-8 text") from None

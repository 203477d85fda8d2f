"""`vkemu completion`: the line that lets a shell complete vkemu's commands and options."""

from __future__ import annotations

import argparse

from vkemu.verdict import Status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shells = ("bash", "zsh", "fish")
    parser.add_argument("shell", choices=shells, help='as in eval "$(vkemu completion bash)"')


def run(args: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["vkemu"], shell=args.shell))
    return Status.PASS

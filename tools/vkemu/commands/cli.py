"""The `vkemu` command: finds the subcommand, turns errors into one line and an exit status.

Each subcommand is a module of `vkemu.commands` with `add_arguments(parser)` and
`run(args) -> int`; only the one that was asked for is imported, so that `--help` stays quick.
"""

from __future__ import annotations

import argparse
import codecs
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from vkemu.commands.effect import check_effect
from vkemu.verdict import INTERRUPTED, Interrupted, Status, Unread, UsageError, one_of, telling

# Name -> (module, what it does in a line).
COMMANDS = {
    "run": ("vkemu.commands.run", "run a scenario once and check every invariant"),
    "explore": ("vkemu.commands.explore", "search the interleavings of a scenario or litmus test"),
    "replay": ("vkemu.commands.replay", "run a recorded schedule again, step for step"),
    "matrix": ("vkemu.commands.matrix", "which window each reverse-map policy leaves open"),
    "compare": ("vkemu.commands.compare", "what each reverse-map policy costs as work grows"),
    "log": ("vkemu.commands.log", "show, query, draw and export the events of a run"),
    "step": ("vkemu.commands.step", "pick every next thread by hand, in a terminal"),
    "serve": ("vkemu.commands.serve", "the host as a process of its own"),
    "status": ("vkemu.commands.status", "how a host does that serves"),
    "guest": ("vkemu.commands.guest", "one guest as a process of its own"),
    "fleet": ("vkemu.commands.fleet", "host and guests of a scenario, each in its own process"),
    "soak": ("vkemu.commands.soak", "a live host under strain for a while"),
    "check": ("vkemu.commands.check", "one design through every window, run and reference"),
    "coverage": ("vkemu.commands.coverage", "kernel lines that no check reaches"),
    "completion": ("vkemu.commands.completion", "let a shell complete commands and options"),
    "mutants": ("vkemu.commands.mutants", "the deliberate defects and the check that catches each"),
}

# What is nobody's bug: the disk is full, or not ours to write to.
MACHINE_SAYS_NO = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM,
    errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR,
}  # fmt: skip

OVERVIEW = """\
usage: vkemu COMMAND [options]

DragonFly's MAP_VPAGETABLE: a host kernel, its vkernel guests, and the races between them.

commands:
{commands}

`vkemu COMMAND --help` says more. Exit status: 0 pass, 1 violation found, 2 usage or bad input,
3 unknown."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line. A namespace has the options that were typed as `given`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given: set[str] = set()

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        self.given.update(action.option_strings[:1])
        return super()._get_values(action, arg_strings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        found.given = self.given | getattr(found, "given", set())
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Of an option with choices, in the words of every other."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"{value!r}, {one_of(value, action.choices)}")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (see `{self.prog} --help`)")


def overview() -> str:
    lines = [f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()]
    return OVERVIEW.format(commands="\n".join(lines))


def complete() -> None:
    """Answer a shell that asks what could stand here, and end (argcomplete's protocol)."""
    import argcomplete

    parser = argparse.ArgumentParser(prog="vkemu")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    for name, (path, summary) in COMMANDS.items():
        importlib.import_module(path).add_arguments(commands.add_parser(name, help=summary))
    argcomplete.autocomplete(parser)


def takers(option: str) -> list[str]:
    """The commands that have it."""
    found = []
    for name, (path, _) in COMMANDS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(path).add_arguments(parser)
        if option.partition("=")[0] in parser._option_string_actions:
            found.append(f"`vkemu {name} {option}`")
    return found


def dispatch(argv: Sequence[str]) -> int:
    if "_ARGCOMPLETE" in os.environ:
        complete()
    if not argv:
        raise UsageError("vkemu: no command given (see `vkemu --help`)")
    name, *rest = argv
    if name in {"-h", "--help", "help"}:
        print(overview())
        return Status.PASS
    if name in {"-V", "--version"}:
        from importlib.metadata import version

        print(f"vkemu {version('vkemu')}")
        return Status.PASS
    if name.startswith("-") and (after := takers(name)):
        raise UsageError(f"vkemu: {name} before a command, expected {' or '.join(after[:3])}")
    if name not in COMMANDS:
        raise UsageError(f"vkemu: unknown command {name!r}, {one_of(name, COMMANDS)}")
    path, summary = COMMANDS[name]
    command = importlib.import_module(path)
    parser = Parser(prog=f"vkemu {name}", description=summary, allow_abbrev=False)
    command.add_arguments(parser)
    args = parser.parse_args(rest)
    check_effect(f"log {args.what}" if name == "log" else name, args.given)
    return int(command.run(args))


def main(argv: Sequence[str] | None = None) -> int:
    codecs.register_error("vkemu", unshowable)
    for stream, own in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)):
        if isinstance(stream, io.TextIOWrapper):
            # Another than our own may be read as text by who has put it there.
            stream.reconfigure(errors="vkemu" if stream is own else "backslashreplace")
    pipe_status = 128 + 13  # as a shell says it of what SIGPIPE has ended
    try:
        status = dispatch(sys.argv[1:] if argv is None else argv)
        with telling(status):
            if sys.stdout is not None:
                sys.stdout.flush()
        return status
    except UsageError as error:
        print(clipped(str(error)), file=sys.stderr)
        return Status.USAGE
    except KeyboardInterrupt as stop:
        known = f": {stop.known}" if isinstance(stop, Interrupted) else ""
        print(f"vkemu: interrupted{known}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError as error:
        # The reader of our output has gone (`| head`): nothing is left to say to anybody.
        discard_output()
        return error.status if isinstance(error, Unread) else pipe_status
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_SAYS_NO:
            where = "vkemu" if error.filename is None else f"vkemu: {error.filename}"
            print(clipped(f"{where}: {error.strerror}"), file=sys.stderr)
            return Status.USAGE
        if by_interrupt(error):
            print("vkemu: interrupted", file=sys.stderr)
            return INTERRUPTED
        import traceback

        traceback.print_exc()
        print("vkemu: the above is a bug in vkemu itself, not in your input", file=sys.stderr)
        return 70  # EX_SOFTWARE: none of the four statuses would be true


def by_interrupt(error: BaseException | None) -> bool:
    """Ctrl-C in the middle of an import may come as what the interpreter makes of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def unshowable(error: UnicodeError) -> tuple[bytes, int]:
    """A byte of a file name as it is, so that it can be pasted; any other character that the
    terminal cannot show as its number."""
    assert isinstance(error, UnicodeEncodeError)
    part = error.object[error.start : error.end]
    shown = (
        bytes([ord(c) - 0xDC00])
        if "\udc80" <= c <= "\udcff"
        else c.encode("ascii", "backslashreplace")
        for c in part
    )
    return b"".join(shown), error.end


def clipped(line: str) -> str:
    """A message without the rest of what nobody could read."""
    word_chars = 1000  # of a word that a message repeats
    words = (f"{word[:80]}..." if len(word) > word_chars else word for word in line.split(" "))
    return " ".join(words)


def discard_output() -> None:
    """What is still in the buffer must not fail once more when the interpreter ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        sys.stdout = None

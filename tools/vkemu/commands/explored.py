"""A failure that `explore` found, told; and its token, taken again."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vkemu.commands import screen
from vkemu.commands.subject import Subject, litmus_subject
from vkemu.exploration.result import ExplorationError, Failure
from vkemu.record import rundir
from vkemu.verdict import OF_VERDICT, UsageError, telling

if TYPE_CHECKING:
    from vkemu.report.told import Told

LITMUS: Final = "vkl1."  # how the tokens of litmus tests begin
TOKEN_SHOWN: Final = 400  # characters, in a message


def tell(subject: Subject, failure: Failure, args: argparse.Namespace) -> str:
    """What failure.txt says, and a line that says where it is kept; kept where the options say."""
    done = None
    if args.runs is not None:
        assert subject.keep is not None
        done = subject.keep(failure, args.runs)
    told = None if done is None else done.told
    if told is None or args.report is not None:
        told = subject.tell(failure)
    if args.report is not None:
        write_report(told, args.report)
    if done is not None:
        return f"{screen.of(told, done.kept)}{done.not_kept or done.folder}\n"
    return screen.of(told, subject.kept(failure))


def write_report(told: Told, folder: Path) -> None:
    """failure.txt and report.html, as a run folder has them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rundir.write_text(folder / rundir.FAILURE, told.text)
        rundir.write_text(folder / rundir.REPORT, told.page)
    except OSError as error:
        raise UsageError(f"--report {folder}: {error.strerror}, expected a folder") from None


def failure_dict(subject: Subject, failure: Failure) -> dict[str, Any]:
    return {
        "message": failure.message,
        "token": subject.token(failure),
        "replay": subject.replay(failure),
        "preemptions": failure.preemptions,
        "shrunk": failure.shrunk,
        "steps": [str(step) for step in failure.steps],
    }


def replay_token(subject: Subject, token: str, args: argparse.Namespace) -> int:
    """Tell one schedule again; the failure it shows is the expected end. Kept like any other."""
    from vkemu.exploration import replay

    whole = ("vk1.", "vks1.")  # tokens that say their program
    if token.startswith(whole):
        word = token if len(token) <= TOKEN_SHOWN else "TOKEN"
        raise UsageError(f"--replay: this token says its program, expected `vkemu replay {word}`")
    try:
        failure = replay(subject.program, token, check=args.check)
    except ExplorationError as error:
        raise UsageError(f"replay: {error}") from None
    said = ""
    if not args.json or args.runs is not None or args.report is not None:
        said = tell(subject, failure, args)
    if args.json:
        told = {"name": subject.name, "verdict": "fail", "failure": failure_dict(subject, failure)}
        said = json.dumps(told, indent=2) + "\n"
    with telling(OF_VERDICT["fail"]):
        screen.show(said)
    return OF_VERDICT["fail"]


def replay_explored(
    token: str,
    source: str | None,
    args: argparse.Namespace,
    asked: Sequence[tuple[str, str | None]] = (),
) -> int:
    """A token of a litmus test carries its test; any other needs to be told its program. `source`:
    where the test is now; `asked`: options that may say nothing else than the token."""
    from vkemu.litmus import token as litmus_token

    if not token.startswith(litmus_token.PREFIX):
        word = token if len(token) <= TOKEN_SHOWN else "TOKEN"
        raise UsageError(
            "replay: this token does not say of which program it is, expected "
            f"`vkemu explore FILE --replay {word}`"
        )
    found = litmus_token.parse(token)
    found = replace(found, source=source or found.source)
    for option, given in asked:
        said = getattr(found, option.strip("-"))
        if given and given != said:
            raise UsageError(f"{option} {given}: the token says {said or 'none'}, expected that")
    of_test = argparse.Namespace(
        file=found.source, policy=found.policy, variant=found.variant, tree=found.tree,
        check=False, livelock=False, registers=False, witnesses=False,
        json=args.json, report=args.report, runs=args.runs,
    )  # fmt: skip
    return replay_token(litmus_subject(of_test, found.litmus()), found.schedule, of_test)

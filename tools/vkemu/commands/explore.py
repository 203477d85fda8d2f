"""`vkemu explore`: search the interleavings of a litmus test, a scenario or a Python program."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import Any, Final

from vkemu.commands import screen, sharing
from vkemu.commands.arguments import (
    chosen,
    name,
    path,
    policy,
    positive,
    seconds,
    seed,
    token_in,
)
from vkemu.commands.explored import LITMUS, failure_dict, replay_explored, replay_token, tell
from vkemu.commands.subject import Subject, subject_of
from vkemu.exploration.result import ExplorationError, Result
from vkemu.verdict import OF_VERDICT, UsageError, Verdict, telling
from vkhost.tree import TREES

SECONDS_DEFAULT: Final = 60.0  # of a search that is given no budget at all

EPILOG = """\
FILE.py:FUNCTION is a function that takes k and builds a program, or an async one that is its first
thread. FILE.py::TEST is an async function of trio, AnyIO or asyncio, as it stands. STRATEGY is
dpor, source-dpor, dfs, bounded, bounded:N, random, pct, pct:N, pos, urw or
portfolio. Exit status: 0 pass, 1 fail, 2 bad input, 3 unknown, also when interrupted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "file",
        help="a litmus test or scenario in TOML, a window (W07), FILE.py:FUNCTION or FILE.py::TEST",
    )
    parser.add_argument(
        "--policy",
        type=policy,
        metavar="POLICY|FILE.py",
        help="reverse map of the host (default: the file's, pv_entry)",
    )
    parser.add_argument("--tree", choices=list(TREES), default="", help="the tree it models")
    parser.add_argument("--variant", type=name, help="one of the litmus test's [[variant]] tables")
    parser.add_argument(
        "--strategy",
        help="how to search (default: dpor; for a scenario of whole guests: portfolio)",
    )
    parser.add_argument("--max-executions", type=positive, metavar="N")
    parser.add_argument(
        "--max-seconds", type=seconds, metavar="S",
        help=f"without it, --max-executions or --checkpoint: {SECONDS_DEFAULT:g}",
    )  # fmt: skip
    parser.add_argument("--max-steps", type=positive, metavar="N", help="bound of one execution")
    parser.add_argument("--livelock", action="store_true", help="the step bound is a failure")
    sharing.add_arguments(parser)
    parser.add_argument("--seed", type=seed, default=0, metavar="N")
    parser.add_argument("--all", action="store_true", help="go on after a failure: all outcomes")
    parser.add_argument(
        "--check", action="store_true", help="data races, and fields touched without their lock"
    )
    parser.add_argument(
        "--replay", metavar="TOKEN", help="tell one failing schedule again; or a file with a token"
    )
    parser.add_argument(
        "--report", type=path, metavar="DIR", help="write failure.txt and report.html here"
    )
    parser.add_argument(
        "--runs",
        type=path,
        metavar="DIR",
        help="keep a failure as a run folder, with the log that `vkemu log` reads",
    )
    parser.add_argument(
        "--registers", action="store_true",
        help="of a litmus test: states are of every register, not of what conditions read alone",
    )  # fmt: skip
    parser.add_argument(
        "--witnesses", action="store_true",
        help="of a litmus test: with each state the command that shows an execution which ends so",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--verbs", action=Verbs, nargs=0, help="every verb and key of a litmus test"
    )
    parser.set_defaults(default_budget=False)


class Verbs(argparse.Action):
    """Print and end, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from vkemu.launch.reference import text
        from vkemu.litmus.reference import TABLES, lines
        from vkemu.oracle import ABOUT

        checks = [f"    {name:<22} {about}" for name, about in sorted(ABOUT.items())]
        print("\n".join([*lines(), "", *text(TABLES), "checks", *checks]))
        parser.exit()


def run(args: argparse.Namespace) -> int:
    if args.strategy is not None:
        check_strategy(args.strategy)
    args.variant = args.variant or ""
    args.replay = args.replay and token_in(args.replay)
    if args.replay and args.replay.startswith(LITMUS):
        return replay_explored(args.replay, args.file, args, chosen(args))
    if "::" in args.file:
        from vkemu.commands.async_subject import async_subject

        subject = async_subject(args)
        with subject.program.entered():  # type: ignore[attr-defined]
            return run_subject(subject, args)
    return run_subject(subject_of(args), args)


def run_subject(subject: Subject, args: argparse.Namespace) -> int:
    if args.strategy is None:
        args.strategy = subject.strategy
        check_divisible(args)
    for option in ("registers", "witnesses"):
        if getattr(args, option) and subject.outcomes is None:
            raise UsageError(f"--{option}: expected a litmus test")
    if args.witnesses and (args.jobs > 1 or args.on or args.checkpoint is not None or args.tree):
        raise UsageError("--witnesses: expected without --jobs, --on, --checkpoint and --tree")
    if args.runs is not None and subject.keep is None:
        raise UsageError(
            f"--runs {args.runs}: expected a scenario or a litmus test, without --check"
        )
    if args.replay is not None:
        return replay_token(subject, args.replay, args)
    if "--seed" in args.given and not draws(args.strategy):
        raise UsageError(
            f"vkemu explore: --seed {args.seed}: {args.strategy} draws nothing, expected with "
            "--strategy random, pct, pos, urw or portfolio"
        )
    if args.max_seconds is args.max_executions is args.checkpoint is None:
        args.max_seconds = SECONDS_DEFAULT
        args.default_budget = True
    result = search(subject, args)
    if result.failure is not None and isinstance(result.failure.error, UsageError):
        raise result.failure.error  # found at an end: that no guest could run, say
    return say(subject, result, args)


def check_strategy(name: str) -> None:
    from vkemu.exploration.reduction.footprint import Objects
    from vkemu.exploration.strategies import strategy_named

    try:
        strategy_named(name, 0, Objects())
    except ExplorationError as error:
        raise UsageError(f"--strategy: {error}") from None


def draws(strategy: str) -> bool:
    return strategy.partition(":")[0] not in ("dpor", "source-dpor", "dfs", "bounded")


def check_divisible(args: argparse.Namespace) -> None:
    """The strategy that nobody asked for is not exchanged for another, with another verdict."""
    if args.strategy == "dpor":
        return
    if args.checkpoint is not None:
        raise UsageError(
            f"--checkpoint: {args.strategy}, the default here, cannot be saved, expected "
            "--strategy dfs or dpor"
        )
    if args.jobs > 1 or args.on:
        shared = f"--on {args.on}" if args.on else f"--jobs {args.jobs}"
        raise UsageError(
            f"{shared}: {args.strategy}, the default here, cannot be divided, expected "
            "--strategy random, pct, pos, urw, dfs or dpor"
        )


def search(subject: Subject, args: argparse.Namespace) -> Result:
    sharing.check_own(args)
    options: dict[str, Any] = {
        "strategy": args.strategy,
        "seed": args.seed,
        "max_executions": args.max_executions,
        "max_seconds": args.max_seconds,
        "max_steps": args.max_steps or subject.max_steps,
        "stop_on_failure": not args.all,
        "on_step_bound": "fail" if args.livelock or subject.livelock else "unknown",
        "check": args.check,
        "jobs": args.jobs,
        "checkpoint": None if args.checkpoint is None else str(args.checkpoint),
    }
    with Live(subject.name) as live, ExitStack() as stack:
        try:
            if args.on:
                options["workers"] = stack.enter_context(sharing.workers_of(args))
            return subject.explore(progress=live.show, **options)
        except ExplorationError as error:
            raise UsageError(f"{args.file}: {error}") from None
        except OSError as error:
            raise UsageError(
                f"{error.filename or args.checkpoint}: {error.strerror}, expected a file to write"
            ) from None
        except KeyboardInterrupt:
            # Not in the search itself, nor while a failure is shrunk: both end by returning. Once
            # more, while it is told: that there is one is known.
            known = live.last or Result(args.strategy, args.seed)
            known.verdict = "fail" if known.failures else "unknown"
            known.interrupted = True
            known.bound = "" if known.failures else "interrupted"
            return known


def say(subject: Subject, result: Result, args: argparse.Namespace) -> int:
    verdict = subject.verdict(result)
    failure = result.failure
    told = ""
    if failure is not None and (not args.json or args.runs is not None or args.report is not None):
        try:
            told = tell(subject, failure, args)
        except KeyboardInterrupt:
            told = f"{failure.message}\n replay: {subject.replay(failure)}\nnot told: interrupted\n"
    status = int(OF_VERDICT[verdict])
    with telling(status):
        show(subject, result, verdict, told, args)
    return status


def show(
    subject: Subject, result: Result, verdict: Verdict, told: str, args: argparse.Namespace
) -> None:
    failure = result.failure
    if args.json:
        print(json.dumps(as_dict(subject, result, verdict, check=args.check), indent=2))
        return
    screen.show(f"{subject.text(result)}\n")
    counts = f"{result.executions:,} executions"
    if result.blocked:
        counts += f", {result.blocked:,} blocked"
    if result.cut:
        counts += f", {result.cut:,} cut at the step bound"
    print(
        f"{result.strategy}: {counts}, {'exhausted' if result.exhausted else 'not exhausted'}, "
        f"{result.steps:,} steps in {result.seconds:.2f} s"
    )
    if result.bound:
        default = " (the default, see --max-seconds)" if args.default_budget else ""
        timed = result.stuck or result.bound.endswith(" s")
        print(f"bound: {result.bound}{default if timed else ''}")
    for remark in result.remarks:
        print(f"remark: {remark}")
    if len(result.kinds) > 1:  # the one that is shown below, and others
        for kind in result.kinds:
            print(f"kind: {kind}")
    for message, near in subject.unmet(result):
        screen.show("\n".join((f"\nBUG: vkemu: {message}", *(f" {line}" for line in near), "")))
    if failure is None and not (args.report is args.runs is None):
        more = "; --witnesses has the executions there are" if subject.outcomes else ""
        print(f"not kept: no execution fails{more}")
    if failure is not None:
        if failure.shrunk:
            print(f"shrunk {failure.shrunk}")
        if failure.message not in result.kinds:
            print("below: an execution that fails alike with fewer switches, none of those above")
        screen.show(f"\n{told}")


def as_dict(subject: Subject, result: Result, verdict: str, *, check: bool) -> dict[str, Any]:
    """The keys docs/explore.md describes, all of them always there."""
    failure = result.failure
    unmet = [message for message, _ in subject.unmet(result)]
    told = None if failure is None else failure_dict(subject, failure)
    if unmet:  # in all executions, and so in none: nothing to replay
        told = dict.fromkeys(("token", "replay", "shrunk"), "")
        told = {"message": unmet[0], **told, "preemptions": 0, "steps": []}
    return {
        "name": subject.name,
        "policy": subject.policy,
        "verdict": verdict,
        "strategy": result.strategy,
        "seed": result.seed,
        "check": check,
        "executions": result.executions,
        "blocked": result.blocked,
        "cut": result.cut,
        "failures": result.failures,
        "exhausted": result.exhausted,
        "steps": result.steps,
        "depth": result.depth,
        "seconds": round(result.seconds, 3),
        "bound": result.bound,
        "kinds": [*result.kinds, *unmet],
        "remarks": result.remarks,
        "outcomes": None if subject.outcomes is None else subject.outcomes(),
        "failure": told,
    }


class Live:
    """How far the search is, and the last that was heard of it."""

    def __init__(self, name: str) -> None:
        self.last: Result | None = None
        self._line = sharing.Line(name)

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *exc: object) -> None:
        self._line.__exit__(*exc)

    def show(self, result: Result) -> None:
        self.last = result
        self._line.say(progress_line(result))


def progress_line(result: Result) -> str:
    if result.stage:
        return result.stage
    rate = result.executions / result.seconds if result.seconds else 0.0
    text = f"{result.executions:,} executions, {rate:,.0f}/s, depth {result.depth}"
    if result.share is not None:
        text += f", about {result.share:.1%} explored"
        if 0 < result.share < 1:
            left = result.seconds * (1 - result.share) / result.share
            text += f", {sharing.duration(left)} left"
    return f"{text}, {sharing.workers_text(result.workers)}"

"""`vkemu run`: one scenario, one seed - or one seed after the other until something is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from vkemu.commands import screen, settings, sharing
from vkemu.commands.arguments import path, positive, whole
from vkemu.commands.progress import Progress
from vkemu.executors.chance import seeded
from vkemu.launch.draw import drawn
from vkemu.launch.outcome import Outcome, recorded
from vkemu.launch.scenario import Scenario, load
from vkemu.record import rundir
from vkemu.record.log import Shown, console_on, shown_on
from vkemu.record.token import pack
from vkemu.report.trial import Origin, Record, attempt, record
from vkemu.verdict import OF_VERDICT, Interrupted, UsageError, Verdict, telling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", help="a TOML file, or the name of a shipped scenario")
    parser.add_argument(
        "--seed",
        type=whole(0, (1 << 63) - 1),
        help="where the schedule comes from (default: file's)",
    )
    seeds_max = 1_000_000
    parser.add_argument(
        "--seeds",
        type=whole(1, seeds_max),
        default=1,
        metavar="N",
        help="try N seeds from --seed on, stop at the first that does not pass",
    )
    settings.add_arguments(parser)
    parser.add_argument(
        "--max-steps", type=positive, metavar="N", help="the verdict is unknown after"
    )
    parser.add_argument(
        "--runs",
        type=path,
        default=Path("runs"),
        metavar="DIR",
        help="where run folders go (default: runs)",
    )
    parser.add_argument("--live", action="store_true", help="run on an event loop")
    parser.add_argument(
        "--backend", choices=["trio", "asyncio"], help="the event loop of --live (default: trio)"
    )
    parser.add_argument("--zstd", action="store_true", help="write events.ndjson.zst")
    parser.add_argument(
        "--events", action="store_true", help="show the events too, on standard error"
    )
    parser.add_argument(
        "--console", action="store_true", help="show what guests write on their consoles"
    )
    sharing.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print summary.json, nothing else")
    parser.add_argument("--keys", action=Keys, nargs=0, help="every key of a scenario file")


class Keys(argparse.Action):
    """Print and end, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from vkemu.launch.reference import TABLES, text

        print("\n".join(text(TABLES)))
        parser.exit()


def run(args: argparse.Namespace) -> int:
    shared = f"--jobs {args.jobs}" if args.jobs > 1 else f"--on {args.on}" if args.on else ""
    if args.seeds == 1 and (shared or args.checkpoint is not None):
        asked = shared or f"--checkpoint {args.checkpoint}"
        raise UsageError(f"vkemu run: {asked}, expected with --seeds N: one run is not shared")
    laid_over = settings.of(args)
    scenario = load(args.scenario, laid_over)
    first = scenario.seed if args.seed is None else args.seed
    if args.live:
        done = run_live(scenario, first, laid_over, args)
    else:
        done = run_controlled(scenario, first, laid_over, args)
    status = OF_VERDICT[done.outcome.verdict]
    with telling(status):
        report(done, as_json=args.json)
    return status


def run_controlled(
    scenario: Scenario, first: int, laid_over: tuple[str, ...], args: argparse.Namespace
) -> Record:
    quiet = args.json or args.events or args.console
    with Progress(scenario.name, enabled=not quiet) as progress:
        try:
            if args.seeds > 1 and (args.jobs > 1 or args.on or args.checkpoint is not None):
                seed = find_seed_elsewhere(scenario, first, args, progress)
            else:
                seed = find_seed(scenario, first, args.seeds, progress)
            progress.seed(seed)
            origin = Origin(args.scenario, laid_over, "random", seed)
            shown = (shown_on(sys.stderr),) if args.events else ()
            return record(
                drawn(scenario, seed), seeded(seed), origin, args.runs, progress.step,
                zstd=args.zstd, processors=(*shown, *console(args)),
            )  # fmt: skip
        except KeyboardInterrupt:
            raise Interrupted(progress.known(first)) from None


def run_live(
    scenario: Scenario, seed: int, laid_over: tuple[str, ...], args: argparse.Namespace
) -> Record:
    if args.seeds > 1:
        raise UsageError(f"vkemu run: --seeds {args.seeds}, expected 1 with --live")
    if scenario.timers == "any":
        raise UsageError(f"{args.scenario}:timers: 'any', expected 'last' to run --live")
    from vkemu.launch.live_run import live_schedule

    scenario = drawn(scenario, seed)
    shown = sys.stderr if args.events else None
    schedule, clean = live_schedule(scenario, args.backend or "trio", seed, shown)
    origin = Origin(args.scenario, laid_over, "live", seed, pack(schedule))
    try:
        return record(
            scenario, recorded(schedule), origin, args.runs, zstd=args.zstd,
            processors=console(args), quiet=not clean,
        )  # fmt: skip
    except KeyboardInterrupt:
        done = f"{scenario.name}, seed {seed} has run, {len(schedule)} steps, and is not logged"
        raise Interrupted(done) from None


def console(args: argparse.Namespace) -> tuple[Shown, ...]:
    """Standard output is the summary's with --json."""
    return (console_on(sys.stderr if args.json else sys.stdout),) if args.console else ()


def find_seed(scenario: Scenario, first: int, count: int, progress: Progress) -> int:
    """The first seed that does not pass, else the last; the one to be run with the log on."""
    for seed in range(first, first + count - 1):
        progress.seed(seed)
        outcome: Outcome = attempt(drawn(scenario, seed), seeded(seed), progress.step)
        if outcome.verdict != "pass":
            progress.found = outcome.verdict
            return seed
    return first + count - 1


class Seeds(Sequence[tuple[Scenario, int]]):
    """A question for each seed but the last, which is run with the log on whatever comes of it."""

    def __init__(self, scenario: Scenario, first: int, count: int) -> None:
        self.scenario = scenario
        self.seeds = range(first, first + count - 1)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, place: Any) -> Any:
        return self.scenario, self.seeds[place]


def verdict_of(scenario: Scenario, seed: int) -> Verdict:
    return attempt(drawn(scenario, seed), seeded(seed)).verdict


def find_seed_elsewhere(
    scenario: Scenario, first: int, args: argparse.Namespace, progress: Progress
) -> int:
    """As `find_seed`, by many workers. The first in order is the one, whoever is done first."""
    seeds = Seeds(scenario, first, args.seeds)
    quiet = args.json or args.events
    verdicts = sharing.each(
        args, scenario.name, verdict_of, seeds, Verdict, asked=[scenario, first, args.seeds],
        quiet=quiet, preload=["vkemu.commands.run"],
    )  # fmt: skip
    with closing(verdicts):
        for seed, verdict in zip(seeds.seeds, verdicts, strict=True):
            progress.seed(seed)
            if verdict != "pass":
                progress.found = verdict
                return seed
    return seeds.seeds.stop


def report(done: Record, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(rundir.as_json(done.summary))
        return
    summary = done.summary
    if summary["about"]:
        print(f"{summary['scenario']}: {summary['about']}\n")
    if done.told is not None:
        screen.show(f"{screen.of(done.told, done.kept)}\n")
    screen.show(
        f"{summary['verdict']}: {summary['scenario']}, policy {summary['policy']}, "
        f"seed {summary['seed']}: {summary['steps']:,} steps, {summary['faults']:,} faults, "
        f"{summary['invalidations']:,} invalidations, {summary['pages_scanned']:,} pages scanned\n"
    )
    print(done.not_kept or done.folder)

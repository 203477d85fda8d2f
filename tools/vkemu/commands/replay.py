"""`vkemu replay`: a recorded schedule again - the same failure, the same bytes in the log."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from vkemu.commands.arguments import path, policy, token_in
from vkemu.commands.progress import Progress
from vkemu.commands.run import report
from vkemu.executors.chance import seeded
from vkemu.executors.controlled import Choose
from vkemu.launch.draw import drawn
from vkemu.launch.outcome import headline, recorded
from vkemu.launch.scenario import Scenario, load
from vkemu.record import rundir, token
from vkemu.report.trial import Origin, record
from vkemu.stepping import step_token
from vkemu.verdict import OF_VERDICT, Interrupted, UsageError, Verdict, telling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="TOKEN|FILE|RUN",
        help="a token, a file with one, or a run folder: runs/latest",
    )
    parser.add_argument(
        "--scenario", help="where the scenario or litmus test is now, if it was moved"
    )
    parser.add_argument(
        "--policy", type=policy, metavar="FILE.py", help="the reverse map of one's own it is of"
    )
    parser.add_argument(
        "--runs",
        type=path,
        metavar="DIR",
        help="where run folders go, and are looked for (default: runs; of a litmus test none is "
        "made without it)",
    )
    parser.add_argument("--zstd", action="store_true", help="write events.ndjson.zst")
    parser.add_argument("--json", action="store_true", help="print summary.json, nothing else")


def run(args: argparse.Namespace) -> int:
    what = token_in(args.what)
    explored = ("vkl1.", "vkx1.")  # tokens of `vkemu explore`
    if what.startswith((*explored, step_token.PREFIX)) and args.zstd:
        raise UsageError("replay: --zstd, expected with a token of a run: no other keeps a log")
    if what.startswith(explored):
        from vkemu.commands.explored import replay_explored

        args.report = None
        return replay_explored(what, args.scenario, args)
    if what.startswith(step_token.PREFIX):
        if args.json:
            raise UsageError("replay: --json, expected with another token than one of `step`")
        return show_steps(what, args.scenario, args.runs)
    args.runs = args.runs or Path("runs")
    word, folder = what_to_replay(what)
    found = token.parse(word)
    if found.model_digest != token.model_digest():
        raise UsageError(
            "replay: the kernels have changed since this token was made, expected the same "
            "sources (a schedule means nothing to another program); run the seed "
            f"{found.seed} again with `vkemu run`"
        )
    scenario = find_scenario(found, args.scenario, folder, args.runs)
    origin = Origin(found.scenario, found.settings, found.strategy, found.seed, found.choices)
    with Progress(scenario.name, enabled=not args.json) as progress:
        progress.seed(found.seed)
        try:
            done = record(
                scenario, schedule(found), origin, args.runs, progress.step, zstd=args.zstd
            )
        except KeyboardInterrupt:
            raise Interrupted(progress.known(found.seed)) from None
    crc = token.schedule_crc(done.outcome.choices)
    if (done.outcome.steps, crc) != (found.steps, found.schedule_crc):
        raise UsageError(
            f"replay: diverged, {done.outcome.steps} steps with checksum {crc:08x}, expected "
            f"{found.steps} with {found.schedule_crc:08x}; see {done.folder}"
        )
    status = OF_VERDICT[done.outcome.verdict]
    with telling(status):
        report(done, as_json=args.json)
    return status


def show_steps(word: str, source: str | None, runs: Path | None) -> int:
    """What was stepped through by hand, and how it stands; kept, if it is said where."""
    from vkemu.record.narrate import narrate
    from vkemu.report.kept import keep
    from vkemu.stepping.stages import Subject

    subject, stepper = Subject.at(word, source)
    verdict: Verdict = "unknown"
    how = "it goes on"
    if stepper.over:
        verdict = "pass" if stepper.error is None else "fail"
        how = "over" if stepper.error is None else str(stepper.error).splitlines()[0]
    kept = ""
    if runs is not None:
        failure = None if stepper.error is None else headline(stepper.error)
        summary = subject.summary(word) | {"verdict": verdict, "failure": failure}
        kept = str(keep(stepper.recording, runs, subject.loaded.name, summary, None)[0])
    with telling(OF_VERDICT[verdict]):
        for step in stepper.steps:
            for text in [narrate(event) for event in step.events] or [step.effect]:
                if step.number:  # the set-up is not shown
                    print(f"{step.number:>6}  {step.actor}: {text}")
            for actor, text in step.said:
                print(f"{step.number:>6}  {actor} has done `{text}`")
        print(f"{verdict}: {subject.name}, {len(stepper.choices)} steps: {how}")
        if kept:
            print(kept)
    return OF_VERDICT[verdict]


def what_to_replay(what: str) -> tuple[str, Path | None]:
    """A token as it is, or the one of a run folder."""
    if what.startswith(token.PREFIX):
        return what, None
    folder = Path(what)
    try:
        summary = msgspec.json.decode(
            (folder / rundir.SUMMARY).read_bytes(), type=dict[str, object]
        )
        return str(summary["token"]), folder
    except OSError as error:
        raise UsageError(
            f"{what}: {error.strerror}, expected a token ({token.PREFIX}...), a file with one, or "
            "the folder of a run or a report"
        ) from None
    except (msgspec.MsgspecError, KeyError):
        raise UsageError(f"{folder / rundir.SUMMARY}: no token, expected a run's summary") from None


def schedule(found: token.Token) -> Choose:
    if found.choices:
        return recorded(token.unpack(found.choices))
    if found.strategy == "random":
        return seeded(found.seed)
    raise UsageError(f"replay: strategy {found.strategy!r} without choices, expected random")


def find_scenario(
    found: token.Token, source: str | None, folder: Path | None, runs: Path
) -> Scenario:
    """The scenario the token was made of, where it was or as a run folder kept it."""
    digest = found.scenario_digest
    problem = None
    try:
        scenario = drawn(load(source or found.scenario, found.settings), found.seed)
        if scenario.identity.startswith(digest):
            return scenario
        problem = f"{source or found.scenario}: has changed since this token was made"
    except UsageError as error:
        if source is not None:
            raise
        problem = str(error)
    kept = [folder] if folder is not None else sorted(runs.glob("*-*"))
    for place in kept:
        copy = read_copy(place / rundir.SCENARIO)
        if copy is not None and copy.identity.startswith(digest):
            return copy
    raise UsageError(
        f"replay: {problem}; no run in {runs} kept it, expected the scenario {digest.hex()}"
    )


def read_copy(path: Path) -> Scenario | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Scenario)
    except (OSError, msgspec.MsgspecError):
        return None

"""`vkemu explore`: search the interleavings of a litmus test, a scenario or a Python program."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vkemu.exploration.result import ExplorationError, Failure, Result
from vkemu.verdict import OF_VERDICT, UsageError

if TYPE_CHECKING:
    from vkemu.report.failure import Failure as Told

STRATEGIES = (
    "dpor", "source-dpor", "dfs", "bounded", "random", "pct", "pos", "urw", "portfolio",
)  # fmt: skip


@dataclass(slots=True)
class Subject:
    """What is explored. `text` renders its result, `token` makes a failure's token pasteable."""

    name: str
    program: Callable[[Any], object]
    each: Callable[[Any], None] | None
    text: Callable[[Result], str]
    verdict: Callable[[Result], str]
    token: Callable[[str], str]
    replay: Callable[[str], str]  # the command line
    max_steps: int
    # The failure with its window measured, for what sends events; else its steps are narrated.
    tell: Callable[[Failure, str], Told] | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", help="a litmus test or scenario in TOML, a window (W07), or FILE.py:FUNCTION"
    )
    parser.add_argument("--policy", help="reverse map of the host (default: the file's, pv_entry)")
    parser.add_argument("--variant", default="", help="one of the litmus test's [[variant]] tables")
    parser.add_argument("--strategy", default="dpor", choices=STRATEGIES)
    parser.add_argument("--max-executions", type=positive, metavar="N")
    parser.add_argument("--max-seconds", type=seconds, metavar="S")
    parser.add_argument("--max-steps", type=positive, metavar="N", help="bound of one execution")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="go on after a failure: all outcomes")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="save and resume here")
    parser.add_argument("--replay", metavar="TOKEN", help="take one schedule again, narrated")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write failure.txt and report.html here"
    )
    parser.add_argument("--json", action="store_true")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}, expected at least 1")
    return value


def seconds(text: str) -> float:
    value = float(text)
    if not value > 0:  # nan neither
        raise argparse.ArgumentTypeError(f"{text}, expected more than 0")
    return value


def run(args: argparse.Namespace) -> int:
    subject = subject_of(args)
    if args.replay is not None:
        return replay_token(subject.program, args.replay)
    options: dict[str, Any] = {
        "max_executions": args.max_executions,
        "max_seconds": args.max_seconds,
        "max_steps": args.max_steps or subject.max_steps,
        "seed": args.seed,
        "stop_on_failure": not args.all,
    }
    if args.jobs > 1:
        options["jobs"] = args.jobs
    elif subject.each is not None:
        options["each"] = subject.each
    if args.checkpoint is not None:
        options["checkpoint"] = args.checkpoint
    from vkemu import explore

    with Live(subject.name, enabled=not args.json) as live:
        try:
            result = explore(subject.program, strategy=args.strategy, progress=live.show, **options)
        except ExplorationError as error:
            raise UsageError(f"{args.file}: {error}") from None
    if result.failure is not None and args.report is not None:
        write_report(subject, result.failure, args.report)
    return say(subject, result, as_json=args.json)


def subject_of(args: argparse.Namespace) -> Subject:
    path, colon, function = args.file.rpartition(":")
    if colon and path.endswith(".py"):
        return python_subject(Path(path), function)
    from vkemu.litmus.file import Litmus, find_litmus, load_litmus
    from vkemu.scenario import exists, load, shipped_names

    source = args.file
    if not exists(source) and source not in shipped_names():
        source = str(find_litmus(source))
    loaded = load(source)
    if isinstance(loaded, Litmus):
        return litmus_subject(args, load_litmus(source, args.variant))
    if args.variant:
        raise UsageError(f"--variant {args.variant!r}, expected none: {source} is a scenario")
    return scenario_subject(args, loaded)


def litmus_subject(args: argparse.Namespace, litmus: Any) -> Subject:
    from vkemu.litmus.decide import Decision, Test
    from vkemu.litmus.token import LitmusToken, identity
    from vkemu.names import policies
    from vkemu.report.explored import tell_litmus

    policy = args.policy or "pv_entry"
    if policy not in policies():
        raise UsageError(f"--policy {policy!r}, expected one of {', '.join(policies())}")
    test = Test(litmus, policy)

    def token(schedule: str) -> str:
        return str(LitmusToken(args.file, policy, litmus.variant, identity(litmus), schedule))

    return Subject(
        name=f"{litmus.name}[{policy}]",
        program=test,
        each=test.note,
        text=lambda result: Decision(test, result).text,
        verdict=lambda result: Decision(test, result).verdict,
        token=token,
        replay=lambda schedule: f"vkemu replay {token(schedule)}",
        max_steps=litmus.file.litmus.max_steps,
        tell=lambda failure, replay: tell_litmus(litmus, policy, failure.schedule, replay=replay),
    )


def scenario_subject(args: argparse.Namespace, scenario: Any) -> Subject:
    from vkemu.assemble import scenario_program

    if args.policy is not None:
        import msgspec

        from vkemu.names import policies

        if args.policy not in policies():
            expected = ", ".join(policies())
            raise UsageError(f"--policy {args.policy!r}, expected one of {expected}")
        scenario = msgspec.structs.replace(scenario, policy=args.policy)
    return plain_subject(scenario.name, args.file, scenario_program(scenario), scenario.max_steps)


def python_subject(path: Path, function: str) -> Subject:
    import importlib.util

    if not path.is_file():
        raise UsageError(f"{path}: no such file, expected Python with a function {function}(k)")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{path}: {type(error).__name__}: {error}, expected a module") from None
    program = getattr(module, function, None)
    if not callable(program):
        raise UsageError(f"{path}: no function {function!r}, expected one that takes k")
    return plain_subject(f"{path.stem}:{function}", f"{path}:{function}", program, 10_000)


def plain_subject(
    name: str, source: str, program: Callable[[Any], object], max_steps: int
) -> Subject:
    return Subject(
        name=name,
        program=program,
        each=None,
        text=lambda result: f"{result.verdict}: {name}",
        verdict=lambda result: result.verdict,
        token=lambda schedule: schedule,
        replay=lambda schedule: f"vkemu explore {source} --replay {schedule}",
        max_steps=max_steps,
    )


def say(subject: Subject, result: Result, *, as_json: bool) -> int:
    verdict = subject.verdict(result)
    failure = result.failure
    if as_json:
        print(json.dumps(as_dict(subject, result, verdict), indent=2))
        return OF_VERDICT[verdict]  # type: ignore[index]
    print(subject.text(result))
    counts = f"{result.executions:,} executions"
    if result.blocked:
        counts += f", {result.blocked:,} blocked"
    if result.cut:
        counts += f", {result.cut:,} cut at the step bound"
    print(
        f"{result.strategy}: {counts}, {'exhausted' if result.exhausted else 'not exhausted'}, "
        f"{result.steps:,} steps in {result.seconds:.2f} s"
    )
    if failure is not None:
        replay = subject.replay(failure.token)
        if subject.tell is None:
            print(f"\n{failure}\nreplay: {replay}")
        else:
            from vkemu.report import text

            print(f"\n{text.render(subject.tell(failure, replay))}", end="")
    return OF_VERDICT[verdict]  # type: ignore[index]


def write_report(subject: Subject, failure: Failure, folder: Path) -> None:
    """failure.txt and report.html, as a run folder has them."""
    if subject.tell is None:
        raise UsageError(f"--report: {subject.name} sends no events, expected a litmus test")
    from vkemu.report import html, text

    told = subject.tell(failure, subject.replay(failure.token))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failure.txt").write_text(text.render(told))
    (folder / "report.html").write_text(html.render(told))


def as_dict(subject: Subject, result: Result, verdict: str) -> dict[str, Any]:
    failure = result.failure
    return {
        "name": subject.name,
        "verdict": verdict,
        "strategy": result.strategy,
        "seed": result.seed,
        "executions": result.executions,
        "blocked": result.blocked,
        "exhausted": result.exhausted,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "failure": None if failure is None else failure_dict(subject, failure),
    }


def failure_dict(subject: Subject, failure: Failure) -> dict[str, Any]:
    return {
        "message": failure.message,
        "token": subject.token(failure.token),
        "preemptions": failure.preemptions,
        "steps": [str(step) for step in failure.steps],
    }


def replay_token(program: Callable[[Any], object], token: str) -> int:
    """Narrate one schedule; the failure it shows is the expected end."""
    from vkemu import replay

    try:
        failure = replay(program, token)
    except ExplorationError as error:
        raise UsageError(f"replay: {error}") from None
    print(failure)
    return int(OF_VERDICT["fail"])


def replay_explored(token: str) -> int:
    """A token of a litmus test carries its test; any other needs to be told its program."""
    from vkemu.litmus import token as litmus_token
    from vkemu.litmus.decide import Test

    if not token.startswith(litmus_token.PREFIX):
        raise UsageError(
            "replay: this token says no program, expected `vkemu explore FILE --replay TOKEN`"
        )
    found = litmus_token.parse(token)
    return replay_token(Test(found.litmus(), found.policy), found.schedule)


class Live:
    """How far the search is, on a terminal, once it has taken two seconds."""

    def __init__(self, name: str, *, enabled: bool) -> None:
        self._name = name
        self._enabled = enabled and sys.stderr.isatty()
        self._status: Any = None

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, result: Result) -> None:
        if not self._enabled or result.seconds < 2:
            return
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True).status("")
            self._status.start()
        text = (
            f"{self._name}: {result.executions:,} executions, "
            f"{result.executions / result.seconds:,.0f}/s, depth {result.depth}"
        )
        if result.share is not None:
            text += f", about {result.share:.1%} explored"
        self._status.update(text)

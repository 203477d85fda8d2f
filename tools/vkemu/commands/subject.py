"""What `vkemu explore` explores: a litmus test, a scenario, or a function of a Python file."""

from __future__ import annotations

import shlex
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from inspect import iscoroutinefunction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from vkemu.testing.explored import ROOT, is_explored
from vkemu.verdict import UsageError, Verdict

if TYPE_CHECKING:
    from vkemu.exploration.result import Failure, Result
    from vkemu.litmus.file import Litmus
    from vkemu.report.failure import Failure as Told
    from vkemu.scenario import Scenario

MAX_STEPS: Final = 10_000  # of a Python program, which cannot say so itself
BOOT_STEPS: Final = 20_000  # a guest that cannot boot has said so by then


@dataclass(slots=True)
class Subject:
    """`text` renders a result, `token` makes a failure's schedule pasteable, `replay` is the
    command that takes it again."""

    name: str
    program: Callable[[Any], object]
    explore: Callable[..., Result]
    text: Callable[[Result], str]
    verdict: Callable[[Result], Verdict]
    token: Callable[[str], str]
    replay: Callable[[str], str]
    max_steps: int
    policy: str | None = None
    strategy: str = "dpor"  # when none is asked for
    livelock: bool = False  # to reach the step bound is a failure, not an open question
    # The final states reached, for JSON.
    outcomes: Callable[[], dict[str, Any]] | None = None
    # The failure with its window measured, for what sends events; else its steps are narrated.
    tell: Callable[[Failure, str], Told] | None = None


def subject_of(args: Namespace) -> Subject:
    """The subject the command line names; UsageError when there is none such."""
    path, colon, function = args.file.rpartition(":")
    if (path if colon else args.file).endswith(".py"):
        if not colon or not function:
            file = args.file.rstrip(":")
            raise UsageError(f"{file}: which function of it? expected {file}:FUNCTION")
        for option, given in (("--policy", args.policy), ("--variant", args.variant)):
            if given:
                raise UsageError(f"{option} {given!r}, expected none: {path} is Python")
        return plain_subject(
            f"{Path(path).stem}:{function}", args, PythonProgram(path, function), MAX_STEPS
        )
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


def check_policy(policy: str | None) -> None:
    from vkemu.names import policies

    if policy is not None and policy not in policies():
        raise UsageError(f"--policy {policy!r}, expected one of {', '.join(policies())}")


def litmus_subject(args: Namespace, litmus: Litmus) -> Subject:
    from vkemu.litmus.decide import Decision, Test, counted
    from vkemu.litmus.file import load_litmus
    from vkemu.litmus.token import LitmusToken, identity

    check_policy(args.policy)
    policy = args.policy or "pv_entry"
    test = Test(litmus, policy)

    def token(schedule: str) -> str:
        return str(LitmusToken(args.file, policy, litmus.variant, identity(litmus), schedule))

    def tell(failure: Failure, replay: str) -> Told:
        from vkemu.report.explored import tell_litmus

        others = {}
        if litmus.variant:
            others[f"not {litmus.variant}"] = (load_litmus(args.file), policy)
        if policy != "pv_entry":
            others["policy pv_entry"] = (litmus, "pv_entry")
        return tell_litmus(litmus, policy, failure.schedule, replay=replay, others=others)

    subject = Subject(
        name=f"{litmus.name}[{policy}]",
        program=test,
        explore=partial(counted, test),
        text=lambda result: Decision(test, result).text,
        verdict=lambda result: Decision(test, result).verdict,
        token=token,
        replay=lambda schedule: f"vkemu replay {token(schedule)}",
        max_steps=litmus.file.litmus.max_steps,
        livelock=litmus.file.litmus.on_step_bound == "fail",
        policy=policy,
        outcomes=lambda: outcomes_of(test.outcomes),
        # A schedule that never ends has no step at which it fails: its steps are narrated.
        tell=None if litmus.file.litmus.on_step_bound == "fail" else tell,
    )
    if args.check:
        # A race is none without the check: the schedule alone would not fail.
        subject.tell = None
        subject.token = str
        subject.replay = lambda schedule: again(args, schedule)
    return subject


def outcomes_of(outcomes: Any) -> dict[str, Any]:
    """As the table of `litmus.herd` has them."""
    from vkemu.litmus.herd import lookup_in

    states = [
        {
            "state": lookup_in(state),
            "executions": count,
            "positive": any(c.holds(lookup_in(state).__getitem__) for c in outcomes.conditions),
        }
        for state, count in sorted(outcomes.states.items())
    ]
    return {
        "kind": outcomes.kind.lower(),
        "observation": outcomes.observation().lower(),
        "states": states,
        "broken": dict(outcomes.broken),
    }


def scenario_subject(args: Namespace, scenario: Scenario) -> Subject:
    check_policy(args.policy)
    if args.policy is not None:
        import msgspec

        scenario = msgspec.structs.replace(scenario, policy=args.policy)
    check_boots(scenario)
    program = ScenarioProgram(scenario)
    subject = plain_subject(scenario.name, args, program, scenario.max_steps)
    subject.policy = scenario.policy
    # One trace of so long a program is next to another: by itself dpor would not leave the end.
    subject.strategy = "portfolio"
    return subject


def check_boots(scenario: Scenario) -> None:
    """Some guest must come up: a search has no use for the others."""
    import msgspec

    from vkemu.chance import seeded
    from vkemu.outcome import NothingRan
    from vkemu.trial import attempt

    shorter = msgspec.structs.replace(scenario, max_steps=min(scenario.max_steps, BOOT_STEPS))
    error = attempt(shorter, seeded(scenario.seed)).error
    if isinstance(error, NothingRan):
        raise UsageError(f"{scenario.name}: policy {scenario.policy}: {error}, expected a guest")


def plain_subject(
    name: str, args: Namespace, program: Callable[[Any], object], max_steps: int
) -> Subject:
    from vkemu import explore

    return Subject(
        name=name,
        program=program,
        explore=partial(explore, program),
        text=lambda result: f"{result.verdict}: {name}",
        verdict=lambda result: result.verdict,
        token=str,
        replay=lambda schedule: again(args, schedule),
        max_steps=max_steps,
    )


def again(args: Namespace, schedule: str) -> str:
    """The command that takes a schedule again, with what the program depends on."""
    words = ["vkemu", "explore", args.file]
    for option, given in (("--policy", args.policy), ("--variant", args.variant)):
        words += [option, given] if given else []
    words += ["--check"] if args.check else []
    return shlex.join([*words, "--replay", schedule])


@dataclass(frozen=True)
class ScenarioProgram:
    """A scenario as a program; other processes can be sent it."""

    scenario: Scenario

    def __call__(self, k: Any) -> None:
        from vkemu.assemble import scenario_program

        scenario_program(self.scenario)(k)


class PythonProgram:
    """A function of a Python file: it builds a program, or is its first thread when async.

    What goes wrong while it builds is the user's, and told in a line.
    """

    def __init__(self, path: str, function: str) -> None:
        self.path = path
        self.function = function
        module = load_module(Path(path), function)
        found = getattr(module, function, None)
        if is_explored(found):
            found = found.__wrapped__  # type: ignore[union-attr]
        if found is None or not callable(found):
            raise UsageError(f"{path}: no function {function!r}, expected one that takes k")
        self.build: Callable[..., Any] = found

    def __reduce__(self) -> tuple[Any, ...]:
        return PythonProgram, (self.path, self.function)

    def __call__(self, k: Any) -> None:
        try:
            if iscoroutinefunction(self.build):
                k.joinable = True
                k.spawn(ROOT, self.build(k))
            else:
                self.build(k)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"{place_of(error, self.path)}: {described(error)}") from None
        if not k.execution.threads:
            raise UsageError(
                f"{self.path}: {self.function} spawns no thread, expected k.spawn(name, body)"
            )


def load_module(path: Path, function: str) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{path}: no such file, expected Python with a function {function}(k)")
    name = f"vkemu_program_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)  # where dataclasses and pickle look
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python FILE.py` would
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{place_of(error, str(path))}: {described(error)}, expected a module to import"
        ) from None
    return module


def described(error: BaseException) -> str:
    text = getattr(error, "msg", None) if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_of(error: BaseException, path: str) -> str:
    """`path`, with the innermost of its lines that the error came through."""
    if isinstance(error, SyntaxError) and error.lineno is not None and not error.__cause__:
        return f"{path}:{error.lineno}"
    lines = [
        entry.lineno
        for entry in traceback.extract_tb(error.__traceback__)
        if Path(entry.filename).name == Path(path).name
    ]
    return f"{path}:{lines[-1]}" if lines else path

"""What `vkemu explore` explores: a litmus test, a scenario, or a function of a Python file."""

from __future__ import annotations

import shlex
from argparse import Namespace
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from vkemu.commands.arguments import chosen
from vkemu.commands.python_program import PythonProgram
from vkemu.verdict import UsageError, Verdict

if TYPE_CHECKING:
    from vkemu.exploration.result import Failure, Result
    from vkemu.launch.outcome import Outcome
    from vkemu.launch.scenario import Scenario
    from vkemu.litmus.file import Litmus
    from vkemu.report.failure import Failure as Report
    from vkemu.report.told import Told
    from vkemu.report.trial import Origin, Record


@dataclass(slots=True)
class Subject:
    """`text` renders a result, `token` makes a failure's schedule pasteable, `replay` is the
    command that takes it again, `tell` is failure.txt and report.html."""

    name: str
    program: Callable[[Any], object]
    explore: Callable[..., Result]
    text: Callable[[Result], str]
    verdict: Callable[[Result], Verdict]
    token: Callable[[Failure], str]
    replay: Callable[[Failure], str]
    tell: Callable[[Failure], Told]
    max_steps: int
    policy: str | None = None
    strategy: str = "dpor"  # when none is asked for
    livelock: bool = False  # to reach the step bound is a failure, not an open question
    # The final states reached, for JSON.
    outcomes: Callable[[], dict[str, Any]] | None = None
    # Each required outcome that was never reached, and what came near.
    unmet: Callable[[Result], list[tuple[str, list[str]]]] = lambda _: []
    # A run folder below this one for a failure, with its log.
    keep: Callable[[Failure, Path], Record] | None = None
    # A file with the failure's token, when that is too long to be pasted; else nothing.
    kept: Callable[[Failure], str] = lambda _: ""


def subject_of(args: Namespace) -> Subject:
    """The subject the command line names; UsageError when there is none such."""
    path, colon, function = args.file.rpartition(":")
    max_steps = 10_000  # of a Python program, which cannot say so itself
    if (path if colon else args.file).endswith(".py"):
        if not colon or not function:
            file = args.file.rstrip(":")
            raise UsageError(f"{file}: which function of it? expected {file}:FUNCTION")
        for option, given in chosen(args):
            if given:
                raise UsageError(f"{option} {given!r}, expected none: {path} is Python")
        return plain_subject(
            f"{Path(path).stem}:{function}", args, PythonProgram(path, function), max_steps
        )
    from vkemu.launch.scenario import exists, shipped_names
    from vkemu.litmus.file import Litmus, find_litmus, load, load_litmus

    source = args.file
    if not exists(source) and source not in shipped_names():
        source = str(find_litmus(source))
    loaded = load(source)
    if isinstance(loaded, Litmus):
        return litmus_subject(args, load_litmus(source, args.variant, args.tree))
    if args.variant:
        raise UsageError(f"--variant {args.variant!r}, expected none: {source} is a scenario")
    return scenario_subject(args, loaded)


def check_policy(policy: str | None) -> None:
    from vkemu.launch.names import policies

    if policy is not None and policy not in policies():
        raise UsageError(f"--policy {policy!r}, expected one of {', '.join(policies())}")


def litmus_subject(args: Namespace, litmus: Litmus) -> Subject:
    from vkemu.litmus.decide import Decision, Test, counted
    from vkemu.litmus.token import LitmusToken, identity
    from vkemu.matrix.cell import boots_vkernels

    check_policy(args.policy)
    policy = args.policy or "pv_entry"
    if not boots_vkernels(policy):
        raise UsageError(
            f"--policy {policy}: mmap refuses MAP_VPAGETABLE, expected a policy with vkernels to "
            "race with"
        )
    litmus = msgspec.structs.replace(litmus, whole=args.registers)
    test = Test(litmus, policy)
    witness = partial(witness_of, args.file, litmus, policy)
    if args.witnesses:
        test.outcomes.witnesses = {}

    def token(failure: Failure) -> str:
        head = (args.file, policy, litmus.variant, identity(litmus))
        return str(LitmusToken(*head, failure.token, litmus.tree))

    def replay(failure: Failure) -> str:
        return f"vkemu replay {token(failure)}"

    def tell(failure: Failure) -> Told:
        from vkemu.report.explored import tell_litmus

        found, others = failure.schedule, alternatives(args.file, litmus, policy)
        return told_by(tell_litmus(litmus, policy, found, replay=replay(failure), others=others))

    def keep(failure: Failure, runs: Path) -> Record:
        from vkemu.report.explored import keep_litmus

        word, found = token(failure), failure.schedule
        told = subject.tell(failure)
        return keep_litmus(litmus, policy, found, runs, word, told, livelock=livelock)

    livelock = args.livelock or litmus.file.litmus.on_step_bound == "fail"
    subject = Subject(
        name=f"{litmus.name}[{policy}]",
        program=test,
        explore=partial(counted, test),
        text=lambda result: Decision(test, result).herd(witness),
        verdict=lambda result: Decision(test, result).verdict,
        token=token,
        replay=replay,
        tell=tell,
        max_steps=litmus.file.litmus.max_steps,
        livelock=livelock,
        policy=policy,
        outcomes=lambda: outcomes_of(test.outcomes, witness),
        unmet=lambda result: Decision(test, result).told,
        keep=keep,
    )
    if livelock:
        # A schedule that never ends has no step at which it fails.
        subject.tell = partial(narrated, subject)
    if args.check:
        # A race is none without the check: the schedule alone would not fail.
        subject.token = attrgetter("token")
        subject.replay = partial(again, args)
        subject.tell = partial(narrated, subject)
        subject.keep = None
    return subject


def alternatives(source: str, litmus: Litmus, policy: str) -> dict[str, tuple[Litmus, str]]:
    """By name, what may close the window: the test without its variant, the exact policy."""
    from vkemu.litmus.file import load_litmus

    others = {}
    if litmus.variant:
        others[f"not {litmus.variant}"] = (load_litmus(source, tree=litmus.tree), policy)
    if policy != "pv_entry":
        others["policy pv_entry"] = (litmus, "pv_entry")
    return others


def witness_of(source: str, litmus: Litmus, policy: str, schedule: Sequence[int]) -> str:
    """The command that shows an execution, whether or not it fails."""
    from vkemu.litmus.token import identity
    from vkemu.record.token import model_digest, pack
    from vkemu.stepping.step_token import StepToken

    choices = pack(array("H", schedule))
    head = (source, policy, litmus.variant, identity(litmus), model_digest())
    return f"vkemu replay {StepToken(*head, choices)}"


def told_by(failure: Report) -> Told:
    from vkemu.report import text
    from vkemu.report.told import Told

    return Told(text.render(failure), failure)


def narrated(subject: Subject, failure: Failure) -> Told:
    """Told by its steps alone, whatever events there are."""
    from vkemu.report.program import tell_program

    return told_by(
        tell_program(
            failure,
            subject.program,
            name=subject.name,
            max_steps=subject.max_steps,
            replay=subject.replay(failure),
            measured=subject.policy is None,
        )
    )


def outcomes_of(outcomes: Any, replay: Callable[[Sequence[int]], str]) -> dict[str, Any]:
    """As the table of `litmus.herd` has them."""
    from vkemu.litmus.herd import lookup_in

    kept = outcomes.witnesses or {}
    states = [
        {
            "state": lookup_in(state),
            "executions": count,
            "positive": any(c.holds(lookup_in(state).__getitem__) for c in outcomes.conditions),
            **({"replay": replay(kept[state])} if state in kept else {}),
        }
        for state, count in sorted(outcomes.states.items())
    ]
    return {
        "kind": outcomes.kind.lower(),
        "observation": outcomes.observation().lower(),
        "states": states,
        "broken": dict(outcomes.broken),
        "never": {c.text: outcomes.nearest(c) for c in outcomes.missing()},
    }


def scenario_subject(args: Namespace, scenario: Scenario) -> Subject:
    check_policy(args.policy)
    settings: tuple[str, ...] = ()
    if args.policy:
        scenario = msgspec.structs.replace(scenario, policy=args.policy)
        settings = (f'policy = "{args.policy}"',)
    if args.tree:
        host = msgspec.structs.replace(scenario.host, tree=args.tree)
        scenario = msgspec.structs.replace(scenario, host=host)
        settings = (*settings, f'host.tree = "{args.tree}"')
    check_boots(scenario)
    program = ScenarioProgram(scenario)
    subject = plain_subject(scenario.name, args, program, scenario.max_steps)
    subject.policy = scenario.policy
    if not args.check and not args.livelock:
        searched = Searched(scenario, args.file, settings)
        subject.token = searched.token
        subject.replay = searched.replay
        subject.tell = searched.tell
        subject.keep = searched.keep
        subject.kept = searched.kept
    # One trace of so long a program is next to another: by itself dpor would not leave the end.
    subject.strategy = "portfolio"
    return subject


def check_boots(scenario: Scenario) -> None:
    """Some guest must come up: a search has no use for the others."""
    from vkemu.executors.chance import seeded
    from vkemu.launch.outcome import NothingRan
    from vkemu.report.trial import attempt

    boot_steps = 20_000  # a guest that cannot boot has said so by then
    shorter = msgspec.structs.replace(scenario, max_steps=min(scenario.max_steps, boot_steps))
    error = attempt(shorter, seeded(scenario.seed)).error
    if isinstance(error, NothingRan):
        raise UsageError(f"{scenario.name}: policy {scenario.policy}: {error}, expected a guest")


def plain_subject(
    name: str, args: Namespace, program: Callable[[Any], object], max_steps: int
) -> Subject:
    from vkemu.exploration import explore

    subject = Subject(
        name=name,
        program=program,
        explore=partial(explore, program),
        text=lambda result: f"{result.verdict}: {name}",
        verdict=lambda result: result.verdict,
        token=attrgetter("token"),
        replay=partial(again, args),
        tell=lambda failure: narrated(subject, failure),
        max_steps=max_steps,
    )
    return subject


def again(args: Namespace, failure: Failure) -> str:
    """The command that takes a schedule again, with what the program depends on."""
    words = ["vkemu", "explore", args.file]
    for option, given in chosen(args):
        words += [option, given] if given else []
    words += ["--check"] if args.check else []
    return shlex.join([*words, "--replay", failure.token])


class Searched:
    """The failing schedule of a scenario as a run like any other."""

    def __init__(self, scenario: Scenario, source: str, settings: tuple[str, ...]) -> None:
        from vkemu.launch.draw import drawn

        self.scenario = drawn(scenario, scenario.seed)
        self.source = source
        self.settings = settings
        self._run: tuple[Failure, Origin, Outcome] | None = None  # of the failure last asked about

    def run(self, failure: Failure) -> tuple[Scenario, Origin, Outcome]:
        from vkemu.launch.outcome import recorded
        from vkemu.record.token import pack
        from vkemu.report.trial import Origin, attempt

        if self._run is None or self._run[0] is not failure:
            choices = array("H", failure.schedule)
            seed = self.scenario.seed
            origin = Origin(self.source, self.settings, "explore", seed, pack(choices))
            self._run = failure, origin, attempt(self.scenario, recorded(choices))
        return self.scenario, *self._run[1:]

    def token(self, failure: Failure) -> str:
        from vkemu.report.trial import token_of

        return str(token_of(*self.run(failure)))

    def replay(self, failure: Failure) -> str:
        return f"vkemu replay {self.kept(failure) or self.token(failure)}"

    def kept(self, failure: Failure) -> str:
        from vkemu.record.token import in_a_file

        return in_a_file(self.token(failure), self.scenario.name)

    def tell(self, failure: Failure) -> Told:
        from vkemu.report.told import explain

        scenario, origin, outcome = self.run(failure)
        told = explain(scenario, outcome, origin.seed, self.token(failure), searched=True)
        assert told is not None, "the same schedule fails again"
        return told

    def keep(self, failure: Failure, runs: Path) -> Record:
        from vkemu.launch.outcome import recorded
        from vkemu.report.trial import record

        scenario, origin, outcome = self.run(failure)
        return record(scenario, recorded(outcome.choices), origin, runs)


@dataclass(frozen=True)
class ScenarioProgram:
    """A scenario as a program; other processes can be sent it."""

    scenario: Scenario

    @property
    def earned(self) -> tuple[type[BaseException], ...]:
        from vkemu.launch.outcome import FAILURES

        return FAILURES

    @property
    def identity(self) -> str:
        """Which scenario on which kernels: what is left of a search means nothing to another."""
        from vkemu.record.token import model_digest

        return f"{self.scenario.identity.hex()} {model_digest().hex()}"

    def __call__(self, k: Any) -> None:
        from vkemu.launch.assemble import scenario_program

        scenario_program(self.scenario)(k)

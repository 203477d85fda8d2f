"""The product's own checks, each as a word: what a mutant is tried with, and what has its reach.

`litmus W07 vptmapped` is the test of a window on a policy, `litmus W07+variant P` one of its
variants, `program NAME P` one of the mutants' own, `run SCENARIO P SEED` a seed of a scenario.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

from vkemu.launch.outcome import FAILURES, Recorder, conduct, headline
from vkemu.verdict import UsageError

Heard: TypeAlias = tuple[Literal["pass", "fail", "unknown"], str]
DRAWN: Final = ("natives", "wild", "mixed", "tight")  # each seed is another program
SCENARIOS: Final = (
    *DRAWN, "answers", "quickstart", "corners", "demo", "late-enter", "cluster-launder",
    "no-pressure", "oom-innocent", "reclaim-leak", "x86-hello", "x86-fork-cow", "x86-threads",
    "x86-float", "x86-calls", "x86-unix",
)  # fmt: skip
SEEDS: Final = 24
FEW: Final = 4  # of a scenario in which only the schedule is drawn
SECONDS: Final = 10.0  # of a search whose executions take long


def checks(policies: tuple[str, ...]) -> Iterator[str]:
    """All there are, cheap ones first."""
    from vkemu.launch.scenario import read_document
    from vkemu.litmus.file import elsewhere, of_guest, of_x86, read, shipped, switches
    from vkemu.mutation.hunt import PROGRAMS

    own = sorted(PROGRAMS.glob("*.toml"))
    for path in [*shipped(), *elsewhere(), *switches(), *own]:
        litmus = read(read_document(path), path)
        kind = "program" if path.parent == PROGRAMS else "litmus"
        for variant in ["", *(v.name for v in litmus.file.variant)]:
            for policy in policies:
                yield f"{kind} {path.stem}{'+' * bool(variant)}{variant} {policy}"
    for path in [*of_guest(), *of_x86()]:  # the variants of the former are mistakes themselves
        for policy in policies[:1]:
            yield f"litmus {path.stem} {policy}"
    for seed in range(SEEDS):
        for scenario in SCENARIOS:
            for policy in policies:
                if scenario in DRAWN or seed < FEW:
                    yield f"run {scenario} {policy} {seed}"


def perform(check: str, *, executions: int | None = None) -> Heard:
    """Do one. `executions`: no more than so many of a search. UsageError: it does not apply."""
    kind, name, policy, *rest = check.split()
    try:
        if kind == "run":
            return _run(name, policy, int(rest[0]))
        return _search(kind, name, policy, executions)
    except UsageError:
        raise
    except Exception as error:  # a kernel that raises is a kernel that is wrong
        return "fail", f"{type(error).__name__}: {error}".splitlines()[0]


def _run(name: str, policy: str, seed: int) -> Heard:
    from vkemu.executors.chance import seeded
    from vkemu.launch.assemble import assemble
    from vkemu.launch.draw import drawn
    from vkemu.launch.scenario import load

    scenario = drawn(load(name, (f"policy={policy}", f"seed={seed}")), seed)
    machine = assemble(scenario)
    max_steps = 120_000
    outcome = conduct(machine.execution, Recorder(seeded(seed)), max_steps, machine.finish)
    return outcome.verdict, "" if outcome.error is None else headline(outcome.error)


def _search(kind: str, name: str, policy: str, executions: int | None) -> Heard:
    from vkemu.litmus.decide import decide
    from vkemu.litmus.file import load_litmus
    from vkemu.matrix.cell import not_applicable
    from vkemu.mutation.hunt import PROGRAMS

    test, _, variant = name.partition("+")
    where = str(PROGRAMS / f"{test}.toml") if kind == "program" else test
    litmus = load_litmus(where, variant)
    if not_applicable(litmus, policy):
        raise UsageError(f"{kind} {name} {policy}: does not apply")
    try:
        decision = decide(litmus, policy, max_seconds=SECONDS, max_executions=executions)
    except FAILURES as error:
        return "fail", headline(error)
    failure = decision.failure
    if failure is None and decision.result.cut:
        return "fail", f"no end within {litmus.file.litmus.max_steps:,} steps"
    return decision.verdict, "" if failure is None else failure.message.splitlines()[0]

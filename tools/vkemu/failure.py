"""failure.txt: what went wrong, told so that it can be pasted into a commit message.

The failing schedule is run once more, watched step by step (`vkemu.report`).
"""

from __future__ import annotations

import msgspec

from vkemu import assemble
from vkemu.controlled import Execution
from vkemu.outcome import Outcome, Recorder, conduct, headline, recorded
from vkemu.report import text
from vkemu.report.failure import Failure
from vkemu.report.recording import Recording, Step
from vkemu.scenario import Scenario
from vkguest.errors import GuestPanic
from vkhost.panic import Panic


def explain(scenario: Scenario, outcome: Outcome, seed: int, token: str) -> str:
    """The whole report of a run that did not pass; empty for one that did."""
    if outcome.error is None:
        return ""
    replay = f"vkemu replay {token}"
    if outcome.verdict == "unknown":
        return f"unknown: {headline(outcome.error)}\n\n replay: {replay}\n"
    error, steps = watch(scenario, outcome)
    context = {"scenario": scenario.name, "policy": scenario.policy, "seed": str(seed)}
    if scenario.mutants:
        context["mutants"] = " ".join(scenario.mutants)
    failure = Failure.of(error, steps, replay=replay, context=context)
    if not isinstance(error, type(outcome.error)):
        failure.message = f"{headline(outcome.error)} - because {failure.message}"
    return text.render(failure)


def watch(scenario: Scenario, outcome: Outcome) -> tuple[BaseException, list[Step]]:
    """The failure again, with its steps.

    A panic is a symptom: the kernel noticed late what the oracle, allowed to look at everything,
    sees at once. So every check is on, and what comes first is the answer.
    """
    if isinstance(outcome.error, Panic | GuestPanic):
        scenario = msgspec.structs.replace(scenario, checks=())
    execution = Execution()
    recording = Recording(execution, recorded(outcome.choices))
    machine = assemble.assemble(scenario, recording, execution)
    again = conduct(execution, Recorder(recording), scenario.max_steps, machine.finish)
    assert again.error is not None, "the same schedule fails again"
    return again.error, recording.steps

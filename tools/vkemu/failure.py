"""failure.txt: what went wrong, told so that it can be pasted into a commit message.

The failing schedule is run once more, watched step by step (`vkemu.report`).
"""

from __future__ import annotations

from vkemu import assemble
from vkemu.controlled import Execution
from vkemu.outcome import Outcome, Recorder, conduct, headline, recorded
from vkemu.report import text
from vkemu.report.failure import Failure
from vkemu.report.recording import Recording
from vkemu.scenario import Scenario


def explain(scenario: Scenario, outcome: Outcome, seed: int, token: str) -> str:
    """The whole report of a run that did not pass; empty for one that did."""
    error = outcome.error
    replay = f"vkemu replay {token}"
    if error is None:
        return ""
    if outcome.verdict == "unknown":
        return f"unknown: {headline(error)}\n\n replay: {replay}\n"
    execution = Execution()
    recording = Recording(execution, recorded(outcome.choices))
    machine = assemble.assemble(scenario, recording, execution)
    again = conduct(execution, Recorder(recording), scenario.max_steps, machine.finish)
    assert str(again.error) == str(error), "the same schedule fails in the same way"
    context = {"scenario": scenario.name, "policy": scenario.policy, "seed": str(seed)}
    if scenario.mutants:
        context["mutants"] = " ".join(scenario.mutants)
    return text.render(Failure.of(error, recording.steps, replay=replay, context=context))

"""failure.txt: what went wrong, told so that it can be pasted into a commit message."""

from __future__ import annotations

from vkemu.controlled import StepBound
from vkemu.outcome import Outcome, headline
from vkemu.scenario import Scenario


def explain(scenario: Scenario, outcome: Outcome, seed: int, token: str) -> str:
    """The whole report of a run that did not pass; empty for one that did."""
    if outcome.error is None:
        return ""
    if isinstance(outcome.error, StepBound):
        kind = "unknown"
    else:
        kind = "BUG: vkemu"
    lines = [f"{kind}: {headline(outcome.error)}"]
    lines += str(outcome.error).strip().splitlines()[1:]
    mutants = ", ".join(scenario.mutants) or "none"
    lines += [
        "",
        f"scenario {scenario.name}, policy {scenario.policy}, mutants {mutants}",
        f"seed {seed}, step {outcome.steps}",
        f"replay: vkemu replay {token}",
    ]
    return "\n".join(lines) + "\n"

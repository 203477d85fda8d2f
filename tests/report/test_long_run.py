"""Of a run too long to be kept in memory the end is told."""

from __future__ import annotations

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.scenario import load
from vkemu.report import told as failure
from vkemu.report.trial import attempt


@pytest.mark.slow
def test_of_a_long_run_the_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = load("reclaim-leak")
    seed = next(n for n in range(1, 20) if attempt(scenario, seeded(n)).verdict == "fail")
    outcome = attempt(scenario, seeded(seed))
    monkeypatch.setattr(failure, "TOLD_STEPS", outcome.steps // 4)
    since = outcome.steps - outcome.steps // 4

    error, steps, _ = failure.watch(scenario, outcome, since)
    told = failure.explain(scenario, outcome, seed, "vk1")

    assert [step.tid for step in steps[1:]] == list(outcome.choices)
    assert all(step.number == n for n, step in enumerate(steps) if n >= since)
    assert not any(step.events or step.clock for step in steps[1:since])
    assert str(error) == str(outcome.error)
    assert told is not None
    assert not told.page
    assert f"told from step {since} of {outcome.steps}" in " ".join(told.text.split())

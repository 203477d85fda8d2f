"""Whom the OOM kills: `oom-innocent`, W11 at the scale of a run."""

from __future__ import annotations

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.assemble import assemble
from vkemu.launch.outcome import InnocentKilled, Outcome, Recorder, conduct
from vkemu.launch.scenario import load

pytestmark = pytest.mark.slow


class Console:
    """A log that keeps what the host says and whom it kills."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def emit(self, name: str, *fields: object) -> None:
        if name in ("console", "oom.kill"):
            self.told.append(f"{name} {fields}")


def run(seed: int, policy: str) -> tuple[Outcome, list[str]]:
    scenario = load("oom-innocent", [f"policy={policy}"])
    console = Console()
    machine = assemble(scenario, console)
    outcome = conduct(machine.execution, Recorder(seeded(seed)), scenario.max_steps, machine.finish)
    return outcome, console.told


def test_pages_that_are_only_flagged_cost_an_innocent_process_its_life() -> None:
    outcome, told = run(1, "vptmapped")

    assert isinstance(outcome.error, InnocentKilled)
    assert "editor is killed for memory (24 pages)" in str(outcome.error)
    assert any("Try to kill process 101 editor" in line for line in told)
    assert any(line.startswith("oom.kill (101, ") for line in told)


def test_pages_that_can_be_found_are_laundered_instead() -> None:
    outcome, told = run(1, "pv_entry")

    assert outcome.verdict == "pass", str(outcome.error)
    assert not any("kill" in line for line in told)

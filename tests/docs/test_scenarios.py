"""docs/scenarios.md names every shipped scenario, and quotes what the failing ones say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.outcome import headline
from vkemu.launch.scenario import load, shipped_names
from vkemu.report.trial import attempt

PAGE = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text("utf-8")


def test_every_shipped_scenario_has_its_row() -> None:
    assert (
        sorted(re.findall(r"^\| `([\w-]+)` \|", PAGE.partition("## Faults")[0], re.MULTILINE))
        == shipped_names()
    )


@pytest.mark.slow
def test_what_is_quoted_is_said() -> None:
    quoted = re.search(r"\$ vkemu run oom-innocent .*\n\[...\]\nBUG: vkemu: (.*)\n", PAGE)
    error = attempt(load("oom-innocent"), seeded(1)).error

    assert quoted is not None
    assert error is not None
    assert headline(error) == quoted[1]

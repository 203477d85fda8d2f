"""docs/scenarios.md names every shipped scenario, and what it quotes is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vkemu.cli import main
from vkemu.scenario import shipped_names

PAGE = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text("utf-8")


def test_every_shipped_scenario_has_its_row() -> None:
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE)) == shipped_names()


@pytest.mark.slow
def test_what_is_quoted_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = re.search(r"```\n\$ vkemu (.*)\n((?:.*\n)*?)```", PAGE)
    assert block is not None
    assert main([*block[1].split(), "--runs", str(tmp_path)]) == 1

    printed = capsys.readouterr().out.splitlines()
    quoted = [line for line in block[2].splitlines() if line != "[...]"]
    assert quoted
    assert [line for line in printed if line in quoted] == quoted

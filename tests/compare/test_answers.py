"""docs/answers.md quotes what the commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from vkemu.commands.cli import main
from vkemu.compare.costs import COSTS

ANSWERS = Path(__file__).parents[2] / "docs" / "answers.md"
QUOTED = re.compile(r"```\n\$ vkemu (.*)\n((?:.*\n)*?)```")
GAP = "[...]"


def quotations() -> list[tuple[str, str]]:
    return QUOTED.findall(ANSWERS.read_text())


def agrees(quoted: list[str], printed: list[str]) -> bool:
    """Each quoted line follows the one before, or, after a gap, comes somewhere later."""
    at, gap = 0, False
    for line in quoted:
        if line == GAP:
            gap = True
            continue
        where = [i for i in range(at, len(printed)) if printed[i].rstrip() == line]
        if not where or (not gap and where[0] != at):
            return False
        at, gap = where[0] + 1, False
    return gap or not any(printed[at:])


@pytest.mark.slow
@pytest.mark.parametrize(("command", "quoted"), quotations(), ids=lambda text: text[:40])
def test_a_quotation(command: str, quoted: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(shlex.split(command))

    printed = capsys.readouterr().out
    assert agrees(quoted.splitlines(), printed.splitlines()), printed


def test_each_question_is_backed_by_a_command() -> None:
    parts = re.split(r"^## (Q\d)", ANSWERS.read_text(), flags=re.MULTILINE)[1:]

    assert parts[::2] == ["Q1", "Q2", "Q3", "Q4", "Q5"]
    assert all(QUOTED.search(part) for part in parts[1::2])


@pytest.mark.parametrize(
    ("quoted", "same"),
    [
        (["a", "b"], True),
        (["a"], False),
        (["b"], False),
        (["a", GAP], True),
        ([GAP, "b"], True),
        ([GAP, "c"], False),
        (["a", "c", GAP], False),
    ],
)
def test_a_quotation_that_differs_is_seen(quoted: list[str], same: bool) -> None:
    assert agrees(quoted, ["a", "b"]) is same


def test_the_costs_are_those_of_the_code() -> None:
    text = (ANSWERS.parent / "costs.md").read_text()

    for name, cost in COSTS.items():
        assert f"| {name} | {cost.ns} | {cost.what} | {cost.source} |" in text

"""The recorded matrix is what the kernels do: parts of it are computed again in every run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from vkemu import replay
from vkemu.launch.scenario import read_document
from vkemu.litmus import token as litmus_token
from vkemu.litmus.decide import decide
from vkemu.litmus.file import load_litmus, read, shipped
from vkemu.litmus.verbs import check_statements
from vkemu.matrix import Cell, Question, answer, questions
from vkemu.matrix.document import document
from vkemu.matrix.table import WIDTH, render

from vkhost.mutants import MUTANTS
from vkhost.rmap import POLICIES

ALWAYS = ("pv_entry", "vptmapped", "notifier")
DOCUMENT = Path(__file__).parents[2] / "docs" / "windows.md"


def essence(cell: Cell) -> tuple[object, ...]:
    """What of a cell is the same on every machine: not the time, nor how far a search got. Which
    of many witnesses was found is no part of the answer either."""
    said = cell.executions if cell.verdict == "pass" else 0
    return cell.name, cell.policy, cell.verdict, cell.exhausted, said


def again(cells: Iterable[Cell]) -> list[Cell]:
    """With all the time there is: how busy the machine is must not decide."""
    return [answer(Question(c.window, c.test, c.variant, c.policy, max_seconds=600)) for c in cells]


# The tests of the windows.


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_a_shipped_test_says_what_can_be_said(path: Path) -> None:
    litmus = read(read_document(path), path)

    assert litmus.name == path.stem
    assert litmus.file.litmus.window == path.stem[:3]
    assert litmus.file.litmus.title
    assert litmus.file.litmus.breaks
    for test in (litmus, *litmus.variants()):
        check_statements(test)
        assert set(test.file.mutants) <= MUTANTS.keys()
        heading = test.file.litmus
        assert all(heading.na.values())
        assert heading.reason or not heading.policies


def test_every_window_of_the_catalogue_has_one_test() -> None:
    assert [path.stem[:3] for path in shipped()] == [f"W{n:02}" for n in range(1, 51)]


# The record.


def test_the_record_has_every_test_on_every_policy_it_knows(recorded: list[Cell]) -> None:
    known = list(dict.fromkeys(cell.policy for cell in recorded))
    asked = questions(on=known, all_variants=True)

    assert set(known) <= POLICIES.keys()
    assert [(c.test, c.variant, c.policy) for c in recorded] == [
        (q.test, q.variant, q.policy) for q in asked
    ]


def test_every_cell_is_decided_or_says_why_not(recorded: list[Cell]) -> None:
    for cell in recorded:
        match cell.verdict:
            case "fail":
                assert cell.token, cell
            case "pass":
                assert cell.exhausted, cell
                assert cell.executions > 0, cell
            case _:
                assert cell.reason, cell


@pytest.mark.slow
@pytest.mark.parametrize("policy", ALWAYS)
def test_every_window_is_decided_as_recorded(recorded: list[Cell], policy: str) -> None:
    chosen = [c for c in recorded if c.policy == policy and not c.variant and c.seconds < 2]

    assert len(chosen) > 35
    assert list(map(essence, again(chosen))) == list(map(essence, chosen))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_a_part_of_the_rest_is_decided_as_recorded(recorded: list[Cell], part: int) -> None:
    """Every sixteenth of the quick cells, four times over: variants and the other policies."""
    quick = [c for c in recorded if (c.variant or c.policy not in ALWAYS) and c.seconds < 0.5]
    chosen = quick[part::16]

    assert len(chosen) > 30
    assert list(map(essence, again(chosen))) == list(map(essence, chosen))


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2))])
def test_every_failure_replays_from_its_token(recorded: list[Cell], which: int) -> None:
    from vkemu.litmus.decide import Test

    failed = [cell for cell in recorded if cell.verdict == "fail"]
    assert len(failed) > 100
    for cell in failed[which::3]:
        found = litmus_token.parse(cell.token)
        failure = replay(Test(found.litmus(), found.policy), found.schedule)
        assert failure.message.splitlines()[0] == cell.reason, cell


@pytest.mark.slow
def test_dfs_agrees_where_it_gets_through(recorded: list[Cell]) -> None:
    """No reduction at all: what it decides within its budget, dpor has decided alike."""
    agreed = 0
    for cell in recorded:
        if cell.policy != "vptmapped" or cell.verdict not in ("pass", "fail"):
            continue
        if cell.executions > 3 or cell.seconds > 0.5:
            continue
        litmus = load_litmus(cell.test, cell.variant)
        decision = decide(litmus, cell.policy, strategy="dfs", max_executions=60)
        if decision.verdict == "fail" or decision.result.exhausted:
            assert decision.verdict == cell.verdict, cell
            agreed += 1
    assert agreed > 30


def test_the_patch_fails_where_it_is_known_to(recorded: list[Cell]) -> None:
    """Facts 6.4: laundering strips the flag, and nothing is ever reclaimed."""
    verdicts = {c.window: c.verdict for c in recorded if c.policy == "vptmapped" and not c.variant}

    for window in ("W07", "W08", "W09", "W10", "W11", "W12"):
        assert verdicts[window] == "fail", window


def test_the_document_is_that_of_the_record(recorded: list[Cell]) -> None:
    assert DOCUMENT.read_text() == document(recorded)


def test_the_table_fits(recorded: list[Cell]) -> None:
    text = render([cell for cell in recorded if cell.token == ""])
    grid = text.split("FAIL: a witness")[0]

    assert max(map(len, grid.splitlines())) <= WIDTH

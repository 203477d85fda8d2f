"""`vkemu matrix`: what it prints, and with which status it ends."""

from __future__ import annotations

import json

import pytest
from vkemu.commands.cli import main
from vkemu.matrix import Cell, Question, compute
from vkemu.matrix.cell import answer


def test_a_failure_is_a_violation(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["matrix", "--windows", "W07", "--policies", "vptmapped,pv_entry", "--jobs", "1"]

    assert main(argv) == 1
    out = capsys.readouterr().out
    assert "W07" in out
    assert "FAIL" in out
    assert "vkl1." in out


def test_nothing_but_passes_is_a_pass(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["matrix", "--windows", "W07,W37", "--policies", "pv_entry", "--jobs", "1", "--json"]

    assert main(argv) == 0
    passed, not_applicable = json.loads(capsys.readouterr().out)
    assert passed["verdict"] == "pass"
    assert passed["exhausted"] is True
    assert not_applicable["verdict"] == "n/a"
    assert not_applicable["reason"]


@pytest.mark.parametrize(
    ("tree", "verdict"), [("", "n/a"), ("5.4", "n/a"), ("2020", "pass"), ("patch", "n/a")]
)
def test_what_does_not_apply_in_one_tree_may_in_another(tree: str, verdict: str) -> None:
    """[20] forks a wired VPAGETABLE entry; the others panic before there is anything to ask."""
    cell = answer(Question("W49", "W49-clip-fork-collapse", "", "wired", tree=tree))

    assert (cell.verdict, cell.tree) == (verdict, tree or "2026")


@pytest.mark.slow
def test_a_bound_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "matrix", "--windows", "W43", "--policies", "pv_entry", "--jobs", "1",
        "--strategy", "random", "--max-seconds", "0.1",
    ]  # fmt: skip

    assert main(argv) == 3
    assert "bnd" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--windows", "W99"], "--windows 'W99', expected one of W01"),
        (["--policies", "magic"], "--policies 'magic', expected one of"),
        (["--strategy", "luck"], "--strategy 'luck', expected one of random"),
        (["--jobs", "0"], "--jobs: 0, expected 1 to 256"),
        (["--read", "/nowhere"], "--read /nowhere"),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["matrix", *argv]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_processes_change_nothing() -> None:
    asked = [
        Question("W07", "W07-cluster-launder", "", policy)
        for policy in ("pv_entry", "vptmapped", "wired", "removed")
    ]

    def timeless(cells: list[Cell]) -> list[tuple[object, ...]]:
        return [(c.policy, c.verdict, c.executions, c.token, c.reason) for c in cells]

    alone, complete = compute(asked, jobs=1)
    together, _ = compute(asked, jobs=2)
    assert complete
    assert timeless(alone) == timeless(together)


def test_an_interrupt_leaves_what_is_known() -> None:
    asked = [Question("W07", "W07-cluster-launder", "", p) for p in ("pv_entry", "wired")]

    def interrupt(_: Cell) -> None:
        raise KeyboardInterrupt

    cells, complete = compute(asked, jobs=1, tell=interrupt)
    assert not complete
    assert cells[0].policy == "pv_entry"
    assert answer(asked[0]).verdict == cells[0].verdict

"""A design of one's own: what its file must be, and what the page says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from vkemu.commands.check import page, status_of
from vkemu.commands.cli import main
from vkemu.matrix.cell import Cell, Question, Verdict, answer
from vkemu.matrix.design import Design, Ran, register
from vkemu.verdict import Status, UsageError

from vkhost.rmap import POLICIES

RMAP = "from vkhost.rmap.pv_entry import PvEntry\nclass Mine(PvEntry):\n    name = {!r}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", r":1: SyntaxError: .*, expected a module that imports"),
        ("x = 1\ny = 1 / 0\n", r":2: ZeroDivisionError: .*, expected a module that imports"),
        ("x = 1\n", "0 subclasses of Rmap, expected one"),
        (RMAP.format("a") + RMAP.format("b").replace("Mine", "Yours"), "2 subclasses of Rmap"),
        (RMAP.format("bloom"), "Mine.name is 'bloom', expected one of its own"),
        (RMAP.format(""), "Mine.name is '', expected one of its own"),
    ],
)
def test_a_file_that_is_no_design(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)

    with pytest.raises(UsageError, match=message):
        register(str(path))


@pytest.mark.parametrize("source", ["nonsense", "nowhere.py"])
def test_no_design_at_all(source: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        register(source)


def cell(window: str, verdict: Verdict, policy: str = "mine", reason: str = "") -> Cell:
    return Cell(window, f"{window}-test", "", policy, verdict, token="t", reason=reason)


PASSED = Ran("wild", 3)


def made(*cells: Cell, ran: Ran = PASSED, unreached: list[int] | None = None) -> Design:
    exact = [cell("W01", "fail", "pv_entry"), cell("W06", "pass", "pv_entry")]
    return Design("mine", "mine.py", list(cells), exact, [ran], unreached, 1.0)


FAILED = [
    "fails, where pv_entry passes:",
    "  W06  lost",
    "      witness t",
    "  to see one: vkemu replay WITNESS --policy mine.py",
]
SEED = ["fails in wild, seed 4: lost", "      vkemu run wild --policy mine.py --seed 4"]


@pytest.mark.parametrize(
    ("design", "status", "lines"),
    [
        (made(cell("W06", "pass")), Status.PASS, ["passes, exhausted: (1) W06"]),
        (made(cell("W01", "fail")), Status.PASS, ["fails on pv_entry too: (1) W01"]),
        (made(cell("W06", "fail", reason="lost")), Status.VIOLATION, FAILED),
        (made(cell("W06", "bounded", reason="5")), Status.UNKNOWN, ["bounded: W06: 5"]),
        (made(ran=Ran("wild", 1, failed=4, reason="lost")), Status.VIOLATION, SEED),
        (
            made(ran=Ran("wild", 2, 1)),
            Status.UNKNOWN,
            ["runs of wild: 2 seeds pass, 1 with no end"],
        ),
        (made(unreached=[3, 4]), Status.PASS, ["never reached, lines of its own: 3, 4"]),
        (made(unreached=[]), Status.PASS, ["every line of its own was reached"]),
    ],
)
def test_the_page(design: Design, status: Status, lines: list[str]) -> None:
    assert status_of(design) == status
    said = page(design)
    for line in lines:
        assert line in said, said


def test_a_witness_of_ones_own_design_is_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It forgets its PTEs; the token says its name only, which --policy FILE.py makes known."""
    path = tmp_path / "mine.py"
    path.write_text(RMAP.format("forgets_all") + "    async def enter(self, *of): pass\n")
    cell = answer(Question("W06", "W06-blind-reclaim", "", register(str(path))))
    assert cell.verdict == "fail"
    del POLICIES["forgets_all"]

    assert main(["replay", cell.token]) == 2
    assert main(["replay", cell.token, "--policy", str(path)]) == 1
    assert "loses PG_MAPPED while it is mapped" in capsys.readouterr().out


def test_other_processes_do_not_know_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text(RMAP.format("here_only"))

    assert main(["explore", "W06", "--policy", str(path), "--jobs", "2"]) == 2
    assert "which only this process knows" in capsys.readouterr().err

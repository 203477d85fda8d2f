"""The failure text of `vkemu explore`, compared with what it said before: VKEMU_SNAPSHOTS=1 writes
it anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from vkemu.commands.cli import main
from vkemu.report.text import COLUMNS

from tests.commands.subjects import LOST_UPDATE, REF_KEPT

SNAPSHOTS = Path(__file__).parent / "snapshots"
PROGRAM = (
    LOST_UPDATE
    + """
def deadlock(k):
    left, right = k.lock("left"), k.lock("right")
    async def dine(first, second):
        async with first, second:
            pass
    k.spawn("a", dine, left, right)
    k.spawn("b", dine, right, left)

def race(k):
    total = [0]
    x = k.cell("x")
    async def add():
        await x.load()
        total[0] += 1
    k.spawn("a", add)
    k.spawn("b", add)

def asserts(k):
    ready, word = k.cell("ready"), k.cell("word")
    async def writer():
        await ready.store(1)
        for value in range(70):
            await word.store(value)
    async def reader():
        await ready.wait(lambda ready: ready == 1)
        seen = await word.load()
        assert seen != 65, f"{seen} is there too early"
    k.spawn("writer", writer)
    k.spawn("reader", reader)

def many(k):
    cells = [k.cell(f"a_cell_with_a_rather_long_name_{n}") for n in range(9)]
    async def pass_on(n):
        value = await cells[n].load()
        await cells[(n + 1) % 9].store((value, "x" * 40))
    for n in range(9):
        k.spawn(f"thread{n}", pass_on, n)
    k.always(lambda: cells[0].value == 0)

def endless(k):
    x = k.cell("x")
    async def spin():
        while True:
            await x.add(1)
    k.spawn("a", spin)
"""
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("p.py").write_text(PROGRAM)
    Path("s.toml").write_text(REF_KEPT)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lost", []),
        ("deadlock", []),
        ("race", ["--check"]),
        ("asserts", ["--strategy", "dfs"]),
        ("many", []),
        ("endless", ["--max-steps", "12", "--livelock"]),
    ],
)
def test_of_a_program(name: str, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It was a table as wide as its threads, with no header."""
    assert main(["explore", f"p.py:{name}", *options]) == 1
    said = capsys.readouterr().out.partition("\n\n")[2]
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("VKEMU_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(said)
    assert max(map(len, said.splitlines())) <= COLUMNS
    assert said == path.read_text(), f"if it is meant: VKEMU_SNAPSHOTS=1, then look at {path}"


BLAMED = """
def blamed(k):
    x, y, own = k.cell("x"), k.cell("y"), k.cell("own")
    seen = []
    async def writer():
        await x.store(1)
        seen.append(await y.wait(lambda y: y == 1))
    async def reader():
        await x.wait(lambda x: x == 1)
        await y.store(1)
        await own.load()
        assert not seen
    k.spawn("writer", writer)
    k.spawn("the: reader", reader)
"""


def test_of_names_with_spaces_and_colons(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The objects of a deadlock, and who failed, were found by splitting the message."""
    text = PROGRAM.replace('"left"', '"lock left"').replace('"right"', '"lock; right"')
    text = text.replace('"a", dine', '"t: a", dine').replace('"b", dine', '"t b", dine')
    (folder / "p.py").write_text(text + BLAMED)
    assert main(["explore", "p.py:deadlock"]) == 1
    said = capsys.readouterr().out
    assert "\n acquire:  t b   lock; right: None -> 1  step 2  p.py:13\n" in said
    assert "\n acquire:  t: a  lock left: None -> 0    step 1  p.py:13\n" in said
    assert main(["explore", "p.py:blamed", "--strategy", "dfs"]) == 1
    assert "\n wait:   the: reader  x: 1" in capsys.readouterr().out


def test_of_a_program_in_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "p.py:lost", "--report", "here"]) == 1
    assert (folder / "here" / "failure.txt").read_text() in capsys.readouterr().out
    assert "does not hold" in (folder / "here" / "report.html").read_text()


@pytest.mark.slow
def test_of_a_scenario_with_a_run_folder_that_replays(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It printed one column for each of its eighteen threads, and a token for `explore` alone."""
    argv = ["explore", "s.toml", "--max-executions", "4"]
    assert main([*argv, "--runs", "runs"]) == 1
    said = capsys.readouterr().out
    told = (folder / "runs" / "s-1" / "failure.txt").read_text()

    assert said.startswith("fail: s\nportfolio: ")
    assert told.startswith("BUG: vkemu: vmspace ")
    assert "(invariant 10: vmspace" in told
    assert f"\n\n{told}runs/s-1\n" in said
    assert max(map(len, told.splitlines())) <= COLUMNS
    for name in ("events.ndjson", "summary.json", "scenario.json", "report.html"):
        assert (folder / "runs" / "s-1" / name).stat().st_size
    assert main(["replay", "runs/latest"]) == 1
    assert (folder / "runs" / "s-2" / "failure.txt").read_text() == told
    assert " replay: vkemu replay vk1." in told

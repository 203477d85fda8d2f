"""`vkemu mutants`: none survives, and what catches one is quiet without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vkemu.commands.cli import main
from vkemu.litmus.file import load_litmus
from vkemu.mutation import EQUIVALENT, PLACES, hunt
from vkemu.mutation.hunt import PROGRAMS
from vkemu.mutation.places import Litmus

from vkguest.mutants import GUEST_MUTANTS
from vkhost.mutants import MUTANTS

RECORDED = Path(__file__).parent / "recorded.json"


def test_every_mutant_has_its_check_or_a_reason() -> None:
    assert set(PLACES) | set(EQUIVALENT) == {*MUTANTS, *GUEST_MUTANTS}
    assert not set(PLACES) & set(EQUIVALENT)
    assert len(PLACES) >= 40


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_program_is_named_as_its_file_and_used(path: Path) -> None:
    assert load_litmus(str(path)).name == path.stem
    named = {p.test for p in PLACES.values() if isinstance(p, Litmus)}
    made = {one["by"].split()[1].partition("+")[0] for one in json.loads(RECORDED.read_text())}
    assert path.stem in named | made, "a check that has never been red"


NAMES = sorted(PLACES)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(NAMES[::12], marks=pytest.mark.slow, id="every twelfth"),
        pytest.param([], marks=pytest.mark.long, id="all"),
    ],
)
def test_none_survives(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["mutants", "--json", "--jobs", "2", *names])

    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out) if "status" in row}
    assert {name for name, row in rows.items() if row["status"] == "survived"} == set()
    equivalent = {name for name, row in rows.items() if row["status"] == "equivalent"}
    assert equivalent == (set() if names else set(EQUIVALENT))
    assert set(rows) >= set(names)
    assert all(row["control"] != "fail" for row in rows.values() if row["status"] == "caught")
    assert status == 0


def test_one_that_nothing_catches_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLACES, "lazy-tlb", Litmus("no-execute"))

    assert hunt("lazy-tlb").status == "survived"


def test_a_check_that_fails_anyway_catches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLACES, "lazy-tlb", Litmus("W06-blind-reclaim", "extent_scan"))

    assert hunt("lazy-tlb").status == "survived"


def test_a_list_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mutants", "--list", "ilock-wake-one"]) == 0

    out = capsys.readouterr().out
    assert out.startswith("ilock-wake-one  (host)\n")
    assert "windows: W29" in out


def test_no_such_mutant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mutants", "no-such"]) == 2
    assert "no-such" in capsys.readouterr().err

"""Races within the guest's kernel: each test passes, and fails with a mistake in that kernel."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from vkemu import replay
from vkemu.launch.scenario import read_document
from vkemu.litmus import decide as deciding
from vkemu.litmus.decide import decide
from vkemu.litmus.file import load_litmus, of_guest, read
from vkemu.litmus.verbs import check_statements
from vkemu.matrix.elsewhere import source
from vkemu.verdict import UsageError

from tests.docs.guest_page import PAGE, Row, asked, page, recorded, searched
from vkguest.mutants import GUEST_MUTANTS

QUICK = ("guest-exec", "guest-pipe", "guest-wait", "guest-copyio")  # exhausted in a moment


@pytest.mark.parametrize("path", of_guest(), ids=lambda path: path.stem)
def test_a_test_says_what_can_be_said(path: Path) -> None:
    litmus = read(read_document(path), path)

    assert litmus.name == path.stem == load_litmus(path.stem).name
    assert litmus.file.litmus.title
    assert litmus.file.litmus.breaks
    assert source(path)
    assert litmus.file.variant
    for test in (litmus, *litmus.variants()):
        assert test.file.guest is not None
        assert set(test.file.guest.mutants) <= GUEST_MUTANTS.keys()
        assert bool(test.file.guest.mutants) is bool(test.variant)
        check_statements(test)


def test_the_record_has_every_test() -> None:
    assert [(row.test, row.variant) for row in recorded()] == list(asked())
    assert all((row.verdict == "fail") is bool(row.variant) for row in recorded())


def test_the_page_is_that_of_the_record() -> None:
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("name", QUICK)
def test_as_it_is_it_passes_exhausted(name: str) -> None:
    (known,) = (row for row in recorded() if (row.test, row.variant) == (name, ""))
    decision = decide(load_litmus(name), "pv_entry")

    assert (decision.verdict, decision.result.exhausted) == ("pass", True)
    assert decision.result.executions == known.executions


@pytest.mark.parametrize(
    "row",
    [row for row in recorded() if row.variant and row.executions < 50 and row.strategy == "dpor"],
    ids=lambda row: f"{row.test}+{row.variant}",
)
def test_with_a_mistake_it_fails(row: Row) -> None:
    assert searched(row.test, row.variant) == row


@pytest.mark.long
def test_all_of_it_is_as_recorded() -> None:
    assert [searched(*test) for test in asked()] == recorded()


def test_a_failure_is_had_again_by_its_token() -> None:
    decision = decide(load_litmus("guest-pipe", "sleeps-late"), "pv_entry")

    assert decision.failure is not None
    again = replay(deciding.Test(decision.litmus, "pv_entry"), decision.failure.token)
    assert again.message == decision.failure.message


# A file with something wrong in it.

FILE = """
[litmus]
name = "mine"
[guest]
before = ["f = pipe"]
[va.x]
va = 0x410000
[[thread]]
name = "A"
kind = "process"
run = ["r = load x", "fork C", "pipe_write f r"]
[[thread]]
name = "C"
kind = "child"
run = ["exit 0"]
"""


@pytest.mark.parametrize(
    ("right", "wrong", "place"),
    [
        ('kind = "process"', 'kind = "user"', "thread[0].kind"),
        ('[guest]\nbefore = ["f = pipe"]', "", "thread[0].kind"),
        ("[guest]", "[guest]\npages = 16\nswap = 4", "guest.pages"),
        ("[guest]", "[guest]\nmutants = ['nope']", "guest.mutants[0]"),
        ("[guest]", "[host]\npages = 20\n[guest]", "host.pages"),
        ("[guest]", "[page.X]\n[guest]", "page.X"),
        ("[guest]", "[[before]]\nthread = 'A'\nrun = []\n[guest]", "before[0]"),
        ("0x410000", "0x410008", "va.x"),
        ("0x410000", "0x410000\nmapped = 'r'", "va.x"),
        ("f = pipe", "f = scan", "guest.before[0]"),
        ("f = pipe", "f = pip", "guest.before[0]"),
        ("fork C", "fork A", "thread[0].run[1]"),
        ("fork C", "exec C", "thread[0].run[1]"),
        ("r = load x", "if f == 1: load x", "thread[0].run[0]"),
        ("r = load x", "deactivate", "thread[0].run[0]"),
        ("pipe_write f r", "pipe_write g r", "thread[0].run[2]"),
        ("[[thread]]", "[outcome]\nforbidden = 'C.r == 1'\n[[thread]]", "outcome"),
        ("[[thread]]", "[outcome]\nforbidden = 'A.q == 1'\n[[thread]]", "outcome"),
    ],
)
def test_a_wrong_file_is_one_line(right: str, wrong: str, place: str) -> None:
    assert right in FILE
    with pytest.raises(UsageError) as error:
        deciding.Test(
            read(tomllib.loads(FILE.replace(right, wrong, 1)), Path("mine.toml")), "pv_entry"
        )
    line = str(error.value)

    assert line.startswith(f"mine.toml:{place}"), line
    assert "expected" in line or "written by no thread" in line
    assert "\n" not in line


def test_a_right_file_is_explored() -> None:
    litmus = read(tomllib.loads(FILE), Path("mine.toml"))

    assert decide(litmus, "pv_entry").verdict == "pass"

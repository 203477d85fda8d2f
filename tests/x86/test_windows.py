"""The shipped litmus tests that run machine code, as docs/machine-code.md has them."""

from __future__ import annotations

import sys

import pytest
from vkemu.launch.assemble import assemble
from vkemu.launch.scenario import load
from vkemu.litmus.file import load_litmus, of_x86
from vkemu.litmus.verbs import check_statements
from vkemu.verdict import UsageError

from tests.docs.x86_page import HEAD, NEXT, PAGE, asked, row, section
from vkhost.rmap import POLICIES


def recorded() -> dict[tuple[str, str], dict[str, str]]:
    text = PAGE.read_text()
    text = text[text.index(HEAD) :]
    found = {}
    for line in text[: text.index(NEXT)].splitlines():
        name, *cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
        if len(cells) == len(POLICIES) and name.startswith("`x86-"):
            test, _, variant = name.strip("`").partition("+")
            found[test, variant] = dict(zip(POLICIES, cells, strict=True))
    return found


def test_the_page_has_every_test() -> None:
    assert list(recorded()) == asked()
    assert {load_litmus(path.stem).name for path in of_x86()} == {name for name, _ in recorded()}


@pytest.mark.parametrize(("name", "variant"), asked())
def test_a_test_is_closed_by_the_exact_map_and_open_with_its_mistake(
    name: str, variant: str
) -> None:
    cells = row(name, variant, ["pv_entry"])

    assert cells["pv_entry"] == recorded()[name, variant]["pv_entry"]
    assert (cells["pv_entry"] == "**×**") is bool(variant)


def test_a_blind_reclaim_of_text_runs_the_next_owners_words() -> None:
    assert row("x86-reclaim", "", ["extent_scan"])["extent_scan"] == "**×**"


@pytest.mark.long
def test_the_page_is_as_it_is_generated() -> None:
    assert section() in PAGE.read_text()


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or with one whose library does not load: importing it fails."""
    monkeypatch.setitem(sys.modules, "vkhost.pc64.unicorn_cpu", None)


@pytest.mark.usefixtures("without_the_extra")
def test_without_the_extra_a_test_that_runs_machine_code_says_so() -> None:
    with pytest.raises(UsageError, match=r"x86-edit.*machine code, expected the extra"):
        check_statements(load_litmus("x86-edit"))


def test_without_the_extra_a_scenario_says_so_also_when_it_was_read_elsewhere(
    request: pytest.FixtureRequest,
) -> None:
    scenario = load("x86-hello")
    request.getfixturevalue("without_the_extra")
    for wanted in (lambda: load("x86-hello"), lambda: assemble(scenario)):
        with pytest.raises(UsageError, match=r"x86-hello.*machine code, expected the extra"):
            wanted()

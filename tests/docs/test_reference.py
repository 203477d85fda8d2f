"""The reference is what the code's tables say, and its examples run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from vkemu.commands.cli import main
from vkemu.litmus.actor import VERBS
from vkemu.litmus.decide import decide
from vkemu.litmus.file import read

from tests.docs.reference_page import DOCS, pages
from tests.litmus.grammar import RIGHT, one_line, words_of
from tests.litmus.test_wrong_files import walked


def test_it_is_of_the_tables() -> None:
    for page, text in pages().items():
        assert page.read_text() == text, "python -m tests.docs.reference_page"


def test_the_test_that_is_written_there_does_what_is_said() -> None:
    files = re.findall(r"```toml\n(.*?)```", (DOCS / "litmus.md").read_text(), re.DOTALL)
    file, guest = files
    litmus = read(tomllib.loads(file), Path("mine.toml"))

    assert decide(litmus, "extent_scan").verdict == "fail"
    exact = decide(litmus, "pv_entry")
    assert (exact.verdict, exact.result.exhausted) == ("pass", True)
    waited = decide(read(tomllib.loads(guest), Path("wait.toml")), "pv_entry")
    assert (waited.verdict, waited.result.exhausted) == ("pass", True)


@pytest.mark.parametrize("name", [name for name in VERBS if "execute" not in name])
def test_every_verb_runs(name: str) -> None:
    entry = VERBS[name]
    words = [str(words_of(operand, RIGHT)[0]) for operand in entry.operands.values()]
    before = {"unlock": ["lock 0"], "swtch_in": ["swtch_out"]}.get(name, [])
    drawn = one_line(entry, " ".join((name, *words)))
    drawn["thread"][0]["run"] = [*before, *drawn["thread"][0]["run"]]
    if name in ("child_exit", "child_fault"):
        drawn["thread"][0]["run"] = ["await 1", *drawn["thread"][0]["run"]]
        drawn["thread"][1]["run"] = ["fork", "post 1"]

    assert walked(drawn, "pv_entry", 2).executions


@pytest.mark.parametrize("argv", [["explore", "--verbs"], ["run", "--keys"]])
def test_a_terminal_has_it_too(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert ("scan_inactive PAGE [PASSES]" in said) == (argv[0] == "explore")
    assert "[host]" in said

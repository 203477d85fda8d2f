"""The reference is what the code's tables say, and its examples run."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from vkemu.commands.cli import main
from vkemu.launch import names
from vkemu.launch.reference import TABLES as SCENARIO
from vkemu.launch.reference import keys
from vkemu.litmus.actor import VERBS
from vkemu.litmus.decide import decide
from vkemu.litmus.file import read
from vkemu.litmus.reference import TABLES, written
from vkemu.oracle import ABOUT

from tests.docs.reference_page import DOCS, in_full, pages
from tests.launch.test_wrong_scenarios import WHOLE, said
from tests.litmus.grammar import document, one_line
from tests.litmus.test_wrong_files import walked
from vkguest.workloads import WORKLOADS, workload

# Of each recipe of docs/litmus.md what makes it fail: a policy, and mutants.
WRONG = (
    (("extent_scan",), ("vptmapped",)),
    (("extent_scan",),),
    (("pv_entry", "copied-page-kept-mapped"),),
    (("pv_entry", "remove-without-shootdown"),),
)


def test_it_is_of_the_tables() -> None:
    for page, text in pages().items():
        assert page.read_text() == text, "python -m tests.docs.reference_page"


def test_the_test_that_is_written_there_does_what_is_said() -> None:
    files = re.findall(r"```toml\n(.*?)```", (DOCS / "litmus.md").read_text(), re.DOTALL)
    file, *recipes, chain, guest = files
    assert len(recipes) == len(WRONG)
    litmus = read(tomllib.loads(file), Path("mine.toml"))

    assert decide(litmus, "extent_scan").verdict == "fail"
    exact = decide(litmus, "pv_entry")
    assert (exact.verdict, exact.result.exhausted) == ("pass", True)
    child = decide(read(tomllib.loads(chain), Path("chain.toml")), "pv_entry")
    assert (child.verdict, child.result.exhausted) == ("pass", True)
    waited = decide(read(tomllib.loads(guest), Path("wait.toml")), "pv_entry")
    assert (waited.verdict, waited.result.exhausted) == ("pass", True)


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_recipe_passes_and_fails_as_the_page_says(number: int) -> None:
    page = (DOCS / "litmus.md").read_text().partition("## Recipes")[2]
    text = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[number]
    right = decide(read(tomllib.loads(text), Path("recipe.toml")), "pv_entry")
    assert (right.verdict, right.result.exhausted) == ("pass", True)
    for policy, *mutants in WRONG[number]:
        assert {policy, *mutants} - {"pv_entry"} <= {*re.findall(r"[\w-]+", page)}
        # Whatever the oracle says of it first: the test's own outcome is what fails.
        wrong = {**tomllib.loads(text), "mutants": mutants}
        wrong["litmus"] = {**wrong["litmus"], "checks": ["lock-hygiene"]}
        assert decide(read(wrong, Path("recipe.toml")), policy).verdict == "fail"


@pytest.mark.parametrize("name", [name for name in VERBS if "execute" not in name])
def test_the_example_of_every_verb_runs(name: str) -> None:
    entry = VERBS[name]
    before = {"unlock": ["lock 1"], "swtch_in": ["swtch_out"]}.get(name, [])
    drawn = one_line(entry, written(name, entry))
    drawn["thread"][0]["run"] = [*before, *drawn["thread"][0]["run"]]
    if name in ("child_exit", "child_fault"):
        drawn["thread"][0]["run"] = ["await 1", *drawn["thread"][0]["run"]]
        drawn["thread"][1]["run"] = ["fork", "post 1"]

    assert walked(drawn, "pv_entry", 2).executions


def below(found: Any, title: str) -> Any:
    """The table of that title, made where it is not there."""
    for part in re.findall(r"\w+", title):
        many = part in (
            "guest",
            "process",
            "region",
            "file",
            "native",
            "fault",
            "thread",
            "variant",
            "before",
        )
        part = {"NAME": "X" if "page" in title else "a"}.get(part, part)
        if isinstance(found, list):
            found = found[0]
        found = found.setdefault(part, [{}] if many and title != "[guest]" else {})
    return found[0] if isinstance(found, list) else found


def test_every_key_has_an_example_that_is_taken() -> None:
    """A scenario with the line in place of what was there, the rest as it was."""
    for title, table in SCENARIO:
        for key in keys(title, table):
            assert key.about, (title, key)
            if not key.example:
                continue
            whole = copy.deepcopy(WHOLE)
            whole["native"][0]["ops"] = 3
            whole["fault"] = [{"kind": "kill" if key.name == "guest" else "paused-cpu"}]
            below(whole, title).update(tomllib.loads(key.example))
            line = said(whole)
            # Of an .elf, and a file that is not there: told as such.
            assert not line or ".elf" in line or "data.bin" in line, (key, line)


def test_every_key_of_a_litmus_test_has_an_example_that_is_taken() -> None:
    for title, table in TABLES:
        for key in keys(title, table):
            assert key.about, (title, key)
            if not key.example:
                continue
            user = {"name": "G", "kind": "user", "cpu": 0, "run": ["r0 = peek a"]}
            whole = document([user])
            if title == "[guest]" or '"process"' in key.example:
                del whole["page"], whole["va"], whole["host"]
                whole["thread"] = [{**user, "kind": "process", "run": ["store x 1"]}]
                whole["va"] = {"x": {"va": 0x410000}}
            if key.name in ("policies", "reason"):
                whole["litmus"] |= {"policies": ["pv_entry"], "reason": "one is without the other"}
            if title == "[[before]]":
                whole["before"] = [{"thread": "G", "run": []}]
            if title == "[[variant]]":
                whole["variant"] = [{"name": "v"}]
            below(whole, title).update(tomllib.loads(key.example))
            read(whole, Path("drawn.toml"))


def test_every_workload_is_taken_as_it_is_written_in_full() -> None:
    for name in WORKLOADS:
        workload(in_full(name))


def test_every_name_is_taken() -> None:
    assert sorted(ABOUT) == names.checks()
    for key, known in (("checks", names.checks()), ("mutants", names.mutants())):
        assert not said({**WHOLE, key: known})
    for policy in names.policies():
        assert not said({**WHOLE, "policy": policy})


@pytest.mark.parametrize("argv", [["explore", "--verbs"], ["run", "--keys"]])
def test_a_terminal_has_it_too(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert ("scan_inactive PAGE [PASSES]" in said) == (argv[0] == "explore")
    assert "[host]" in said

"""--set KEY=VALUE, with the quotes that a shell has eaten."""

from __future__ import annotations

import pytest
from vkemu.launch.scenario import Scenario, load
from vkemu.launch.setting import read_setting

TEXTS = ("2020", "5.4", "007", "1e3", "0x10", "true", "2020-01-01", "patch", 'a "b"', "nan")
TEXT_KEYS = ("name", "about", "policy", "expect", "host.tree", "quirks.clean_vpagetable")


@pytest.mark.parametrize("key", TEXT_KEYS)
@pytest.mark.parametrize("text", TEXTS)
def test_text_may_look_like_a_number(key: str, text: str) -> None:
    quoted = text.replace('"', '\\"')

    read = read_setting(f"{key}={text}", Scenario)

    assert read == read_setting(f'{key} = "{quoted}"', Scenario)


@pytest.mark.parametrize(
    ("setting", "document"),
    [
        ("host.pages=64", {"host": {"pages": 64}}),
        ("quirks.didcow_or=false", {"quirks": {"didcow_or": False}}),
        ("host={pages=64}", {"host": {"pages": 64}}),
        ("no.such.key=5", {"no": {"such": {"key": 5}}}),
    ],
)
def test_what_is_no_text_stays_what_it_is(setting: str, document: object) -> None:
    assert read_setting(setting, Scenario) == document


@pytest.mark.parametrize("tree", ["5.4", "2020", "patch", "2026"])
def test_a_tree_needs_no_quotes(tree: str) -> None:
    assert load("mixed", [f"host.tree={tree}"]).host.tree == tree

"""Files that the documents name are there."""

from __future__ import annotations

import re

import pytest

from tests.style.source import ROOT

PAGES = [
    page.relative_to(ROOT).as_posix()
    for page in sorted(ROOT.rglob("*.md"))
    if not {".venv", ".pytest_cache", "gallery", "node_modules"} & set(page.parts)
]


@pytest.mark.parametrize("page", PAGES)
def test_a_named_module_is_there(page: str) -> None:
    """By its path from the root or the page's folder, or by any ending of its path."""
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / page).read_text()))
    there = [file.relative_to(ROOT).as_posix() for file in ROOT.glob("[!.]*/**/*.py")]

    assert [name for name in named if not any(f"/{p}".endswith(f"/{name}") for p in there)] == []

"""The gallery in the docs is what vkemu says today: `python docs/gallery/generate.py` renews it."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from vkemu.report.window import windows_of

from tests.report.agree import same_numbers

GALLERY = Path(__file__).resolve().parents[2] / "docs" / "gallery"
WRITTEN = ("*.toml", "failure.txt", "report.html")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery_generate", GALLERY / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def without_lines(text: str) -> str:
    """Source lines move with every edit, and a schedule's token with every word of state."""
    text = re.sub(r"(\.py):\d+", r"\1:N", text)
    return re.sub(r"vk[lx]\d\.[\w.\\\n-]+", "TOKEN", text)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(6))
def test_it_is_what_is_made_now(generate: ModuleType, number: int, tmp_path: Path) -> None:
    exhibit = generate.EXHIBITS[number]
    _, told = generate.make(exhibit, tmp_path)
    shown = GALLERY / exhibit.window
    page = (tmp_path / "report.html").read_text()
    events = [event for step in told.steps for event in step.events]
    if told.bracket is not None:  # not of a deadlock
        same_numbers((tmp_path / "failure.txt").read_text(), page, windows_of(events))

    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(path.name for path in shown.iterdir())
    for name in made:
        now, then = (tmp_path / name).read_text(), (shown / name).read_text()
        assert without_lines(now) == without_lines(then), f"{shown / name} is of another vkemu"


def test_there_are_six_and_the_index_leads_to_them(generate: ModuleType) -> None:
    text = (GALLERY / "README.md").read_text()
    linked = re.findall(r"\]\(([^)]+)\)", text)

    assert len({exhibit.window for exhibit in generate.EXHIBITS}) == 6
    assert len(linked) == 18
    assert all((GALLERY / link).is_file() for link in linked)

"""The README's examples are run, and say what it says they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import summary_page

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SECONDS = re.compile(r"\d+\.\d+ s\b")  # how long it took is the machine's business
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINE = re.compile(r"\.py:\d+")
DOCUMENTS = ("README.md",)


def examples() -> list[tuple[str, str]]:
    """(command, what it prints) of every `$ vkemu` line of the documents."""
    found = []
    for name in DOCUMENTS:
        for block in BLOCK.findall((ROOT / name).read_text()):
            for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, output = example.partition("\n")
                found.append((command, output))
    return found


def test_the_race_that_the_readme_opens_with_is_the_gallerys() -> None:
    told = (ROOT / "docs/gallery/W07/failure.txt").read_text()
    told_lines = [LINE.sub(".py:N", line) for line in told.splitlines()]
    start = (ROOT / "README.md").read_text().partition("## The race")[2].partition("\n## ")[0]
    shown = [line.removeprefix("    ") for line in start.splitlines() if line.startswith("    ")]

    assert len(shown) > 10
    shown = [LINE.sub(".py:N", line) for line in shown]  # source lines move with every edit
    assert [line for line in shown if line not in (*told_lines, "...")] == []


@pytest.mark.slow
@pytest.mark.parametrize(("command", "output"), examples())
def test_an_example_prints_what_the_readme_shows(command: str, output: str, tmp_path: Path) -> None:
    words = command.split()
    assert words[0] == "vkemu"

    done = subprocess.run(
        [sys.executable, "-m", "vkemu", *words[1:]],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert SECONDS.sub("T s", output) == SECONDS.sub("T s", done.stdout)
    assert done.stderr == ""


def test_the_table_is_what_is_recorded_and_counted_now() -> None:
    table = "\n".join(summary_page.rows())

    assert f"\n\n{table}\n\n" in (ROOT / "README.md").read_text(), (
        "python -m tests.docs.summary_page"
    )
    assert summary_page.BROKEN.read_text() == summary_page.broken()


def test_the_program_of_the_readme_does_what_it_says() -> None:
    (program,) = PROGRAM.findall((ROOT / "README.md").read_text())

    exec(compile(program, "README.md", "exec"), {})

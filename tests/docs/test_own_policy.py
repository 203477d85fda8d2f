"""docs/own-policy.md, followed to the letter: its file, its commands, what they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "own-policy.md"
LINE_LEFT_OUT = "self.ptes.setdefault(m, {})[pte] = pmap"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(0, 0), (1, 1)])
def test_the_page_can_be_followed(number: int, status: int, tmp_path: Path) -> None:
    (code,) = blocks("python")
    assert LINE_LEFT_OUT in code
    (tmp_path / "plain_list.py").write_text(code)
    (tmp_path / "forgetful_list.py").write_text(code.replace(LINE_LEFT_OUT, "pass"))
    command, _, expected = blocks("console")[number].partition("\n")

    ran = subprocess.run(
        [sys.executable, "-m", *command.removeprefix("$ ").split(), "--jobs", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == status, ran.stderr
    assert ran.stderr == ""
    wanted = "(.*)".join(map(re.escape, expected.strip().split("[...]")))
    assert re.search(wanted, ran.stdout, re.DOTALL), ran.stdout

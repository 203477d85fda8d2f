"""What a shell is told when it asks what could stand here, and near misses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from vkemu.commands.cli import main


@pytest.mark.parametrize(
    ("line", "expected"),
    [("vkemu comp", "compare\vcompletion"), ("vkemu explore W07 --polic", "--policy ")],
)
def test_a_shell_is_answered(line: str, expected: str, tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_IFS": "\v", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "vkemu"], env=asked, check=True)

    assert answer.read_text() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_to_ask(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_ARGCOMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["rn"], "did you mean 'run'?"),
        (["run", "quickstrt"], "did you mean 'quickstart'?"),
        (["explore", "quickstrt"], "did you mean 'quickstart'?"),
        (["explore", "W0"], "W0: ambiguous"),
        (["explore", "W"], "W: ambiguous"),
        (["run", "quickstart", "--backend", "asyncio"], "--backend, expected with --live"),
    ],
)
def test_a_near_miss(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1

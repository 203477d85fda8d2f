"""Names of files that are no UTF-8: every command takes them, shows them, and replays from them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vkemu.commands.cli import main
from vkemu.litmus.file import find_litmus
from vkemu.record.token import path_of, written

from tests.commands.subjects import LOST_UPDATE

ODD = os.fsdecode(b"caf\xe9")
SCENARIO = """
max_steps = 60
host.pages = 200
[[guest]]
name = "g1"
memory = "512K"
workloads = ["touch"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path(f"{ODD}.toml").write_text(SCENARIO)
    Path(f"{ODD}.py").write_text(LOST_UPDATE)
    Path(f"{ODD}-w.toml").write_bytes(Path(str(find_litmus("W01"))).read_bytes())
    return tmp_path


def replayed(said: str, *more: str) -> int:
    """The command that a failure ends with, taken."""
    word = re.search(r"vkemu (replay vkl1[\w.\\\n-]+|explore .* --replay \S+)", said)
    assert word is not None
    shown = word[1].replace("\\\n", "").replace("'", "").replace("\\udce9", "\udce9")
    return main([*shown.split(), *more])


def test_a_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", f"{ODD}.toml", "--runs", ODD]) == 3
    assert main(["replay", f"{ODD}/latest", "--runs", ODD]) == 3
    assert main(["log", "show", f"{ODD}/latest"]) == 0
    assert "caf" in capsys.readouterr().out
    token = re.search(r"vk1\.[\w-]+", (Path(ODD) / "latest" / "failure.txt").read_text())
    assert token is not None
    assert main(["replay", token[0]]) == 3


@pytest.mark.slow
def test_a_litmus_test_and_where_it_is_now(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", f"{ODD}-w.toml", "--variant", "interlock-off"]) == 1
    said = capsys.readouterr().out
    (folder / "elsewhere").mkdir()
    Path(f"{ODD}-w.toml").rename(folder / "elsewhere" / "moved.toml")
    monkeypatch.chdir(folder / "elsewhere")
    assert replayed(said) == 2
    assert f"{ODD!a}"[1:-1] in capsys.readouterr().err
    assert replayed(said, "--scenario", "moved.toml") == 1


def test_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", f"{ODD}.py:lost", "--report", ODD]) == 1
    assert replayed(capsys.readouterr().out) == 1


@pytest.mark.parametrize(
    "argv",
    [
        ["check", f"{ODD}.py"],
        ["compare", "--html", f"{ODD}/no/x.html"],
        ["matrix", "--read", f"{ODD}.toml"],
        ["replay", f"{ODD}.toml"],
        ["log", "stats", f"{ODD}.toml"],
        ["guest", "--connect", ODD],
        ["fleet", f"{ODD}/no.toml"],
        ["soak", "--minutes", "1", "--report", f"{ODD}/no/x.html"],
        ["serve", "--scenario", f"{ODD}.py"],
        ["step", f"{ODD}.toml"],
    ],
)
def test_what_is_wrong_with_it_is_one_line(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_it_is_shown_as_the_bytes_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vkemu", "run", f"{ODD}.toml", "--runs", ODD],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stdout.endswith(b"\ncaf\xe9/caf--1\n")


@given(st.binary().filter(lambda raw: b"\0" not in raw))
def test_a_token_gives_back_any_name(raw: bytes) -> None:
    name = os.fsdecode(raw)
    word = written(name)
    word.encode()
    assert path_of(word) == name

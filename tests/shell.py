from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from vkemu import assemble
from vkemu.cli import main

from tests.cli import fake

TWO_GUESTS = """\
[[guest]]
name = "g1"
memory = "1M"
workloads = ["idle"]

[[guest]]
name = "g2"
memory = "1M"
workloads = ["idle"]
"""


@dataclass
class Shell:
    """`vkemu` in an empty folder."""

    cwd: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        status = main(argv)
        out, err = self.capsys.readouterr()
        return status, out, err

    def write(self, name: str, text: str | bytes) -> str:
        raw = text if isinstance(text, bytes) else text.encode()
        (self.cwd / name).write_bytes(raw)
        return name


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


@pytest.fixture
def fake_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scenario runs on the fake machine, whatever its guests are."""
    monkeypatch.setattr(assemble, "assemble", fake.assemble)

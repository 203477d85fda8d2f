"""`vkemu` as a user types it, and the scenario most tests type it for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from vkemu.commands.cli import main

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

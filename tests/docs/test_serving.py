"""docs/serving.md: its worked example is run, its tables are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from vkemu.serving.limits import LIMITS, Limits

from tests.style.source import ROOT

PAGE = (ROOT / "docs" / "serving.md").read_text()


def test_every_limit_is_there_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+ ?\w*) \|", PAGE, re.MULTILINE))
    assert rows.keys() == LIMITS.keys()
    units = {"512G": 512 << 30, "1 MiB": 1 << 20}
    for name, told in rows.items():
        assert getattr(Limits(), name) == units.get(told) or int(told) == getattr(Limits(), name)


@pytest.mark.slow
def test_the_worked_example(tmp_path: Path) -> None:
    (block,) = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    script = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    # A host is there when it says so; the shell of a reader takes its time, this one does not.
    script.insert(1, "until [ -S /tmp/vk.sock ]; do sleep 0.1; done")
    text = "\n".join(script).replace("/tmp/vk.sock", str(tmp_path / "vk.sock"))
    text = text.replace("vkemu ", f"{sys.executable} -m vkemu ")
    done = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, timeout=120, check=True,
        # Host and guest print at once: with it a line and its end are written one by one.
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )  # fmt: skip
    assert "1 touch status 0 registers c4b2fd3363bc4002\n" in done.stdout
    assert "0 guests, 1 peers, 1 served\n" in done.stdout
    assert re.search(r"^pass: 2 guests, [\d,]+ steps$", done.stdout, re.MULTILINE)
    assert "'one': done\n" in done.stderr
    assert "'two': done\n" in done.stderr

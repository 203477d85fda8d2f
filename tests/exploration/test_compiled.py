"""`make compiled`: what mypyc makes of the reductions' inner loops finds what Python finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOUND = """
from functools import partial
from vkemu.exploration import explore
from vkemu.exploration.reduction import trace
from tests.exploration import divided
from vkemu.litmus.decide import Test
from vkemu.litmus.file import load_litmus
print(trace.__file__.endswith(".py"))
for program in (partial(divided.lastzero, n=7), divided.lost_update, divided.locks, divided.watched,
                divided.naps, Test(load_litmus("W29"), "bloom"),
                Test(load_litmus("W07"), "vptmapped")):
    for strategy in ("dpor", "source-dpor"):
        r = explore(program, strategy=strategy, stop_on_failure=False)
        print(r.executions, r.blocked, r.steps, r.failures, r.failure and r.failure.token)
"""


def found(root: Path) -> list[str]:
    path = os.pathsep.join(str(root / part) for part in ("", "protocol", "tools"))
    done = subprocess.run(
        [sys.executable, "-P", "-c", FOUND], env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.long
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_compiled_finds_the_same(tmp_path: Path) -> None:
    for part in ("protocol", "tools", "vkhost", "vkguest", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "build")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    # What make goes by is the venv's age, and the copies are younger.
    ready = ["--assume-old=pyproject.toml", "--assume-old=requirements.lock"]
    (tmp_path / "requirements.lock").touch()
    subprocess.run(["make", *ready, "compiled"], cwd=tmp_path, check=True)
    pure, compiled = found(ROOT), found(tmp_path)
    assert (pure[0], compiled[0]) == ("True", "False")
    assert compiled[1:] == pure[1:]

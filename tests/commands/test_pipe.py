"""Whoever reads the output may stop (`| head`): the exit status is the verdict's all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.subjects import REF_KEPT

MANY = """
def many(k):
    x = k.cell("x")
    async def work():
        for _ in range(300):
            await x.add(1)
        assert False
    k.spawn("a", work)
"""
SIGPIPE = 141


def unread(*argv: str) -> tuple[int, str]:
    """Status and errors of a command whose output nobody reads."""
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "vkemu", *argv],
            stdout=out, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(REF_KEPT)
    Path("m.py").write_text(MANY)
    Path("empty").write_text("")
    event = {"event": "console", "seq": 0, "t": 0, "actor": "a", "text": "x" * 200}
    Path("log").write_text(f"{json.dumps(event)}\n" * 500)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (("run", "s.toml"), 1),
        (("run", "s.toml", "--max-steps", "20"), 3),
        (("explore", "m.py:many"), 1),
        (("explore", "W24", "--json"), 0),
        (("mutants", "--list"), SIGPIPE),
        (("mutants", "--list", "--json"), 0),
        (("compare", "--quick", "--axis", "vcpus", "--policies", "pv_entry"), 0),
        (("log", "check", "empty"), 0),
        (("log", "show", "log"), SIGPIPE),
        (("log", "shipped"), SIGPIPE),
    ],
)
def test_the_status_is_the_verdict(argv: tuple[str, ...], status: int) -> None:
    """It was 0, whatever was found."""
    assert unread(*argv) == (status, "")

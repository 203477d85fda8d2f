"""`vkemu explore` as it is typed, in a folder with a few programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vkemu.commands.cli import main

PROGRAM = """
import os, signal, time
import vkemu

def lost(k):
    x = k.cell("x")
    async def increment():
        await x.store(await x.load() + 1)
    k.spawn("a", increment)
    k.spawn("b", increment)
    k.at_end(lambda: x.value == 2)

def fine(k, names="ab"):
    x = k.cell("x")
    for name in names:
        k.spawn(name, x.add, 1)
    k.at_end(lambda: x.value == len(names))

def many(k):
    fine(k, "abcdefgh")

async def thread(k):
    n = 0
    x = k.cell("x")
    async def increment():
        nonlocal n
        await x.load()
        n += 1
    threads = [k.spawn(name, increment) for name in "ab"]
    for thread in threads:
        await k.join(thread)
    assert n == 2

@vkemu.explored(strategy="random")
async def test_thread(k):
    await thread(k)

def endless(k):
    x = k.cell("x")
    async def spin():
        while True:
            await x.add(1)
    k.spawn("a", spin)

builds = 0

def interrupted(k):
    global builds
    builds += 1
    if builds == 50:
        os.kill(os.getpid(), signal.SIGINT)
    many(k)

def slow(k):
    deadline = time.monotonic() + 0.01
    while time.monotonic() < deadline:
        pass
    many(k)

def wrong(k):
    k.spawm("a", None)

def threadless(k):
    pass

def two(k, more):
    pass

constant = 5
"""


class Shell:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        status = main(["explore", *argv])
        out, err = self.capsys.readouterr()
        return status, out, err

    def json(self, *argv: str) -> tuple[int, Any]:
        status, out, err = self(*argv, "--json")
        assert err == ""
        return status, json.loads(out)


@pytest.fixture
def explore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    Path("p.py").write_text(PROGRAM)
    return Shell(capsys)

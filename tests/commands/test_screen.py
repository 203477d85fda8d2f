"""On a terminal: as wide as it is, and failures in colours."""

from __future__ import annotations

import os
import pty
import re
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path

import pytest
from vkemu.commands import screen
from vkemu.commands.arguments import token_in
from vkemu.commands.cli import main
from vkemu.launch.outcome import Outcome
from vkemu.record.token import in_a_file
from vkemu.report.told import Told
from vkemu.report.trial import Record

ESCAPE = re.compile(r"\x1b\[[\d;]*m")
On = Callable[..., str]
PROGRAM = """\
def lost(k):
    x = k.cell("x")
    async def increment():
        value = await x.load()
        await x.store((value or 0) + 1)
    for n in range(4):
        k.spawn(f"a thread with a long name {n}", increment)
    k.at_end(lambda: x.value == 4)
"""
TASKS = """\
import trio

async def test_lost():
    total = 0
    async def add():
        nonlocal total
        seen = total
        await trio.lowlevel.checkpoint()
        total = seen + 1
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(add)
    assert total == 3
"""


def read_all(terminal: FileIO) -> Iterator[bytes]:
    """A pty ends with an error once nobody has its other side."""
    with suppress(OSError):
        while True:
            yield terminal.read(1 << 16)


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> On:
    """What a command shows on a terminal of so many columns."""
    monkeypatch.chdir(tmp_path)
    Path("p.py").write_text(PROGRAM)
    Path("t.py").write_text(TASKS)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def shown(columns: int, *argv: str, status: int = 1) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert main(argv) == status
        with os.fdopen(ours, "rb", 0) as terminal_read:
            said = b"".join(read_all(terminal_read)).decode()
        return said.replace("\r\n", "\n")

    return shown


@pytest.mark.parametrize(
    ("file", "columns"),
    [*(("p.py:lost", n) for n in (40, 60, 80, 300)), ("t.py::test_lost", 40)],
)
def test_a_failure_fits_the_terminal(on: On, file: str, columns: int) -> None:
    table = ESCAPE.sub("", on(columns, "explore", file)).partition("\n\n")[2]
    body = [line for line in table.splitlines() if "vkx1." not in line]

    assert body
    assert max(map(len, body)) <= columns


def test_a_failure_is_coloured(on: On) -> None:
    said = on(120, "explore", "p.py:lost")

    assert re.search(r"\x1b\[1;31m[^\x1b]*fail: p:lost", said)
    assert re.search(r"\x1b\[1;31mBUG: vkemu: does not hold", said)


def test_no_color_is_respected(on: On, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert not re.search(r"\x1b\[[\d;]*3[0-7]m", on(80, "explore", "p.py:lost"))


def test_elsewhere_it_is_plain(on: On, capsys: pytest.CaptureFixture[str]) -> None:
    coloured = on(120, "explore", "p.py:lost")
    assert main(["explore", "p.py:lost"]) == 1
    plain = capsys.readouterr().out

    seconds = re.compile(r"\d\.\d\d s")
    assert seconds.sub("", ESCAPE.sub("", coloured)) == seconds.sub("", plain)


def test_what_passes_has_no_colours(on: On) -> None:
    assert "\x1b" not in on(80, "explore", "W01", status=0)


def test_a_token_too_long_to_be_pasted_is_a_file(on: On) -> None:
    short, long = "vk1." + "a" * 400, "vk1." + "b" * 600
    assert in_a_file(short, "s") == ""
    name = in_a_file(long, "s")
    assert token_in(name) == long

    told = Told(f"unknown: no end\n\n replay: vkemu replay {long}\n")
    assert screen.of(told, name) == f"unknown: no end\n\n replay: vkemu replay {name}\n"


def test_a_run_with_a_long_token_is_replayed_by_its_folder() -> None:
    outcome = Outcome("fail", array("H"))
    done = Record(Path("my runs/s-1"), {"token": "vk1." + "b" * 600}, outcome, None)
    assert done.kept == "'my runs/s-1'"
    assert replace(done, not_kept="not kept: no space").kept == ""
    assert replace(done, summary={"token": "vk1.abc"}).kept == ""

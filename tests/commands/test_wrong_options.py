"""Options of `serve` and `guest` drawn from their own parsers: whatever is typed is taken, or is
one line and status 2; nothing is served or connects before all of it is right."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vkemu.commands import guest, serve
from vkemu.commands.cli import main
from vkemu.serving.limits import LIMITS

from vkguest.vkernel64.options import DEPRECATED_IMAGE

START = {
    "serve": ("--socket", "s"),
    "guest": ("--socket", "s", "-m", "64M", "--run", "touch"),
}
SAYS = re.compile("expected|Bad |not emulated|-m|takes|Failed to create|unrecognized")
COMMANDS: dict[str, Any] = {"serve": serve, "guest": guest}


@pytest.fixture(scope="module", autouse=True)
def nothing_starts() -> Iterator[None]:
    """What comes once the options are right: a host, a connection."""
    ended = {"verdict": "pass", "guests": 0, "steps": 0}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(serve, "serve", lambda *_: (dict(ended), ""))
        patch.setattr(guest, "on_backend", lambda *_: None)
        patch.chdir(folder)
        Path("text").write_text("x = 1\n")
        Path("binary").write_bytes(bytes(range(256)))
        Path("folder").mkdir()
        Path("token").write_text("0123456789abcdef\n")
        yield


def options_of(command: str) -> list[argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    COMMANDS[command].add_arguments(parser)
    return parser._actions


WORDS = st.one_of(
    st.sampled_from(
        ["", " ", "-", "--", "=", ":", "nope", "a b", "a\nb", "0", "-1", "1", "1.5", "nan", "inf",
         "1e400", "9" * 30, "9" * 5000, "٣", "0x10", "é", os.fsdecode(b"\xff"), "x" * 5000,
         "text", "binary", "folder", "token", "no/where", "/proc/nothing", "/dev/null",
         "tcp:127.0.0.1:0", "tcp:127.0.0.1:99999999", "tcp:1.2.3.4:80", "tcp::1", "tcp:[::1]:1",
         "unix:", "unix:s", "unix:" + "s" * 200, "guests=0", "guests=", "guests=9", "=9",
         "memory=1M", "host.pages=300", "host.pages=-1", "host=1", "guest=[]", "policy=1",
         "touch:pages=0", "touch:pages=1000", "touch:", "64M", "64m:x", "0100M", "512G", "1:2:3",
         "2:9", "9:1", "::", "late-ipi", "late-ipi:at=1", "kill:guest=nope", "wired", "2020"]
    ),
    st.text(max_size=5).filter(lambda text: "\0" not in text),
)  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from(sorted(COMMANDS)))
    argv = [command, *START[command]]
    for action in draw(st.lists(st.sampled_from(options_of(command)), min_size=1, max_size=3)):
        if isinstance(action, argparse._HelpAction):
            continue
        argv += action.option_strings[-1:]
        if action.nargs != 0:
            argv.append(draw(WORDS))
    return argv


def told(argv: list[str]) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(argv)
    return status, err.getvalue()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines())
def test_whatever_is_typed_is_taken_or_is_one_line(argv: list[str]) -> None:
    status, err = told(argv)
    assert status in (0, 2), (argv, err)
    if status == 2:
        said = err.removeprefix(f"{DEPRECATED_IMAGE}\n").removesuffix("\n")
        assert "\n" not in said, argv
        assert len(err) < 2_000
        assert SAYS.search(err), err


WRONG = {
    "serve": {
        "--policy": ("", "best"),
        "--mutant": ("", "nope"),
        "--set": ("", "x", "host.pages=-1", "host.pages=x", "nope=1"),
        "--guests": ("0", "-1", "x", ""),
        "--time-scale": ("0", "-1", "nan", "inf", "x", ""),
        "--listen": ("", "s", "tcp:1", "tcp::1", "tcp:127.0.0.1:99999", "tcp:127.0.0.1:1"),
        "--token-file": ("no/where", "folder", "text", "binary"),
        "--tls-cert": ("no/where", "folder", "text", "binary"),
        "--limit": ("", "nope=1", *(f"{name}=x" for name in LIMITS), "guests=0", "share=101"),
        "--drain": ("-1", "nan", "x"),
        "--idle": ("-1", "nan", "x"),
    },
    "guest": {
        "--run": ("", "nope", "touch:pages=x", "touch:pages=9999"),
        "--program": ("no/where", "folder", "binary", "text"),
        "--name": ("", "x" * 999),
        "--swap": ("", "x", "-1", "4097", "64M", "1T"),
        "--patience": ("0", "-1", "nan", "inf", "x"),
        "--token-file": ("no/where", "folder", "text", "binary"),
        "--tls-ca": ("no/where", "folder", "text", "binary"),
        "-m": ("", "x", "64", "62M", "65M", "1024G", "-64M"),
        "-n": ("", "0", "99", "x", "1:2:3:4", "2:9"),
        "-c": ("x",),
    },
}


@pytest.mark.parametrize(
    ("command", "option"), [(command, o) for command in WRONG for o in WRONG[command]]
)
def test_what_it_cannot_take(command: str, option: str) -> None:
    for value in WRONG[command][option]:
        status, err = told([command, *START[command], option, value])
        assert (status, len(err.splitlines())) == (2, 1), (value, err)

"""Ctrl-C and budgets: every command ends at once, and says what it knows."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from vkemu import explore
from vkemu.commands.cli import main
from vkemu.executors.deadline import GRACE, TimeIsUp, within
from vkemu.record import rundir

from tests.shell import TWO_GUESTS, Shell

PROGRAM = """
import threading

def spin(k):
    x = k.cell("x", 0)
    async def a():
        await x.store(1)
        while True:
            pass  # here
    k.spawn("a", a)

def contended(k):
    x = k.cell("x", 0)
    python = threading.Lock()
    async def a():
        with python:  # here
            await x.store(1)
    k.spawn("a", a)
    k.spawn("b", a)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("function", "line"), [("spin", 9), ("contended", 16)])
def test_code_that_never_comes_to_an_effect_is_ended_at_the_budget(
    function: str, line: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("p.py").write_text(PROGRAM)

    assert main(["explore", f"p.py:{function}", "--max-seconds", "0.1"]) == 3
    said = capsys.readouterr().out
    place = said.rpartition("bound: 0.1 s, the last of them without a step, at p.py:")[2]
    assert int(place) in (line, line - 1)


def test_a_budget_ends_an_execution_in_the_middle() -> None:
    def endless(k) -> None:  # type: ignore[no-untyped-def]
        x = k.cell("x", 0)

        async def load() -> None:
            while True:
                await x.load()

        k.spawn("a", load)

    for strategy in ("random", "pos", "dfs", "dpor"):
        found = explore(endless, strategy=strategy, max_seconds=0.05, max_steps=10**9)
        assert (found.verdict, found.bound) == ("unknown", "0.05 s"), strategy
        assert found.steps > 0


def test_a_budget_is_not_lost_in_a_callback_of_the_collector() -> None:
    rung: list[float] = []

    def slow(phase: str, _: object) -> None:
        while phase == "start" and time.monotonic() < began + 0.02 + GRACE:
            rung.append(time.monotonic())

    def collect() -> None:
        gc.collect()
        threading.Event().wait(20 * GRACE)

    began = time.monotonic()
    gc.callbacks.append(slow)
    try:
        with pytest.raises(TimeIsUp), within(0.01, lambda: 0):
            collect()
    finally:
        gc.callbacks.remove(slow)
    assert rung


def test_a_timer_of_somebody_else_is_left_alone() -> None:
    def later(*_: object) -> None:
        raise AssertionError("too early")

    before = signal.signal(signal.SIGALRM, later)
    try:
        signal.setitimer(signal.ITIMER_REAL, 100)
        with pytest.raises(TimeIsUp), within(0.01, lambda: 0):
            threading.Event().wait(20 * GRACE)
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        assert 90 < left < 100
        assert signal.getsignal(signal.SIGALRM) is later
        with within(200, lambda: 0):  # it rings first: not ours to use
            assert signal.getsignal(signal.SIGALRM) is not later
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_default_budget_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vkemu.commands.explore.SECONDS_DEFAULT", 0.2)
    Path("p.py").write_text(PROGRAM)

    assert main(["explore", "p.py:spin"]) == 3
    assert "(the default, see --max-seconds)" in capsys.readouterr().out


@pytest.fixture
def typed() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "mixed", "--seeds", "100000"], "interrupted: mixed, seed"),
        (["explore", "quickstart", "--strategy", "random"], "bound: interrupted"),
        (["matrix", "--jobs", "1"], "cells are decided, the rest is not"),
        (["mutants", "--jobs", "1"], "were not judged"),
        (["run", "fleet", "--live"], "interrupted: fleet, seed"),
        *(
            pytest.param(words.split(), said, marks=pytest.mark.long)
            for words, said in {
                "run fleet --live --backend asyncio": "interrupted: fleet, seed",
                "run mixed --seeds 100000 --jobs 2": "interrupted: mixed, seed",
                "explore quickstart --strategy random --jobs 2": "bound: interrupted",
                "matrix --jobs 2": "cells are decided, the rest is not",
                "mutants --jobs 2": "were not judged",
                "compare --jobs 1": "series are measured",
                "compare --jobs 2": "series are measured",
                "check vptmapped --jobs 2": "are done",
                "coverage --jobs 2": "are done",
                "soak --minutes 5": "worst wait",
            }.items()
        ),
    ],
    ids=lambda words: "-".join(words) if isinstance(words, list) else "",
)
def test_ctrl_c_ends_it_and_says_what_is_known(
    words: list[str], said: str, typed: list[subprocess.Popen[str]]
) -> None:
    script = "import sys; from vkemu.commands.cli import main; print('up', flush=True); "
    script += "sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    typed.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    # It is at work when it has used some time of a processor.
    while busy(process.pid) < 1.5 and process.poll() is None:
        os.sched_yield()
    before = own(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    out = process.stdout.read()
    process.stdout.close()
    assert said in out, out
    assert process.returncode in (130, 3, 1) or words[0] == "soak", out
    # Within a second, of the processor: how long that takes is for the machine to say.
    assert used.ru_utime + used.ru_stime - before < 1, out
    assert "Traceback" not in out


def own(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy(group: int) -> float:
    """Seconds of processor time that the processes of a group have used."""
    used = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12]) if int(fields[2]) == group else 0
    return used / os.sysconf("SC_CLK_TCK")


@pytest.mark.usefixtures("fake_machine")
def test_a_full_disk_takes_no_verdict(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shell.write("two.toml", TWO_GUESTS)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/.x")

    monkeypatch.setattr(rundir.RunFolder, "write_json", full)
    status, out, _ = shell("run", path, "--policy", "vptmapped", "--seeds", "50")

    assert status == 1
    assert "replay: vkemu replay vk1." in out
    assert "not kept: runs/.x: No space left on device" in out
    status, out, _ = shell("run", path, "--json")
    assert json.loads(out)["verdict"] == "pass"

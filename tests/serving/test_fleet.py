"""`vkemu fleet`: host and guests as processes, what became of each, and how they are ended."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from vkemu.commands.cli import main
from vkemu.commands.fleet import tell, worst
from vkemu.verdict import Status

from tests.serving.test_commands import command

HEAD = "[host]\npages = 300\n"
GUEST = '[[guest]]\nname = "{}"\nmemory = "256K"\nvcpus = {}\n'
SPIN = '[[guest.process]]\nprogram = "beq r0, r0, 0"\n'
TWO = (
    GUEST.format("one", 2)
    + 'workloads = ["touch:pages=2,rounds=1", "forkcow"]\n'
    + GUEST.format("two", 1)
    + 'workloads = ["random:ops=4"]\n'
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "small.toml"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "status", "verdict"),
    [((), Status.PASS, "pass"), (("--mutant", "run-ref-kept"), Status.VIOLATION, "fail")],
)
def test_host_and_guests_of_a_scenario(
    more: tuple[str, ...],
    status: Status,
    verdict: str,
    file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file.write_text(HEAD + TWO)

    assert main(["fleet", str(file), "--json", *more]) == status

    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], list(told["guests"])) == (verdict, ["one", "two"])
    assert told["host"]["said"]["verdict"] == verdict
    if status == Status.PASS:
        assert told["host"]["said"]["guests"] == 2
        assert [guest["status"] for guest in told["guests"].values()] == [0, 0]
        assert told["guests"]["one"]["said"]["results"]["1"]["comm"] == "touch"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_sixteen_guests_of_sixty_four_vcpus(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guests = "".join(
        GUEST.format(f"g{n}", 64).replace("256K", "2M") + 'workloads = ["touch:pages=1,rounds=1"]\n'
        for n in range(16)
    )
    file.write_text(f"[host]\npages = 9000\n{guests}")

    assert main(["fleet", str(file), "--json"]) == Status.PASS

    told = json.loads(capsys.readouterr().out)
    assert told["host"]["said"]["guests"] == 16
    assert [guest["status"] for guest in told["guests"].values()] == [0] * 16


@pytest.mark.slow
def test_a_guest_that_dies_is_said_and_a_signal_ends_the_rest(file: Path) -> None:
    file.write_text(HEAD + GUEST.format("dies", 1) + SPIN + GUEST.format("spins", 1) + SPIN)
    with command("fleet", str(file), "--json") as fleet:
        assert fleet.stderr is not None
        pid = 0
        booted: set[str] = set()
        while len(booted) < 2:
            name, _, text = fleet.stderr.readline().rstrip().partition(": ")
            if text.startswith("process ") and name == "dies":
                pid = int(text.removeprefix("process "))
            if text.startswith("Using anonymous memory"):
                booted.add(name)
        os.kill(pid, signal.SIGKILL)
        while fleet.stderr.readline() != "dies: killed by SIGKILL\n":
            pass
        fleet.send_signal(signal.SIGINT)
        out, _ = fleet.communicate(timeout=50)

    told = json.loads(out)
    assert (fleet.returncode, told["verdict"], told["stopped"]) == (Status.UNKNOWN, "unknown", True)
    assert told["guests"]["dies"]["signal"] == "SIGKILL"
    assert told["guests"]["spins"]["status"] == Status.UNKNOWN
    assert "the host shuts down" in told["guests"]["spins"]["ending"]
    assert told["host"]["status"] == 0


def test_a_guest_with_a_disk_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", "x86-sort"]) == Status.USAGE
    assert "has a disk, expected none in a process of its own" in capsys.readouterr().err


def test_the_worst_is_told() -> None:
    assert worst([0, 0]) == "pass"
    assert worst([0, -9]) == worst([0, None]) == worst([0, 3]) == "unknown"
    assert worst([0, 3, 1]) == "fail"


def test_a_line_that_nobody_reads_leaves_nobody_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of standard error went away: a fleet ended there, and its children did not."""

    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    tell("one: killed by SIGKILL")

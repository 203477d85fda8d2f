"""A failure in machine code names the program, the function and the line of its source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.scenario import SHIPPED, load
from vkemu.report.code_line import place_of
from vkemu.report.told import watch
from vkemu.report.trial import attempt

from tests.shell import Shell
from vkguest.kern.imgact_elf import elf_image

ROOT = Path(__file__).parents[2]


def test_an_address_has_a_function_and_a_line() -> None:
    image = elf_image("cc", (SHIPPED / "x86/cc.elf").read_bytes())
    where = place_of(image, 0x40018D)

    assert where == "0x40018d, main+0x46, tests/x86/programs/cc.c:12"
    assert "heap" in (ROOT / "tests/x86/programs/cc.c").read_text().splitlines()[11]
    assert ", _start+0x0, tests/x86/programs/vk.h:" in place_of(image, image.entry)
    assert place_of(image, 0x1234) == "0x1234"


def test_the_console_shows_what_programs_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = Shell(tmp_path, capsys)("run", "x86-hello", "--console")

    assert status == 0
    assert out.startswith("g1: Using anonymous memory (1 MB)\nhello, vkernel\n")
    assert "g1: pid 1: system call 999 is not there: ENOSYS\n" in out


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["extent_scan", "vptmapped"])
def test_buildworld_fails_on_maps_that_cannot_see_vptes(policy: str) -> None:
    scenario = load("buildworld-lite", [f"policy={policy}"])
    for seed in (1, 2):
        outcome = attempt(scenario, seeded(seed))
        assert outcome.verdict == "fail"
        *_, lines = watch(scenario, outcome, outcome.steps)

        assert lines
        for line in lines:
            assert re.search(
                r" (runs|ran) \w+ \(pid \d+\) at 0x.*, tests/x86/programs/\S+:\d+$", line
            )


@pytest.mark.long
def test_its_failure_text_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, _ = Shell(tmp_path, capsys)(
        "run", "buildworld-lite", "--policy", "vptmapped", "--seed", "2"
    )

    assert status == 1, out
    assert " code:   g1.0 " in out


@pytest.mark.long
def test_buildworld_shows_the_race_of_2017() -> None:
    """A walk against an INVAL, with the interlock off (W01); with it the same seed passes."""
    without = load("buildworld-lite", ["host.interlock=false"])
    shows_it_today = 19
    found = (
        n for n in (shows_it_today, *range(1, 51)) if attempt(without, seeded(n)).verdict == "fail"
    )
    seed = next(found)

    error = str(attempt(without, seeded(seed)).error)
    assert re.search("no stale translation|inval.begin of event .* still maps", error), error
    assert attempt(load("buildworld-lite"), seeded(seed)).verdict == "pass"

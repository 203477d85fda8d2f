"""`vkemu soak`: a short one, a defect it finds, and what it calls growth."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from vkemu.commands.cli import main
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.soak.page import render
from vkemu.soak.samples import SLACK, Sample, growth, judgeable
from vkemu.soak.soak import Soak, host
from vkemu.soak.verdict import verdict_line
from vkemu.soak.visitors import ENDED
from vkemu.verdict import Status

from tests.serving.test_commands import command

CALM = Sample(
    seconds=0.0,
    resident_bytes=50 << 20,
    threads=30,
    descriptors=10,
    guests=6,
    queued=4,
    unsent=0,
    free_pages=40,
    served=1,
    latency=0.001,
    worst=0.01,
)


def soaked(backend: str, enough: Callable[[Soak], bool], mutants: Sequence[str] = ()) -> Any:
    """The report of a soak that lasts until it has seen enough."""
    found: dict[str, Any] = {}

    async def main() -> None:
        soak = Soak(host("pv_entry", [*mutants], []), 600.0, 1)

        async def watch() -> None:
            while not enough(soak):
                await anyio.lowlevel.checkpoint()
            soak.stop()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await soak.main()
        soak.live.close()
        found.update(soak.report())

    on_backend(backend, main)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_short_soak(backend: str) -> None:
    report = soaked(backend, lambda soak: soak.visits[ENDED] >= 2 and soak.visits["killed"] >= 1)

    assert (report["verdict"], report["reasons"]) == ("pass", [])
    assert report["samples"]
    assert not report["growth_judged"]
    html = render(report)
    assert html.count("<svg") == html.count("</svg>") == 6
    assert "http" not in html  # nothing from elsewhere
    assert "too short to judge growth" in html


@pytest.mark.slow
def test_a_defect_is_found() -> None:
    report = soaked("trio", lambda soak: bool(soak.server.containment.violations), ["run-ref-kept"])

    assert report["verdict"] == "fail"
    assert re.match(r"v\d-\d+: invariant 10", report["reasons"][0])
    assert verdict_line(report).startswith("fail: pv_entry, seed 1")


@pytest.mark.slow
def test_told_to_stop_it_says_what_it_knows() -> None:
    with command("soak", "--minutes", "60") as soak:
        assert soak.stderr is not None
        assert soak.stderr.readline() == "soaking: 60 minutes, Ctrl-C to end it\n"
        soak.send_signal(signal.SIGINT)
        out, _ = soak.communicate(timeout=50)
    assert soak.returncode in (Status.PASS, Status.UNKNOWN)
    assert "too short to judge growth" in out


def test_a_soak_without_a_guest_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "soak.html"
    line = ["soak", "--minutes", "0.005", "--policy", "removed", "--report", str(page)]
    assert main(line) == Status.UNKNOWN
    assert capsys.readouterr().out.startswith("no guest ran to its end\nunknown: removed")
    assert "no guest ran to its end" in page.read_text()


@pytest.mark.parametrize("what", SLACK)
def test_growth_is_seen(what: str) -> None:
    start, slack = getattr(CALM, what), SLACK[what]
    grown = [
        msgspec.structs.replace(CALM, seconds=float(n), **{what: start + n * slack // 10})
        for n in range(60)
    ]
    once = [  # what is made in the first third, and stays
        msgspec.structs.replace(CALM, seconds=float(n), **{what: start + min(n, 20) * slack})
        for n in range(60)
    ]

    assert judgeable(grown)
    assert [line.split()[0] for line in growth(grown)] == [what]
    assert growth(once) == []


def test_a_few_samples_are_not_judged() -> None:
    assert not judgeable([])
    assert not judgeable([CALM] * 100)

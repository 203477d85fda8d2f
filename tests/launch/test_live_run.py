"""Whole scenarios: the event log is the same, byte for byte, whoever runs the schedule."""

from __future__ import annotations

import json
import re
from array import array
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from vkemu.books.quiet import QuietBooks
from vkemu.commands.cli import main
from vkemu.executors.backend import BACKENDS, on_backend
from vkemu.executors.live import Live
from vkemu.inspect.reader import Log
from vkemu.launch.assemble import assemble
from vkemu.launch.outcome import WrongMemory
from vkemu.launch.scenario import Guest, Host, Scenario
from vkemu.record.log import EventLog

backends = pytest.mark.parametrize("backend", BACKENDS)

TWO_GUESTS = Scenario(
    name="two",
    policy="vptmapped",
    host=Host(pages=300, cpus=3),
    guest=(
        Guest(name="g1", memory="2M", vcpus=2, workloads=("touch:pages=2,rounds=1",)),
        Guest(name="g2", memory="2M", vcpus=1, workloads=("touch:pages=1,rounds=1",)),
    ),
)
TEXT = """
policy = "pv_entry"
host.pages = 300
[[guest]]
name = "g1"
memory = "2M"
vcpus = 1
workloads = ["touch:pages=1,rounds=1"]
"""


@pytest.mark.slow
@backends
def test_an_imposed_schedule_writes_the_same_log(backend: str, tmp_path: Path) -> None:
    random, choices = Random(7), array("H")

    def choose(runnable: list[int]) -> int:
        choices.append(random.choice(runnable))
        return choices[-1]

    with (tmp_path / "controlled").open("wb") as out:
        machine = assemble(TWO_GUESTS, EventLog(out, "two", choices))
        machine.execution.run(choose, 100_000)
    machine.execution.close()

    live = Live(schedule=choices, record=True)
    assert live.schedule is not None
    with (tmp_path / "live").open("wb") as out:
        again = assemble(TWO_GUESTS, EventLog(out, "two", live.schedule), live)
        on_backend(backend, live.run)
    live.close()

    assert live.schedule == choices
    assert (tmp_path / "live").read_bytes() == (tmp_path / "controlled").read_bytes()
    assert (tmp_path / "live").stat().st_size > 100_000
    assert [g.results for g in again.guests] == [g.results for g in machine.guests]


@pytest.mark.slow
@backends
def test_a_live_run_is_recorded_and_replays(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.toml").write_text(TEXT)

    assert main(["run", "one.toml", "--live", "--backend", backend]) == 0
    first = Path("runs/latest/events.ndjson").read_bytes()
    assert main(["replay", "runs/latest"]) == 0
    assert Path("runs/latest/events.ndjson").read_bytes() == first


@pytest.mark.slow
def test_a_live_run_shows_its_events_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are those of its record, but for the clocks, which only the record has."""
    monkeypatch.chdir(tmp_path)
    Path("one.toml").write_text(TEXT)

    assert main(["run", "one.toml", "--live", "--events"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    recorded = list(Log(Path("runs/latest")).events())
    for event in recorded:
        event.pop("vc")
    assert shown == recorded


def many_vcpus(guests: int, each: int) -> str:
    guest = """
[[guest]]
name = "g{}"
memory = "2M"
vcpus = {}
workloads = ["touch:pages=1,rounds=1"]
"""
    head = 'policy = "pv_entry"\nhost.pages = 9000\n'
    return head + "".join(guest.format(n, each) for n in range(guests))


@pytest.mark.parametrize(
    ("guests", "each"),
    [
        pytest.param(2, 34, marks=pytest.mark.slow),
        pytest.param(16, 64, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
def test_more_vcpus_than_a_word_has_bits(
    guests: int,
    each: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mask of CPUs is then written as text, which every reader of a log takes."""
    monkeypatch.chdir(tmp_path)
    Path("many.toml").write_text(many_vcpus(guests, each))

    assert main(["run", "many.toml", "--live"]) == 0
    log = Path("runs/latest/events.ndjson").read_text()
    wide = max(re.findall(r'"mask":"(0x[0-9a-f]+)"', log), key=len)
    assert 1 << 64 < int(wide, 16) < 1 << guests * each
    assert main(["log", "check", "runs/latest"]) == 0
    asked = f"SELECT mask FROM events WHERE mask = '{wide}' LIMIT 1"
    assert main(["log", "query", "runs/latest", asked, "--csv"]) == 0
    assert main(["log", "show", "runs/latest", "event=cpu.active"]) == 0
    assert capsys.readouterr().out.count(wide) > 1


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_the_books_are_looked_at_again_only_where_they_were_wrong(
    wrong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of a replay's time went into what the live run had just looked at."""
    looks = []

    def look(self: QuietBooks, which: int, check: object) -> None:
        looks.append(self.shadow.step)
        self._next[which] = self.shadow.step + 1000
        if wrong:
            raise WrongMemory("books")

    monkeypatch.setattr(QuietBooks, "_look", look)
    monkeypatch.chdir(tmp_path)
    Path("one.toml").write_text(TEXT.replace("pages=1,rounds=1", "pages=8,rounds=8"))

    assert main(["run", "one.toml", "--live"]) == int(wrong)
    again = sum(one >= two for one, two in pairwise(looks))
    assert looks
    assert bool(again) is wrong

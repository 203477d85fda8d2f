"""What a real run leaves behind: logs that read, clocks that agree, reports that are there."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from vkemu.commands.cli import main
from vkemu.executors.chance import seeded
from vkemu.executors.controlled import Choose, Execution
from vkemu.inspect.check import check
from vkemu.inspect.export import FORMATS
from vkemu.inspect.reader import Log
from vkemu.inspect.windows import windows
from vkemu.launch import assemble
from vkemu.launch.outcome import Recorder, conduct, recorded
from vkemu.launch.scenario import load
from vkemu.report.recording import Recording
from vkemu.report.trial import Origin, Record, record

from tests.report.agree import same_numbers

Run = Callable[[str], Record]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("runs")
    choose: Choose = seeded(1)

    def make(name: str) -> Record:
        return record(load(name), choose, Origin(name, (), "random", 1), root)

    return make


@pytest.mark.slow
def test_the_log_of_a_run_that_passes(run: Run) -> None:
    done = run("late-enter")
    log = Log(done.folder)
    events = list(log.events())

    assert done.outcome.verdict == "pass"
    assert check(log).violation is None
    assert not check(log).missing
    assert any(window.kind == "walk-to-enter" for window in windows(log))
    assert not any(window.kind == "free-to-unmap" for window in windows(log))
    for event in events:
        assert event["step"] == 0 or event["vc"][event["actor"]] > 0
    for name in ("chrome", "shiviz"):
        out = io.BytesIO()
        FORMATS[name](events, out)
        assert out.getvalue()


@pytest.mark.slow
def test_the_clocks_of_the_log_are_those_of_a_replay(run: Run) -> None:
    done = run("late-enter")
    scenario = load("late-enter")
    execution = Execution()
    recording = Recording(execution, recorded(done.outcome.choices))
    machine = assemble.assemble(scenario, recording, execution)
    conduct(execution, Recorder(recording), scenario.max_steps, machine.finish)
    again = recording.events()
    events = list(Log(done.folder).events())

    assert len(again) == len(events)
    for one, other in zip(again, events, strict=True):
        assert one["event"] == other["event"]
        assert one["step"] == other["step"]
        assert one["vc"] == other["vc"]


@pytest.mark.slow
def test_a_run_that_fails_tells_it_three_times_alike(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The live oracle, the oracle over the log, and the report: one violation."""
    done = run("reclaim-leak")
    found = check(Log(done.folder))
    page = Path(done.folder / "report.html").read_text()

    assert str(found.violation) == str(done.outcome.error)
    assert found.event is not None
    assert found.event["step"] == done.outcome.steps
    assert json.loads((done.folder / "summary.json").read_text())["verdict"] == "fail"
    assert max(map(len, done.failure.splitlines())) <= 120
    assert "positions" in done.failure
    same_numbers(done.failure, page, windows(Log(done.folder)))
    assert main(["log", "windows", str(done.folder)]) == 0
    said = capsys.readouterr().out
    for line in ("window: ", "moved:  "):
        (told,) = re.findall(rf"^ {line}.*", done.failure, re.MULTILINE)
        assert f"{told}\n" in said
    assert "<- window opens" in done.failure
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.long
@pytest.mark.parametrize("name", ["demo", "cluster-launder", "reclaim-leak", "oom-innocent"])
def test_every_scenario_that_fails_has_one_window(name: str, tmp_path: Path) -> None:
    for seed in range(1, 200):
        done = record(load(name), seeded(seed), Origin(name, (), "random", seed), tmp_path)
        page = done.folder / "report.html"
        if done.outcome.verdict == "fail" and page.exists() and " window: " in done.failure:
            same_numbers(done.failure, page.read_text(), windows(Log(done.folder)))
            return
        if done.outcome.verdict == "fail":
            return  # a panic or a kill: no translation in question

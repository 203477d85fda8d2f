"""`vkemu explore` as it is typed: results, errors, interruption, progress."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from argparse import Namespace
from array import array
from pathlib import Path

import pytest
from vkemu.commands.cli import main
from vkemu.commands.explore import as_dict, draws, progress_line
from vkemu.commands.subject import Subject, subject_of
from vkemu.exploration.result import Result
from vkemu.launch.outcome import Outcome
from vkemu.report.told import Told
from vkemu.report.trial import Record

from tests.commands.conftest import Shell

ROOT = Path(__file__).parents[2]


def test_a_function_of_a_file_that_fails(explore: Shell) -> None:
    status, out, err = explore("p.py:lost")
    assert (status, err) == (1, "")
    assert out.startswith("fail: p:lost\ndpor: ")
    replay = re.search(r"^ replay: vkemu explore (p.py:lost --replay vkx1\S+)$", out, re.MULTILINE)
    assert replay is not None
    status, again, _ = explore(*replay[1].split())
    assert status == 1
    assert again.startswith("BUG: vkemu: does not hold: k.at_end(")
    assert again in out


def test_a_function_of_a_file_that_passes(explore: Shell) -> None:
    status, found = explore.json("p.py:fine")
    assert status == 0
    assert (found["verdict"], found["executions"], found["exhausted"]) == ("pass", 2, True)
    assert found["failure"] is None
    assert found["outcomes"] is None


@pytest.mark.parametrize("function", ["thread", "test_thread"])
def test_an_async_function_is_the_first_thread(explore: Shell, function: str) -> None:
    assert explore(f"p.py:{function}")[0] == 0
    status, found = explore.json(f"p.py:{function}", "--check")
    assert (status, found["check"]) == (1, True)
    assert "data race on n" in found["failure"]["message"]
    assert "--check" in found["failure"]["replay"]
    status, again = explore.json(*found["failure"]["replay"].split()[2:])
    assert (status, again["failure"]) == (1, found["failure"])


def test_the_step_bound(explore: Shell) -> None:
    status, found = explore.json("p.py:endless", "--max-steps", "20")
    assert (status, found["verdict"], found["cut"]) == (3, "unknown", 1)
    status, found = explore.json("p.py:endless", "--max-steps", "20", "--livelock")
    assert (status, found["failure"]["message"]) == (1, "no end within 20 steps")


@pytest.mark.parametrize(
    "strategy", ["dfs", "bounded:1", "random", "pct:2", "pos", "urw", "portfolio", "source-dpor"]
)
def test_every_strategy_can_be_named(explore: Shell, strategy: str) -> None:
    seed = ["--seed", "3"] if draws(strategy) else []
    status, found = explore.json("p.py:lost", "--strategy", strategy, *seed)
    assert (status, found["strategy"], found["seed"]) == (1, strategy, 3 if seed else 0)


def test_a_budget_that_does_not_do_is_unknown(explore: Shell) -> None:
    status, found = explore.json("p.py:many", "--max-executions", "5")
    assert (status, found["verdict"], found["executions"]) == (3, "unknown", 5)
    status, found = explore.json("p.py:many", "--max-executions", "5", "--strategy", "random")
    assert (status, found["verdict"]) == (0, "pass")


def test_all_goes_on_after_a_failure(explore: Shell) -> None:
    first = explore.json("p.py:lost")[1]
    status, found = explore.json("p.py:lost", "--all")
    assert status == 1
    assert (first["exhausted"], found["exhausted"]) == (False, True)
    assert found["failures"] > first["failures"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["dpor", "dfs"])
def test_jobs_count_the_same(explore: Shell, strategy: str) -> None:
    counts = []
    for jobs in ("1", "2"):
        options = ("--strategy", strategy, "--jobs", jobs, "--all")
        status, found = explore.json("p.py:lost", *options)
        counts.append((status, found["executions"], found["failures"], found["failure"]))
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_a_checkpoint_is_saved_and_resumed(explore: Shell) -> None:
    whole = explore.json("p.py:fine")[1]
    budget = ("--checkpoint", "point", "--max-executions")
    assert explore.json("p.py:fine", *budget, "1")[0] == 3
    assert Path("point").exists()
    status, found = explore.json("p.py:fine", "--checkpoint", "point")
    assert (status, found["executions"]) == (0, whole["executions"])


def test_a_litmus_test_with_its_outcomes(explore: Shell) -> None:
    status, found = explore.json("W24", "--policy", "pv_entry")
    assert (status, found["policy"]) == (0, "pv_entry")
    outcomes = found["outcomes"]
    assert outcomes["kind"] == "forbidden"
    assert outcomes["observation"] == "never"
    assert sum(state["executions"] for state in outcomes["states"]) == found["executions"]
    status, out, _ = explore("W24")
    assert "Observation W24" in out
    assert "Witnesses\n" in out


def test_a_litmus_test_that_fails_gives_all_its_outcomes(explore: Shell) -> None:
    one = explore.json("W07", "--policy", "vptmapped")[1]
    status, found = explore.json("W07", "--policy", "vptmapped", "--all")
    assert status == 1
    assert found["exhausted"]
    outcomes = found["outcomes"]
    reached = sum(state["executions"] for state in outcomes["states"])
    assert reached + sum(outcomes["broken"].values()) == found["executions"]
    assert found["failure"] == one["failure"]
    assert found["failure"]["token"].startswith("vkl1.")
    assert found["failure"]["replay"] == f"vkemu replay {found['failure']['token']}"


def test_a_litmus_test_is_checked_with_its_own_replay(explore: Shell) -> None:
    status, found = explore.json("W07", "--policy", "vptmapped", "--check")
    assert status == 1
    words = found["failure"]["replay"].split()
    assert words[:6] == ["vkemu", "explore", "W07", "--policy", "vptmapped", "--check"]
    status, out, _ = explore(*words[2:])
    assert status == 1
    assert " ".join(out.split()).startswith(f"BUG: vkemu: {found['failure']['message']}")


def test_a_scenario_is_explored(explore: Shell) -> None:
    Path("s.toml").write_text(
        "max_steps = 3000\nhost.pages = 200\n"
        '[[guest]]\nname = "g1"\nmemory = "512K"\nvcpus = 1\nworkloads = ["touch"]\n'
    )
    options = ("--strategy", "random", "--max-executions", "1")
    status, found = explore.json("s.toml", *options)
    assert (status, found["policy"], found["name"]) == (found["cut"] and 3, "pv_entry", "s")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["p.py"], "p.py: which function of it[?] expected p.py:FUNCTION"),
        (["p.py:"], "p.py: which function of it[?] expected p.py:FUNCTION"),
        (["q.py:lost"], "q.py: no such file, expected Python with a function lost[(]k[)]"),
        (["p.py:nobody"], "p.py: no function 'nobody', expected one that takes k"),
        (["p.py:constant"], "p.py: no function 'constant', expected one that takes k"),
        (["p.py:wrong"], r"p.py:\d+: AttributeError: 'Program' object has no attribute 'spawm'"),
        (["p.py:two"], r"p.py: TypeError: two\(\) missing 1 required positional argument: 'more'"),
        (["p.py:threadless"], "p.py: threadless spawns no thread, expected k.spawn"),
        (["broken.py:lost"], "broken.py:2: SyntaxError: .*, expected a module to import"),
        (["exits.py:lost"], "exits.py:2: SystemExit: 3, expected a module to import"),
        (["raises.py:lost"], "raises.py:3: KeyError: 'x', expected a module to import"),
        (["nothing.toml"], "nothing.toml: no such file"),
        (["W99"], "W99: no such file"),
        (["W07", "--policy", "best"], "--policy 'best', expected one of "),
        (["p.py:lost", "--policy", "wired"], "--policy 'wired', expected none: p.py is Python"),
        (["p.py:lost", "--variant", "x"], "--variant 'x', expected none: p.py is Python"),
        (["quickstart", "--variant", "x"], "--variant 'x', expected none: "),
        (["quickstart", "--policy", "removed"], ".*cannot boot.*, expected a guest"),
        (["p.py:lost", "--strategy", "best"], "--strategy: no strategy 'best': expected one of "),
        (["p.py:lost", "--strategy", "pct:0"], "--strategy: no strategy 'pct:0': expected pct:N"),
        (["p.py:lost", "--strategy", "dfs:2"], "--strategy: no strategy 'dfs:2': expected "),
        (["p.py:lost", "--jobs", "0"], ".*--jobs: 0, expected 1 to 256"),
        (["p.py:lost", "--jobs", "9999"], ".*--jobs: 9999, expected 1 to 256"),
        (["p.py:lost", "--seed", "-1"], ".*--seed: -1, expected 0 to "),
        (["p.py:lost", "--seed", "x"], ".*--seed: 'x', expected a number, 0 to "),
        (["p.py:lost", "--max-executions", "0"], ".*--max-executions: 0, expected at least 1"),
        (["p.py:lost", "--max-steps", "1.5"], ".*--max-steps: '1.5', expected a number"),
        (["p.py:lost", "--max-seconds", "0"], ".*--max-seconds: '0', expected seconds"),
        (["p.py:lost", "--max-seconds", "nan"], ".*--max-seconds: 'nan', expected seconds"),
        (["p.py:lost", "--max-seconds", "inf"], ".*--max-seconds: 'inf', expected seconds"),
        (["p.py:lost", "--replay", "x"], "replay: not a token of this version"),
        (["p.py:lost", "--replay", "vkx1.AAAA"], "replay: damaged token"),
        (["p.py:lost", "--report", "p.py"], "--report p.py: .*, expected a folder"),
        (["p.py:lost", "--runs", "r"], "--runs r: expected a scenario or a litmus test"),
        (["W07", "--runs", "r", "--check"], "--runs r: expected .*, without --check"),
        (["p.py:lost", "--registers"], "--registers: expected a litmus test"),
        (["quickstart", "--witnesses"], "--witnesses: expected a litmus test"),
        (["W07", "--witnesses", "--jobs", "2"], "--witnesses: expected without --jobs"),
        (["p.py:lost", "--strategy", "portfolio", "--jobs", "2"], ".*portfolio cannot be divided"),
        (["quickstart", "--jobs", "2"], "--jobs 2: portfolio, .*, expected --strategy random, "),
        (["quickstart", "--checkpoint", "c"], "--checkpoint: portfolio, .*, expected --strategy "),
        (
            ["p.py:fine", "--checkpoint", "c", "--strategy", "random"],
            "p.py:fine: checkpoint: random cannot be saved, expected dfs or dpor",
        ),
        (["p.py:fine", "--checkpoint", "no/where"], ".*no/where"),
        (["p.py:fine", "--checkpoint", "p.py"], ".*p.py"),
        (["W07", "--checkpoint", "p.py"], ".*checkpoint p.py: cannot be read"),
        (["W07", "--strategy", "bounded", "--jobs", "2"], ".*bounded cannot be divided"),
        (["W07", "--policy", "vptmapped", "--report", "p.py"], "--report p.py: "),
        ([], ".*the following arguments are required: file"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(explore: Shell, argv: list[str], said: str) -> None:
    Path("broken.py").write_text("\ndef f(:\n")
    Path("exits.py").write_text("import sys\nsys.exit(3)\n")
    Path("raises.py").write_text("\n\n{}['x']\n")
    status, out, err = explore(*argv)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert re.match(said, err), err


def test_a_replayed_failure_is_kept_like_any_other(explore: Shell) -> None:
    found = explore.json("p.py:lost")[1]["failure"]
    status, out, err = explore("p.py:lost", "--replay", found["token"], "--report", "kept")
    assert (status, err) == (1, "")
    assert Path("kept/failure.txt").read_text() == out
    assert Path("kept/report.html").exists()
    argv = ("p.py:lost", "--replay", found["token"], "--report", "kept/too")
    assert explore.json(*argv)[1]["failure"]["token"] == found["token"]
    assert Path("kept/too/failure.txt").read_text() == out


def test_a_replayed_failure_of_a_scenario_is_a_run_folder(
    explore: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = explore.json("p.py:lost")[1]["failure"]["token"]

    def scenario(args: Namespace) -> Subject:
        subject = subject_of(args)
        subject.keep = lambda failure, runs: Record(
            runs / "s-1", {"token": ""}, Outcome("fail", array("H")), Told(f"{failure.message}\n")
        )
        return subject

    monkeypatch.setattr("vkemu.commands.explore.subject_of", scenario)
    status, out, err = explore("p.py:lost", "--replay", token, "--runs", "kept")
    assert (status, err) == (1, "")
    assert re.match(r"does not hold: .*\nkept/s-1\n$", out)


def test_a_failure_that_is_not_told_to_its_end_can_be_replayed(
    explore: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vkemu.commands.explore.tell", interrupted)
        status, out, err = explore("p.py:lost")
    assert (status, err) == (1, "")
    replay = re.search(r"^ replay: vkemu (explore p.py:lost --replay vkx1\S+)$", out, re.MULTILINE)
    assert replay is not None
    assert explore(*replay[1].split()[1:])[0] == 1


def command(*argv: str) -> list[str]:
    return [sys.executable, "-m", "vkemu", "explore", *argv]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["dpor", "random"])
def test_an_interrupt_ends_with_what_is_known(explore: Shell, strategy: str) -> None:
    options = ("--strategy", strategy, "--json")
    done = subprocess.run(
        command("p.py:interrupted", *options), capture_output=True, text=True, check=False
    )
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (3, "")
    assert (found["verdict"], found["exhausted"]) == ("unknown", False)
    assert 40 < found["executions"] < 50


@pytest.mark.slow
def test_progress_is_for_a_terminal(explore: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vkemu.commands.sharing.PATIENCE_SECONDS", 0.0)
    argv = ("p.py:slow", "--max-executions", "40")
    status, _, err = explore(*argv)
    assert (status, err) == (3, "")
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert main(["explore", *argv]) == 3
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert re.search(r"p:slow: [\d,]+ executions, [\d,]+/s, depth 8", shown)


def test_a_line_of_progress() -> None:
    result = Result("dpor", 0)
    result.executions, result.seconds, result.depth = 12_345, 2.0, 7
    assert progress_line(result) == "12,345 executions, 6,172/s, depth 7, 1 worker"
    result.share, result.workers = 0.25, 3
    assert progress_line(result).endswith(", depth 7, about 25.0% explored, 6 s left, 3 workers")


def test_the_keys_of_json_are_those_the_documentation_lists() -> None:
    class Named:
        name, policy, outcomes = "x", None, None

        def unmet(self, _: Result) -> list[tuple[str, list[str]]]:
            return []

    said = (ROOT / "docs" / "explore.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", said.partition("## JSON")[2], re.MULTILINE)
    keys = list(as_dict(Named(), Result("dpor", 0), "pass", check=False))  # type: ignore[arg-type]
    assert listed == keys


def test_a_litmus_test_that_must_end_fails_at_its_bound(explore: Shell) -> None:
    """It said unknown: the file's on_step_bound was not passed on."""
    status, out, err = explore("W30", "--runs", "found")

    assert (status, err) == (1, "")
    assert "Verdict fail" in out
    summary = json.loads(Path("found/latest/summary.json").read_text())
    assert summary["failure"] == "no end within 600 steps"
    assert main(["replay", summary["token"], "--runs", "again"]) == 1
    for name in ("events.ndjson", "summary.json", "failure.txt"):
        assert Path("again/latest", name).read_bytes() == Path("found/latest", name).read_bytes()


def test_a_scenario_is_searched_by_a_portfolio(explore: Shell) -> None:
    """By dpor it never came to another schedule than the first."""
    Path("s.toml").write_text(
        "max_steps = 3000\nhost.pages = 200\n"
        '[[guest]]\nname = "g1"\nmemory = "512K"\nvcpus = 1\nworkloads = ["touch"]\n'
    )
    assert explore.json("s.toml", "--max-executions", "1")[1]["strategy"] == "portfolio"
    assert explore.json("p.py:fine")[1]["strategy"] == "dpor"


def test_where_no_vkernel_boots_there_is_no_verdict(explore: Shell) -> None:
    """Its pages were reclaimed under PTEs that nobody could have made."""
    status, out, err = explore("W06", "--policy", "removed")
    assert (status, out) == (2, "")
    assert err.startswith("--policy removed: mmap refuses MAP_VPAGETABLE, expected")

"""What `vkemu explore` says of a litmus test to somebody who has just written it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from vkemu.commands.cli import main
from vkemu.litmus.decide import ForbiddenOutcome
from vkemu.stepping.stages import Subject

from tests.shell import Shell

# A page is reclaimed under a mapping; the next owner writes 99 to its frame.
RECLAIM = """\
litmus = { name = "reclaim", spare = 0, checks = ["lock-hygiene"] }
page.X.words = [1]
va.a = { va = 0x400000, page = "X", mapped = "r" }
thread = [
  { name = "G", kind = "user", run = ["r0 = peek a"] },
  { name = "P", kind = "pageout", run = [
    "r0 = scan_active X", "r1 = scan_active X", "r2 = reclaimed X", "r3 = reuse 99", "post 1",
  ] },
  { name = "Q", kind = "host", run = ["await 1", "r0 = owner_mapped"] },
]
outcome = { forbidden = "G.r0 == 99 and P.r2 == 1", required = "P.r1 == 1 and P.r3 != -2" }
"""


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    found = Shell(tmp_path, capsys)
    found.write("t.toml", RECLAIM)
    return found


def test_what_is_required_and_never_happens_is_a_failure_and_told(shell: Shell) -> None:
    """It ended in `Verdict fail (exhausted)`, and nothing said why."""
    status, out, _ = shell("explore", "t.toml", "--policy", "vptmapped")
    said = "required outcome was never reached: P.r1 == 1 and P.r3 != -2"
    state = "G.r0=1; P.r2=0; P.r1=0; P.r3=-2"
    assert status == 1
    assert f"BUG: vkemu: {said}\n never:   P.r1 == 1\n never:   P.r3 != -2\n" in out
    assert f" nearest: {state} (1 execution, lacks P.r1 == 1 and P.r3 != -2)\n" in out
    assert "Required (P.r1 == 1 and P.r3 != -2) never\n" in out
    assert "remark: one interleaving is all there is: " in out

    status, out, _ = shell("explore", "t.toml", "--policy", "vptmapped", "--json")
    told = json.loads(out)
    assert (told["verdict"], told["kinds"], told["failure"]["message"]) == ("fail", [said], said)
    assert list(told["outcomes"]["never"]) == ["P.r1 == 1 and P.r3 != -2"]


def test_a_sample_that_has_not_seen_what_is_required_says_so(shell: Shell) -> None:
    sample = ("--strategy", "random", "--max-executions", "2")
    status, out, _ = shell("explore", "t.toml", "--policy", "vptmapped", *sample)
    assert status == 0
    assert "remark: no execution of these reached what is required: P.r1 == 1 and" in out


@pytest.mark.parametrize(("jobs", "alone"), [("1", "W07"), ("2", "t.toml")])
def test_one_interleaving_is_remarked_however_many_jobs(
    shell: Shell, jobs: str, alone: str
) -> None:
    policy = "vptmapped" if alone == "t.toml" else "pv_entry"
    _, out, _ = shell("explore", alone, "--policy", policy, "--jobs", jobs)
    assert ("one interleaving is all" in out) == (": 1 executions" in out) == (jobs == "2")


def test_every_register_is_shown_if_it_is_asked_for(shell: Shell) -> None:
    few, out = (shell("explore", "t.toml", *more)[1] for more in ((), ("--registers",)))
    assert "Q.r0" not in few
    assert re.search(r"> G\.r0=1; P\.r2=1; P\.r1=1; P\.r3=4; P\.r0=0; Q\.r0=1\n", out)
    counts = [
        sum(map(int, re.findall(r"^(\d+) +[:*]>", text, re.MULTILINE))) for text in (few, out)
    ]
    assert counts[0] == counts[1]


def test_a_pass_can_be_looked_at(shell: Shell) -> None:
    """Nothing led to an execution that passes: no token, no log."""
    assert (
        "not kept: no execution fails; --witnesses" in shell("explore", "t.toml", "--runs", "r")[1]
    )
    _, out, _ = shell("explore", "t.toml", "--witnesses")
    states = re.findall(r"> (.*)\n +vkemu replay (vks1\S+)\n", out)
    assert len(states) == int(out.partition("States ")[2].split()[0])
    state, token = next((state, token) for state, token in states if "G.r0=-1" in state)
    status, out, _ = shell("replay", token, "--runs", "kept")
    assert (status, out.splitlines()[-1]) == (0, "kept/reclaim-1")
    assert "  G has done `r0 = peek a -> -1`\n" in out
    assert shell("log", "windows", "kept/latest")[0] == 0
    status, out, _ = shell("log", "check", "kept/latest", "--json")
    assert (json.loads(out)["verdict"], json.loads(out)["checks"]) == ("pass", ["lock-hygiene"])
    assert shell("replay", "kept/latest")[1].splitlines()[-1].startswith("pass: reclaim [pv_entry]")

    _, out, _ = shell("explore", "t.toml", "--witnesses", "--json")
    assert [state["replay"] for state in json.loads(out)["outcomes"]["states"]] == [
        f"vkemu replay {token}" for _, token in states
    ]


def test_a_failure_is_taken_from_wherever_it_lies(shell: Shell) -> None:
    """failure.txt has its token over two lines; a report folder has no summary.json; a litmus
    token was refused by `explore --replay`; a report has no log, and nothing said how to get it."""
    test = shell.write("a-name-that-is-long-enough-to-fold-the-command.toml", RECLAIM)
    failing = ("explore", test, "--policy", "extent_scan")
    _, first, _ = shell(*failing, "--report", "rep")
    failure = Path("rep/failure.txt").read_text()
    assert "\\\n" in failure.partition(" replay: ")[2]
    assert first.endswith(failure)
    for said in ("`r3 = reuse 99`", "r2 = reclaimed X -> 1", "r1 = scan_active X -> 1", "post 1"):
        assert said.strip("`") in failure  # a row for each statement
    assert re.search(r"wrote:  P\.r2  by P: r2 = reclaimed X  step \d+\n", failure)
    token = failure.partition("vkemu replay ")[2].replace("\\\n", "").strip()
    for what in (token, "rep/failure.txt", "rep"):
        assert shell("replay", what) == (1, failure, "")
        assert shell("explore", test, "--replay", what) == (1, failure, "")
    status, _, err = shell("explore", test, "--replay", token, "--policy", "nested")
    assert (status, err) == (2, "--policy nested: the token says extent_scan, expected that\n")

    subject, stepper = Subject.at(token)
    assert (subject.name, stepper.over) == ("reclaim [extent_scan]", True)
    assert isinstance(stepper.error, ForbiddenOutcome)
    assert subject.token(stepper) == token

    status, _, err = shell("log", "windows", "rep")
    assert (status, err.count("\n")) == (2, 1)
    command = err.partition("`vkemu ")[2].partition("`")[0]
    status, out, _ = shell(*command.split())
    assert (status, out) == (1, f"{failure}runs/reclaim-1\n")
    assert Path("runs/latest/failure.txt").read_text() == failure
    assert shell("log", "windows", "runs/latest")[0] == 0
    assert shell("replay", "runs/latest")[:2] == (1, failure)
    status, out, _ = shell(*failing, "--runs", "runs")
    assert (status, out.splitlines()[-1]) == (1, "runs/reclaim-2")
    logs = [Path(f"runs/reclaim-{n}/events.ndjson").read_bytes() for n in (1, 2)]
    assert logs[0] == logs[1]


def test_the_first_failure_is_no_bound(shell: Shell) -> None:
    failing = ("explore", "t.toml", "--policy", "extent_scan")
    assert "Verdict fail (first failure: the search stopped there)\n" in shell(*failing)[1]
    assert "Verdict fail (exhausted)\n" in shell(*failing, "--all")[1]
    bounded = shell(*failing, "--all", "--max-executions", "2")[1]
    assert "Verdict fail (bounded)\n" in bounded


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("G.r0 == 99", "X.dirty == 1", r"'X\.dirty', expected a word of the page, X\[0\], or a"),
        ("G.r0 == 99", "G.r9 == 99", r"'G\.r9' is written by no thread, expected a register \(G"),
        ("G.r0 == 99", "Y[0] == 99", r"'Y\[0\]', expected a register .* or a word of a page \(X"),
        ('kind = "host"', 'kind = "fault"', r"thread\[2\]\.cpu: 2, .*\(2\); it is its place in"),
    ],
)  # fmt: skip
def test_a_mistake_says_what_there_is(shell: Shell, old: str, new: str, said: str) -> None:
    shell.write("t.toml", RECLAIM.replace(old, new))
    status, _, err = shell("explore", "t.toml")
    assert (status, err.count("\n")) == (2, 1)
    assert re.search(said, err), err


def test_a_test_without_variants_has_none(shell: Shell) -> None:
    status, _, err = shell("explore", "t.toml", "--variant", "v")
    assert (status, err) == (
        2,
        "t.toml: no variant 'v', expected none: the test has no [[variant]]\n",
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--verbs"], "vkemu: --verbs before a command, expected `vkemu explore --verbs`\n"),
        (["--keys"], "vkemu: --keys before a command, expected `vkemu run --keys`\n"),
    ],
)
def test_an_option_says_after_which_command_it_stands(
    capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    assert (main(argv), capsys.readouterr().err) == (2, said)

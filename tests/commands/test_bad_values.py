"""Every option of every command with values it cannot take: one clear line, exit status 2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vkemu.commands.cli import main

LONG = "9" * 5000
RUN = ("run", "late-enter", "--runs", "r")
MATRIX = ("matrix", "--windows", "W05", "--policies", "pv_entry")
W24 = ("explore", "W24")

# What is typed -> what is said.
NUMBERS = {
    (*RUN, "--seed"): ("-1", "x", "1.5", "1_0", "٣", "", "nan", LONG),
    (*RUN, "--seeds"): ("-1", "0", "x", "1000001", LONG),
    (*RUN, "--max-steps"): ("-1", "0", "x", "nan", "", LONG),
    (*W24, "--max-executions"): ("-1", "0", "x", "1e3", "", LONG),
    (*W24, "--max-steps"): ("-1", "0", "x", LONG),
    (*W24, "--max-seconds"): ("-1", "0", "x", "nan", "inf", "", LONG),
    (*W24, "--jobs"): ("-1", "0", "x", "257", LONG),
    (*W24, "--seed"): ("-1", "x", LONG),
    (*MATRIX, "--max-seconds"): ("-1", "0", "x", "nan", "inf", ""),
    (*MATRIX, "--jobs"): ("-1", "0", "x", "100000", LONG),
    ("compare", "--jobs"): ("-1", "0", "x", "nan", LONG),
    ("mutants", "--list", "--jobs"): ("-1", "0", "nan", LONG),
    ("log", "show", "--first"): ("-1", "x", LONG),
    ("log", "show", "--last"): ("-1", "x"),
    ("log", "windows", "--worst"): ("-1", "x"),
    ("log", "timeline", "--limit"): ("-1", "0", "x"),
    ("log", "timeline", "--width"): ("-1", "0", "3", "x", LONG),
    ("log", "diff", "a", "b", "--context"): ("-1", "x"),
    ("serve", "--socket", "s", "--guests"): ("-1", "0", "x"),
    ("serve", "--socket", "s", "--time-scale"): ("-1", "0", "nan", "inf", "x"),
}
NAMES = {
    (*RUN, "--policy"): ("", "best"),
    (*RUN, "--mutant"): ("", "none"),
    (*RUN, "--set"): ("", "x", "=1", "x=1", "host.pages=-1", "host.pages=nan", "host=1"),
    (*RUN, "--backend"): ("", "curio"),
    (*W24, "--policy"): ("", "best"),
    (*W24, "--variant"): ("", "none"),
    (*W24, "--strategy"): ("", "best", "pct:0", "pct:-1", "bounded:x", "dfs:1"),
    (*W24, "--replay"): ("", "x", "vkx1.AAAA", "vk1.AAAA", "vkl1.AAAA.vkx1.AAAA", LONG),
    ("matrix", "--windows"): ("", ",", "W99", "W01,W99"),
    ("matrix", "--policies"): ("", " , ", "best"),
    (*MATRIX, "--strategy"): ("", "best"),
    ("compare", "--axis"): ("", ",", "best"),
    ("compare", "--policies"): ("", "best", "removed"),
    ("mutants",): ("", "nosuchmutant"),
    ("replay",): ("", "x", "vk1.AAAA", "vkx1.AAAA", "vkl1.AAAA", "vks1.AAAA", LONG),
    ("step",): ("", "nothing", "W99", "vks1.AAAA", LONG),
    ("step", "W24", "--policy"): ("", "best"),
    ("step", "W24", "--variant"): ("", "none"),
    ("log",): ("", "best"),
    ("log", "show"): ("", "nothing", LONG),
    ("log", "query", "nothing"): ("SELECT 1",),
    ("log", "check", "log", "--checks"): ("best",),
    ("log", "export", "log", "--format"): ("", "best"),
    ("serve", "nothing", "--socket"): ("s",),
    ("guest", "--socket"): ("", "nothing", LONG),
}
FILES = ("nothing", "binary", "text", "empty", "folder", "long", "/proc/nothing", LONG)
READ = {
    ("run",): FILES,
    ("explore",): FILES,
    ("step",): FILES,
    ("replay",): FILES,
    ("matrix", "--read"): FILES,
    (*W24, "--checkpoint"): ("binary", "text", "empty", "folder", "no/where", "", LONG),
    ("log", "stats"): ("nothing", "binary", "text", "folder", LONG),
    ("log", "check"): ("nothing", "binary", "text", "folder", LONG),
}
WRITTEN = {
    RUN[:-1]: ("text", "", "/proc/nothing", LONG),
    ("explore", "W07", "--policy", "vptmapped", "--report"): ("text", "", "/proc/nothing", LONG),
    ("compare", "--html"): ("folder", "", "/proc/nothing", LONG),
}
CASES = [
    (argv, value)
    for table in (NUMBERS, NAMES, READ, WRITTEN)
    for argv, values in table.items()
    for value in values
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("empty").write_text("")
    Path("log").write_text("")
    Path("text").write_text("x = 1\n")
    Path("binary").write_bytes(bytes(range(256)) * 16)
    Path("long").write_text(f"[litmus]\nname = '{'x' * 100_000}'\n")


@pytest.mark.parametrize(
    ("argv", "value"), CASES, ids=[f"{' '.join(argv)} {value[:12]!r}" for argv, value in CASES]
)
def test_one_line_and_status_2(
    argv: tuple[str, ...], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([*argv, value])
    out, err = capsys.readouterr()

    assert (status, out) == (2, ""), err
    assert len(err.splitlines()) == 1, err
    assert len(err) < 2_000
    assert "Traceback" not in err
    assert re.search(r"\w{3}", err)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("vkx1.AAAA", "expected `vkemu explore FILE --replay vkx1.AAAA`"),
        ("vkx1." + "A" * 500, "expected `vkemu explore FILE --replay TOKEN`"),
    ],
)
def test_a_token_of_explore_says_how_it_is_replayed(
    token: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", token]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["run", "late-enter", "--jobs", "2"],
        ["run", "late-enter", "--checkpoint", "c"],
        ["run", "late-enter", "--backend", "trio"],
        ["matrix", "--read", "text", "--windows", "W01"],
        ["matrix", "--read", "text", "--all-variants"],
        ["step", "W01", "--scenario", "x"],
        ["replay", "vkl1.AAAA.vkx1.AAAA", "--zstd"],
        ["replay", "vks1.AAAA", "--json"],
    ],
)
def test_an_option_without_effect_is_refused(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_token_of_run_says_how_it_is_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "quickstart", "--replay", "vk1.AAAA"]) == 2
    assert "expected `vkemu replay vk1.AAAA`" in capsys.readouterr().err

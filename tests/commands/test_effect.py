"""No option is without effect: what another makes idle is refused, and none is read by nobody."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path

import pytest
from vkemu.commands.cli import COMMANDS, Parser, main
from vkemu.commands.effect import RULES

NEEDED = {
    "explore": ["W01"], "run": ["quickstart"], "check": ["wired"], "guest": ["--socket", "s"],
    "serve": ["--socket", "s"],
}  # fmt: skip
VALUES = {
    "--on": "dask-local", "--strategy": "dfs", "--replay": "vkx1.AAAA", "-m": "64M",
    "--set": "host.pages=300", "--swap": "0p",
}  # fmt: skip
ROOMS = (Path("tools/vkemu/commands"), Path("vkguest/vkernel64"))
TOP = Path(__file__).parents[2]


def parser_of(command: str) -> argparse.ArgumentParser:
    name, _, what = command.partition(" ")
    parser: argparse.ArgumentParser = Parser(prog=name)
    importlib.import_module(COMMANDS[name][0]).add_arguments(parser)
    for action in parser._actions:
        if what and isinstance(action, argparse._SubParsersAction):
            parser = action.choices[what]
    return parser


def typed(command: str, option: str) -> list[str]:
    action = parser_of(command)._option_string_actions[option]
    if action.nargs == 0:
        return [option]
    choices = list(action.choices or ["1"])
    return [option, VALUES.get(option, str(choices[-1]))]


CASES = [
    (command, option, how, other)
    for command, rules in RULES.items()
    for options, how, other in rules
    for option in options.split()
]


@pytest.mark.parametrize(
    ("command", "option", "how", "other"), CASES, ids=[f"{c}-{o}-{x}" for c, o, _, x in CASES]
)
def test_what_another_option_makes_idle_is_refused(
    command: str, option: str, how: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*command.split(), *NEEDED.get(command, []), *typed(command, option)]
    beside = typed(command, other)
    assert main([*argv, *(beside if how == "without" else [])]) == 2
    said = capsys.readouterr().err
    assert said == f"vkemu {command}: {option}, expected {how} {other}\n"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("explore W01 --seed 3", "--seed 3: dpor draws nothing, expected with --strategy random"),
        ("explore W01 --seed 3 --strategy bounded:2", "--seed 3: bounded:2 draws nothing, "),
        ("serve --socket s --token-file t", "--token-file, expected with --listen tcp:HOST:PORT"),
        ("serve --socket s --tls-cert t", "--tls-cert, expected with --listen tcp:HOST:PORT"),
        ("serve --socket s --anywhere", "--anywhere, expected with --listen tcp:HOST:PORT"),
        ("guest --socket s -m 64M --run idle --tls-ca t", "--tls-ca, expected with tcp:HOST:PORT"),
        ("status s --tls-ca t", "--tls-ca, expected with tcp:HOST:PORT"),
        ("matrix --windows W01,W01", "--windows: 'W01,W01', expected each once"),
        ("matrix --windows W01,,W07", "--windows: 'W01,,W07', expected names with commas"),
        ("compare --policies wired,wired", "--policies: 'wired,wired', expected each once"),
        ("log show --columns step,step", "--columns: 'step,step', expected each once"),
        ("log check --checks content,", "--checks: 'content,', expected names with commas"),
        ("run quickstart --mutant lazy-tlb --mutant lazy-tlb", "'lazy-tlb' again, expected each"),
    ],
)  # fmt: skip
def test_what_is_idle_for_another_reason(
    argv: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t").write_text("0123456789abcdef\n")
    assert main(argv.split()) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_read_by_somebody(command: str) -> None:
    source = "\n".join(f.read_text() for room in ROOMS for f in sorted((TOP / room).glob("*.py")))
    parsers = [parser_of(command)]
    for action in parsers[0]._actions:
        if isinstance(action, argparse._SubParsersAction):
            parsers += action.choices.values()
    for action in [action for parser in parsers for action in parser._actions]:
        idle = action.nargs == 0 and action.dest in ("help", "keys", "verbs")  # print, and end
        absent = action.dest.startswith("absent_")  # refused, one by one
        used = re.search(rf'\bargs\.{action.dest}\b|\w\.{action.dest}\b|"{action.dest}"', source)
        assert idle or absent or used, action

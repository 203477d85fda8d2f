"""Litmus files: what they say, and the one line a mistake gives."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from vkemu.litmus import read
from vkemu.litmus.condition import Condition
from vkemu.litmus.herd import Outcomes, render
from vkemu.litmus.statement import parse
from vkemu.verdict import UsageError

FILE = """
[litmus]
name = "W01-late-enter"
window = "W01"
[host]
cpus = 2
[page.X]
words = [1]
[va.a]
va = 0x400000
page = "X"
[[thread]]
name = "A"
kind = "user"
run = ["r0 = load a"]
[[thread]]
name = "B"
kind = "guest"
run = ["r1 = vpte a 0", "inval a", "if r1 != 0: dstore X 0 2"]
[outcome]
forbidden = "A.r0 == 2"
[[variant]]
name = "off"
host = { interlock = false }
"""
PATH = Path("w.toml")


def test_a_file_is_read() -> None:
    litmus = read(tomllib.loads(FILE), PATH)

    assert litmus.name == "W01-late-enter"
    assert litmus.frames == {"X": 8}
    assert litmus.threads[1].run[0].args == ("a", 0)
    assert litmus.atoms == ("A.r0",)
    (off,) = litmus.variants()
    assert off.name == "W01-late-enter+off"
    assert not off.file.host.interlock


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("cpus = 2", "cpu = 2", "w.toml:host.cpu: unknown key"),
        ('page = "X"', 'page = "Y"', "w.toml:va.a.page: 'Y', expected"),
        ('"A.r0 == 2"', '"A.r7 == 2"', "w.toml:outcome: 'A.r7' is written by no thread"),
        ('"A.r0 == 2"', '"A.r0 = 2"', "w.toml:outcome.forbidden: 'A.r0 = 2' is not a condition"),
        ('"A.r0 == 2"', '"open(1)"', "w.toml:outcome.forbidden: 'open(1)' has no meaning"),
        ("words = [1]", "frame = 2", "w.toml:page.X.frame: 2, expected one of its own from 8"),
        ('name = "B"', 'name = "A"', "w.toml:thread[1].name: 'A' is used twice"),
        ("cpus = 2", "cpus = 1", "w.toml:thread[1].cpu: 1, expected less than host.cpus (1)"),
        ('kind = "guest"', 'kind = "gust"', "w.toml:thread[1].kind: 'gust' is not allowed"),
        ("interlock = false", "interlocks = 1", "variant.off.host:interlocks: unknown key"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(old: str, new: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        read(tomllib.loads(FILE.replace(old, new)), PATH).variants()

    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unset_register_equals_nothing() -> None:
    values = {"A.r0": None}
    assert not Condition("A.r0 == 0", "").holds(values.__getitem__)
    assert not Condition("A.r0 < 1", "").holds(values.__getitem__)
    assert Condition("A.r0 != 0", "").holds(values.__getitem__)


def test_a_statement_has_guard_target_and_arguments() -> None:
    parsed = parse("if r0 & 1: r1 = vset a V|RW 0x10", "here")
    assert parsed.target == "r1"
    assert parsed.args == ("a", "V|RW", 16)
    assert parsed.when is not None


def test_outcomes_are_printed_as_herd_prints_them() -> None:
    outcomes = Outcomes(forbidden=(Condition("A.r0 == 2", ""),))
    assert outcomes.wrong({"A.r0": 1}) is None
    assert outcomes.wrong({"A.r0": 2}) == "forbidden outcome: A.r0 == 2 (A.r0=2)"
    for value in (1, 1, 2):
        outcomes.count({"A.r0": value})

    assert render("t", outcomes, verdict="fail", exhausted=True).splitlines() == [
        "Test t Forbidden",
        "States 2",
        "2       :> A.r0=1",
        "1       *> A.r0=2",
        "No",
        "Witnesses",
        "Positive: 1 Negative: 2",
        "Condition forbidden (A.r0 == 2)",
        "Observation t Sometimes 1 2",
        "Verdict fail (exhausted)",
    ]

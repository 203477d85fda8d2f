"""A forbidden outcome tells the statements that wrote what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from vkemu.launch.scenario import read_document
from vkemu.litmus.decide import decide
from vkemu.litmus.file import find_litmus, load_litmus, read
from vkemu.report import text
from vkemu.report.explored import tell_litmus


@pytest.mark.parametrize(
    ("window", "variant", "wrote"),
    [
        # A register, with the condition of its statement, and a word written through a TLB.
        (
            "W03",
            "misbehaving",
            ["C.r2  by C: if r1 & 2 == 0: r2 = dload X 0", "X[0]  by U: r0 = poke a 7"],
        ),
        # A register, and who stored the word that it was loaded from.
        ("W04", "misbehaving", ["U.r0  by B: dstore X 0 2", "U.r0  by U: r0 = peek a"]),
        # A word that two threads have written, one through the DMAP, one the host.
        ("W25", "", ["X[0]  by B: dstore X 0 2", "X[0]  by H: hstore 7"]),
    ],
)
def test_every_statement_that_wrote_it_is_told(window: str, variant: str, wrote: list[str]) -> None:
    litmus = load_litmus(window, variant)
    failure = decide(litmus, "pv_entry").failure
    assert failure is not None
    told = tell_litmus(litmus, "pv_entry", failure.schedule)
    lines = [line for line in text.render(told).splitlines() if line.startswith(" wrote:")]

    assert [line.removeprefix(" wrote:  ").rpartition("  step ")[0] for line in lines] == wrote
    said = [line.strip() for line in str(failure).splitlines() if line.startswith("  wrote: ")]
    assert [line.removeprefix("wrote: ").rpartition("  step ")[0] for line in said] == wrote
    for line in said:
        taken = failure.steps[int(line.rpartition(" ")[2])]
        assert f" by {taken.thread}: " in line
    for line in lines:
        step = told.steps[int(line.rpartition(" ")[2])]
        assert f" by {step.actor}: " in line


def test_another_failure_reads_nothing() -> None:
    litmus = load_litmus("W29", "wake-one")
    failure = decide(litmus, "pv_entry").failure
    assert failure is not None
    assert " wrote:" not in text.render(tell_litmus(litmus, "pv_entry", failure.schedule))


def test_a_register_of_a_guest_is_told_by_its_statement() -> None:
    """It was told to be written by no statement: programs of a guest are instructions."""
    path = find_litmus("guest-wait")
    document = read_document(path) | {"outcome": {"forbidden": "A.s == 7 and A.p != 0"}}
    failure = decide(read(document, path), "pv_entry").failure
    assert failure is not None
    assert failure.error is not None
    told = ("wrote: A.s  by A: s = wait p", "wrote: A.p  by A: p = fork C")
    assert failure.error.details == told  # type: ignore[attr-defined]


def test_what_was_written_before_the_first_step_is_told(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text("""
        litmus.name = "t"
        page.X.words = [1]
        va.a = { va = 0x400000, page = "X" }
        before = [{ thread = "P", run = ["r1 = reclaimed X"] }]
        thread = [
          { name = "P", kind = "host", run = ["r2 = wires X"] },
          { name = "G", kind = "user", run = ["if 1 == 2: r0 = load a", "r1 = load a"] },
        ]
        outcome.forbidden = "P.r1 == 0 and P.r2 == 0 and G.r0 != 1 and X[0] == 1"
    """)
    litmus = load_litmus(str(file))
    failure = decide(litmus, "pv_entry").failure
    assert failure is not None
    assert failure.error is not None
    first, *others = failure.error.details  # type: ignore[attr-defined]
    assert first == "wrote: P.r1  by P: r1 = reclaimed X  before the first step"
    assert [line.rpartition("  step ")[0] for line in others[:1]] == [
        "wrote: P.r2  by P: r2 = wires X"
    ]
    assert others[1:] == ["wrote: G.r0  by no statement", "wrote: X[0]  by no statement: as set up"]
    told = text.render(tell_litmus(litmus, "pv_entry", failure.schedule))
    assert "r1 = reclaimed X -> 0\n" in told
    assert "r1 = load a -> 1\n" in told

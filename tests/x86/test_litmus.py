"""Litmus tests that run machine code: searched by dpor with an instruction a step.

A page of the image holds the code, as words; `execute a` runs it and gives rax.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from vkemu.litmus.decide import Decision, decide
from vkemu.litmus.file import load_litmus

HEAD = """
[litmus]
name = "machine-code"
title = "machine code"
breaks = "nothing"
{checks}

[host]
cpus = 2
fault_workers = false
ipi_threads = {ipis}
"""


def words(code: str) -> str:
    """As a page's words, filled up with nops."""
    raw = bytes.fromhex(code)
    raw = raw.ljust(-(-len(raw) // 8) * 8, b"\x90")
    found = (int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8))
    return f"[{', '.join(map(hex, found))}]"


def decided(
    tmp_path: Path, text: str, policy: str = "pv_entry", strategy: str = "dpor"
) -> Decision:
    file = tmp_path / "t.toml"
    file.write_text(text)
    return decide(load_litmus(str(file)), policy, strategy=strategy, stop_on_failure=False)


def counters(code: str) -> str:
    """Two CPUs, the same code, one word."""
    return (
        HEAD.format(ipis="false", checks="")
        + f"""
[page.C]
words = {words(code)}

[page.X]

[va.code]
va = 0x400000
page = "C"
tlb = [0, 1]
mapped = "r"

[va.x]
va = 0x401000
page = "X"
mapped = "rw"
tlb = [0, 1]
written = 0

[[thread]]
name = "A"
kind = "user"
cpu = 0
run = ["execute code 0x401000"]

[[thread]]
name = "B"
kind = "user"
cpu = 1
run = ["execute code 0x401000"]

[outcome]
allowed = "X[0] == 1"
"""
    )


def states(decision: Decision) -> set[str]:
    return {str(dict(state)) for state in decision.outcomes.states}


@pytest.mark.parametrize(
    ("code", "left"), [("48830701 0f05", {"1", "2"}), ("f048830701 0f05", {"2"})]
)
def test_increments_are_lost_unless_they_are_locked(
    code: str, left: set[str], tmp_path: Path
) -> None:
    """add qword [rdi], 1: two steps without the lock prefix, one with it."""
    reduced = decided(tmp_path, counters(code))
    plain = decided(tmp_path, counters(code), strategy="dfs")

    assert reduced.result.exhausted
    assert reduced.result.executions < plain.result.executions
    assert states(reduced) == states(plain) == {str({"X[0]": value}) for value in left}


TEXT = """
[page.X]
words = {one}

[page.Y]
words = {two}

[va.a]
va = 0x400000
page = "X"
mapped = "r"
tlb = [0]

[[thread]]
name = "U"
kind = "user"
cpu = 0
run = {user}

[[thread]]
name = "B"
kind = "guest"
cpu = 1
run = {guest}

[outcome]
{outcome}
"""
ONE = words("b801000000 0f05")  # mov eax, 1 ; syscall
TWO = words("b802000000 0f05")


def text(user: str, guest: str, outcome: str, checks: str = "") -> str:
    head = HEAD.format(ipis="false", checks=checks)
    return head + TEXT.format(one=ONE, two=TWO, user=user, guest=guest, outcome=outcome)


def test_text_is_new_after_an_edit_with_its_inval(tmp_path: Path) -> None:
    edit = '["vset a Y V|U", "inval a", "post 1"]'
    decision = decided(
        tmp_path, text('["await 1", "r0 = execute a"]', edit, 'forbidden = "U.r0 == 1"')
    )

    assert decision.result.verdict == "pass"
    assert decision.result.exhausted


def test_text_without_the_inval_executes_what_was_there(tmp_path: Path) -> None:
    """The stale translation runs the old instructions, in real machine code (W02 for EXECUTE)."""
    edit = '["vset a Y V|U", "post 1"]'
    decision = decided(
        tmp_path,
        text('["await 1", "r0 = execute a"]', edit, 'required = "U.r0 == 1"', 'checks = ["refs"]'),
    )

    assert decision.result.verdict == "pass", decision.result.failure
    assert states(decision) == {str({"U.r0": "1"})}


def test_text_that_is_edited_while_it_runs_is_old_or_new(tmp_path: Path) -> None:
    edit = '["vset a Y V|U", "inval a"]'
    decision = decided(
        tmp_path, text('["r0 = execute a"]', edit, 'allowed = ["U.r0 == 1", "U.r0 == 2"]')
    )

    assert decision.result.exhausted
    assert states(decision) == {str({"U.r0": value}) for value in "12"}


@pytest.mark.parametrize(("inval", "left"), [('"inval a", ', "-1"), ("", "1")])
def test_text_made_nx_is_executed_until_the_inval(inval: str, left: str, tmp_path: Path) -> None:
    edit = f'["vset a X V|U|NX", {inval}"post 1"]'
    decision = decided(
        tmp_path,
        text('["await 1", "r0 = execute a"]', edit, 'allowed = "U.r0 == 9"', 'checks = ["refs"]'),
    )

    assert states(decision) == {str({"U.r0": left})}


def test_reclaim_of_a_text_page_that_runs(tmp_path: Path) -> None:
    """W06 for EXECUTE: the next owner's words run as the program's text."""
    reclaim = f"""
[litmus]
name = "machine-code"
title = "reclaim of text"
breaks = "another owner's bytes are executed"
spare = 0
checks = ["refs"]

[host]
cpus = 2

[page.X]
words = {ONE}
dmap = "r"

[va.a]
va = 0x400000
page = "X"
mapped = "r"
tlb = [0]

[[thread]]
name = "U"
kind = "user"
cpu = 0
run = ["r0 = try_execute a"]

[[thread]]
name = "P"
kind = "pageout"
run = ["scan_active X", "scan_active X", "scan_inactive X", "r0 = reuse {TWO[1:-1]}"]

[outcome]
forbidden = "U.r0 == 2"
"""
    assert decided(tmp_path, reclaim, "pv_entry").result.verdict == "pass"
    blind = decided(tmp_path, reclaim, "extent_scan").result
    assert blind.failure is not None
    assert "U.r0=2" in blind.failure.message

"""A file with something wrong in it is one line, with the place, before anything runs."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vkemu import explore
from vkemu.exploration.result import Result
from vkemu.litmus import decide
from vkemu.litmus.actor import VERBS
from vkemu.litmus.file import read
from vkemu.verdict import UsageError

from tests.litmus.grammar import (
    WRONG_KEYS,
    Document,
    document,
    documents,
    wrong_counts,
    wrong_key,
    wrong_statements,
)
from vkhost.rmap import POLICIES

PATH = Path("drawn.toml")


def said(drawn: Document) -> str:
    with pytest.raises(UsageError) as error:
        all_of_it(drawn)
    return str(error.value)


def all_of_it(drawn: Document) -> None:
    litmus = read(drawn, PATH)
    litmus.variants()
    decide.Test(litmus, "pv_entry")


def check(drawn: Document, place: str) -> None:
    line = said(drawn)
    assert line.startswith(f"drawn.toml:{place}"), line
    assert "expected" in line or "written by no thread" in line or "no register" in line, line
    assert "?" not in line.replace("?]", ""), line
    assert "\n" not in line
    assert len(line) < 700, line


@given(wrong_statements())
def test_a_wrong_operand(case: tuple[Document, str]) -> None:
    check(*case)


@given(wrong_counts())
def test_a_wrong_number_of_operands(case: tuple[Document, str]) -> None:
    check(*case)


@pytest.mark.parametrize(
    ("path", "value", "place"), WRONG_KEYS, ids=[f"{p}={v!s:.20}" for p, v, _ in WRONG_KEYS]
)
def test_a_wrong_key(path: str, value: object, place: str) -> None:
    check(wrong_key(path, value), place)


def walked(
    drawn: Document, policy: str, executions: int, max_seconds: float | None = None
) -> Result:
    litmus = read(drawn, PATH)
    return explore(
        decide.Test(litmus, policy), strategy="random", max_executions=executions, max_steps=2_000,
        max_seconds=max_seconds,
    )  # fmt: skip


@settings(max_examples=60)
@given(documents(), st.sampled_from(sorted({*POLICIES} - {"removed"})))
def test_only_the_kernel_makes_a_verdict(drawn: Document, policy: str) -> None:
    """Whatever a file says that names only what there is: a verdict, or one line that says which
    statement came where it does not fit. Anything else is raised as a bug of ours."""
    with suppress(UsageError):
        walked(drawn, policy, 2, max_seconds=0.5)  # to shrink a failure takes minutes, for some


@pytest.mark.parametrize(
    ("kind", "run", "expected"),
    [
        ("user", ["swtch_out", "load a"], "run[1]: 'load a': the CPU is idle, expected"),
        ("user", ["swtch_out", "execute a"], "run[1]: 'execute a': the CPU is idle, expected"),
        ("user", ["swtch_in"], "run[0]: 'swtch_in': it runs on the CPU, expected"),
        ("user", ["swtch_out", "swtch_out"], "run[1]: 'swtch_out': the CPU is idle already"),
        ("guest", ["fork", "child_exit", "child_exit"], "run[2]: 'child_exit': no child yet, expe"),
        ("guest", ["unlock 3"], "run[0]: 'unlock 3': it has not got the lock"),
        ("guest", ["lock 3", "lock 3"], "run[1]: 'lock 3': it has the lock already"),
        ("guest", ["if r0 == 1: r0 = vread a", "dstore X 0 r0"], "r0 is not written yet"),
    ],
)
def test_a_statement_that_comes_where_it_does_not_fit(
    kind: str, run: list[str], expected: str
) -> None:
    drawn = document([{"name": "T", "kind": kind, "cpu": 0, "run": run}])
    drawn["va"]["a"]["tlb"] = []

    with pytest.raises(UsageError) as error:
        walked(drawn, "pv_entry", 1)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("before", "spare", "expected"),
    [
        (["setvm child", "fork"], None, "before[0].run[0]: 'setvm child': no child yet, expected"),
        (["private 16", "fork", "store a 1"], 0, "before[0].run[2]: 'store a 1' waits and nobody"),
    ],
)
def test_what_cannot_come_before(before: list[str], spare: int | None, expected: str) -> None:
    drawn = document([{"name": "T", "kind": "user", "cpu": 0, "run": []}])
    drawn["before"] = [{"thread": "T", "run": before}]
    drawn["va"]["a"]["va"] = 0x3000
    if spare is not None:
        drawn["litmus"]["spare"] = spare

    with pytest.raises(UsageError) as error:
        walked(drawn, "pv_entry", 1)
    assert str(error.value).startswith(f"drawn.toml:{expected}")


def test_a_child_that_a_cpu_runs_does_not_exit() -> None:
    run = ["fork", "setvm child", "post 1"]
    user = {"name": "T", "kind": "user", "cpu": 0, "run": run}
    drawn = document([user, {"name": "H", "kind": "host", "run": ["await 1", "child_exit"]}])

    with pytest.raises(UsageError, match=r"'child_exit': a CPU runs it, expected a `setvm guest`"):
        walked(drawn, "pv_entry", 1)


def test_what_a_thread_has_done_before_is_no_step_and_its_registers_are_known() -> None:
    drawn = document([{"name": "T", "kind": "user", "cpu": 0, "run": ["store b r1"]}])
    drawn["before"] = [{"thread": "T", "run": ["r0 = load a", "r1 = load a 1"]}]
    drawn["outcome"] = {"forbidden": "T.r0 != 1 or T.r1 != 2 or Y[0] != 2"}
    found = walked(drawn, "pv_entry", 1)

    drawn["before"] = []
    drawn["thread"][0]["run"] = ["store b 2"]
    drawn["outcome"] = {}
    assert (found.verdict, found.steps) == ("pass", walked(drawn, "pv_entry", 1).steps)


def test_a_register_is_an_operand() -> None:
    run = ["r0 = vread a", "dstore X 0 r0", "r1 = dload X 0"]
    drawn = document([{"name": "T", "kind": "guest", "cpu": 1, "run": run}])
    drawn["outcome"] = {"forbidden": "T.r1 != T.r0"}

    assert walked(drawn, "pv_entry", 1).verdict == "pass"


def test_a_bug_of_ours_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> int:
        raise KeyError("ours")

    entry = dataclasses.replace(VERBS["vread"], do=broken)
    monkeypatch.setitem(VERBS, "vread", entry)
    drawn = document([{"name": "T", "kind": "guest", "cpu": 1, "run": ["vread a"]}])

    with pytest.raises(KeyError) as error:
        walked(drawn, "pv_entry", 1)
    assert "in thread T, step 0" in error.value.__notes__[0]

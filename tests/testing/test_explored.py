"""Explored tests: found, run, told and replayed by pytest, among tests of other kinds."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import vkemu
from vkemu.testing.explored import ScheduleFailure, Undecided

from tests.testing.conftest import Suite

FAILING = """
@vkemu.explored()
async def test_sum(k):
    x = k.cell("x")
    one = k.spawn("one", increment, x)
    other = k.spawn("other", increment, x)
    await k.join(one)
    await k.join(other)
    assert x.value == 2
"""
BUILDER = """
@pytest.mark.vkemu(strategy="dfs")
def test_builder(k):
    x = k.cell("x")
    k.spawn("one", increment, x)
    k.spawn("other", increment, x)
    k.at_end(lambda: x.value in {1, 2})
"""
NO_K = """
@pytest.mark.vkemu
async def test_plain(): pass
"""
TRIO = """
import trio

async def test_trio(nursery):
    await trio.lowlevel.checkpoint()
"""


@vkemu.explored()
async def test_a_thread_is_joined_and_says_what_it_found(k: Any) -> None:
    x = k.cell("x")

    async def add(n: int) -> int:
        await x.add(n)
        return n

    threads = [k.spawn(f"add {n}", add, n) for n in (1, 2)]
    assert [await k.join(thread) for thread in threads] == [1, 2]
    assert x.value == 3


@vkemu.explored()
def test_a_plain_test_builds_the_program(k: Any) -> None:
    x = k.cell("x")
    k.spawn("one", x.add, 1)
    k.spawn("other", x.add, 1)
    k.at_end(lambda: x.value == 2)


class TestMethods:
    @vkemu.explored()
    async def test_of_a_class(self, k: Any, tmp_path: Any) -> None:
        await k.cell("x").store(tmp_path.name)
        assert isinstance(self, TestMethods)


def test_without_pytest_it_is_a_function() -> None:
    @vkemu.explored()
    async def lost(k: Any) -> None:
        x = k.cell("x")

        async def increment() -> None:
            await x.store(await x.load() + 1)

        for thread in [k.spawn("a", increment), k.spawn("b", increment)]:
            await k.join(thread)
        assert x.value == 2, "an update is lost"

    with pytest.raises(ScheduleFailure, match="an update is lost") as caught:
        lost()
    assert caught.traceback[-1].name == "lost"
    assert caught.value.token.startswith("vkx1.")


def test_join_needs_a_joinable_thread() -> None:
    def program(k: Any) -> None:
        async def nothing() -> None:
            await k.cell("x").load()

        async def join() -> None:
            await k.join(thread)

        thread = k.spawn("a", nothing)
        k.spawn("b", join)

    failure = vkemu.explore(program).failure
    assert failure is not None
    assert "set k.joinable" in failure.message


@pytest.mark.parametrize("strategy", ["dfs", "dpor", "random", "pct"])
def test_joins_are_explored_by_every_strategy(strategy: str) -> None:
    def program(k: Any) -> None:
        k.joinable = True
        x = k.cell("x")

        async def root() -> None:
            threads = [k.spawn(name, x.add, 1) for name in "ab"]
            for thread in threads:
                await k.join(thread)
            assert await x.load() == 2

        k.spawn("root", root)

    assert vkemu.explore(program, strategy=strategy, max_executions=2000).verdict == "pass"


@pytest.mark.parametrize("options", [{"strategies": "dpor"}, {"unknown": "skip"}])
def test_a_wrong_option_is_refused(options: Any) -> None:
    with pytest.raises(TypeError, match="explored: "):
        vkemu.explored(**options)


def test_a_test_without_k_is_refused() -> None:
    with pytest.raises(TypeError, match="takes no argument 'k'"):
        vkemu.explored()(lambda: None)


def many(k: Any) -> None:
    x = k.cell("x")
    for name in "abcd":
        k.spawn(name, x.add, 1)


def test_a_search_out_of_budget_is_no_pass() -> None:
    with pytest.raises(Undecided, match=r"no failure in 3 executions by dpor"):
        vkemu.explored(max_executions=3)(many)()
    vkemu.explored(max_executions=3, unknown="pass")(many)()
    vkemu.explored(max_executions=3, strategy="random")(many)()


def token_of(result: pytest.RunResult) -> str:
    found = re.search(r"--vkemu-replay=(\S+)", result.stdout.str())
    assert found is not None
    return found[1]


def test_a_failure_is_told_with_the_line_that_replays_it(suite: Suite) -> None:
    result = suite(FAILING)
    result.assert_outcomes(failed=1)
    out = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "*assert x.value == 2*",
            "*- vkemu -*",
            "*test * one * other*",
            "*store x*: 0 -> 1*",
            "*token: vkx1.*",
            "replay: pytest test_it.py::test_sum --vkemu-replay=vkx1.*",
            "*= vkemu: replay a failing schedule =*",
            "pytest test_it.py::test_sum --vkemu-replay=vkx1.*",
        ]
    )
    again = suite.pytester.runpytest_inprocess(
        "test_it.py::test_sum", f"--vkemu-replay={token_of(result)}"
    )
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["*(replayed)*", "*store x*: 0 -> 1*"])
    assert "explored.py" not in out  # the traceback is the test's, not ours


def test_a_replay_of_a_changed_test_says_so(suite: Suite) -> None:
    token = token_of(suite(FAILING))
    mended = FAILING.replace("x.value == 2", "x.value >= 1")
    result = suite(mended, "--vkemu-replay", token)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*replay: the program is not the one this token*"])


def test_a_replay_wants_one_explored_test(suite: Suite) -> None:
    token = token_of(suite(FAILING))
    result = suite(FAILING + BUILDER, "--vkemu-replay", token)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*2 explored tests are selected, expected one*"])
    result = suite(FAILING + BUILDER, "--vkemu-replay", "vkx1.AAAA")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--vkemu-replay: damaged token*"])


def test_a_marker_is_enough_for_plain_and_async_tests(suite: Suite) -> None:
    marked = FAILING.replace("@vkemu.explored()", "@pytest.mark.vkemu")
    result = suite(marked + BUILDER, "-m", "vkemu")
    result.assert_outcomes(passed=1, failed=1)


def test_a_marked_module_explores_what_takes_k(suite: Suite) -> None:
    text = (
        "pytestmark = pytest.mark.vkemu(strategy='dfs')\n"
        + TRIO
        + FAILING.replace("@vkemu.explored()", "").replace("== 2", ">= 1")
    )
    suite(text).assert_outcomes(passed=2)


def test_decorated_tests_are_selected_by_the_marker(suite: Suite) -> None:
    result = suite(FAILING + TRIO, "-m", "not vkemu")
    result.assert_outcomes(passed=1, deselected=1)


def test_a_test_of_no_event_loop_says_so(suite: Suite) -> None:
    result = suite(NO_K)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_plain takes no argument 'k', and is of no event loop*"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BUILDER.replace("strategy", "strategies"), "*no option 'strategies'*"),
        (BUILDER.replace("strategy=", ""), "*takes keywords only*"),
    ],
)
def test_a_wrong_marker_is_an_error_of_collection(suite: Suite, text: str, message: str) -> None:
    result = suite(text)
    assert result.ret in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR}
    assert result.stdout.str() + result.stderr.str()
    both = result.outlines + result.errlines
    result.stdout.__class__(both).fnmatch_lines([message])


def test_the_seed_comes_from_the_command_line_before_the_marker_before_the_ini(
    suite: Suite,
) -> None:
    text = """
@vkemu.explored(strategy="random")
def test_seed(k):
    async def fail(): assert False
    k.spawn("a", fail)
"""
    suite.pytester.makeini("[pytest]\nvkemu_seed = 5\nvkemu_max_executions = 9\n")
    suite(text).stdout.fnmatch_lines(["*by random, seed 5*"])
    marked = text.replace("@vkemu", "@pytest.mark.vkemu(seed=6)\n@vkemu")
    suite(marked).stdout.fnmatch_lines(["*by random, seed 6*"])
    suite(marked, "--vkemu-seed=7").stdout.fnmatch_lines(["*by random, seed 7*"])
    suite.pytester.makeini("[pytest]\nvkemu_seed = five\n")
    assert suite(text).ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("order", ["given outside", "given inside"])
def test_hypothesis_gives_what_is_explored(suite: Suite, order: str) -> None:
    given = "@given(st.integers(0, 3))"
    if order == "given inside":
        given = "@given(n=st.integers(0, 3))"
    decorators = [given, "@vkemu.explored()"]
    if order == "given inside":
        decorators.reverse()
    text = """
from hypothesis import given, settings, strategies as st
settings.register_profile("t", database=None, derandomize=True, max_examples=20)
settings.load_profile("t")

{decorators}
async def test_less(k, n):
    x = k.cell("x")
    for i in range(n):
        k.spawn(f"t{{i}}", increment, x)
    await x.load()
    {verdict}
"""
    fine = text.format(decorators="\n".join(decorators), verdict="assert x.value <= n")
    suite(fine + TRIO).assert_outcomes(passed=2)
    wrong = text.format(decorators="\n".join(decorators), verdict="assert x.value < 1")
    result = suite(wrong)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*n=1*", "*- vkemu -*", "*replay: pytest *"], consecutive=False)


@pytest.mark.slow
def test_with_xdist_the_failure_is_told_too(suite: Suite) -> None:
    suite.pytester.makepyfile(test_other=TRIO)
    result = suite(FAILING + BUILDER, "-n", "2")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["*- vkemu -*", "*= vkemu: replay a failing schedule =*", "pytest test_it.py::test_sum *"]
    )


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest; known = set(sys.modules); "
        "import vkemu.testing.pytest_plugin; print(*set(sys.modules) - known)"
    )
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {name for name in imported if name.partition(".")[0] in {"vkemu", "vkhost", "vkguest"}}
    assert ours == {
        "vkemu", "vkemu.testing.pytest_plugin", "vkemu.testing", "vkemu.testing.explored",
    }  # fmt: skip
    assert not {"trio", "anyio", "msgspec", "rich", "hypothesis"} & set(imported)

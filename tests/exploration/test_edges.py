"""dfs and the reductions say the same of what a search is not told: `edges`."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from typing import Any

import pytest
from vkemu import explore
from vkemu.exploration.exploring import ALONE
from vkemu.exploration.program import Program
from vkemu.exploration.run import Run
from vkemu.exploration.strategies.dpor import Dpor

from tests.exploration import asking, corners, edges, ending, hidden, setting, waiting

STRATEGIES = ("dfs", "dpor", "source-dpor")
SET_AND_SET_BACK = [
    edges.closure, edges.comprehension, edges.inner_lambda, edges.class_attribute,
    edges.module_attribute, edges.imported, edges.text_with_attributes, edges.bound_builtin,
    edges.bound_count, edges.instance, edges.filled_dict, edges.by_name, hidden.member_of_an_enum,
    hidden.class_that_is_asked, hidden.module_that_is_asked, hidden.list_in_a_cell,
    hidden.object_in_a_cell, hidden.list_in_a_queue, hidden.by_pattern, hidden.by_place,
    hidden.by_format, hidden.by_its_own_method, hidden.by_default, hidden.by_class, hidden.by_kind,
]  # fmt: skip


def verdicts(program: Any, **options: Any) -> dict[str, tuple[str, list[str]]]:
    found = {name: explore(program, strategy=name, **options) for name in STRATEGIES}
    return {name: (result.verdict, sorted(result.kinds)) for name, result in found.items()}


def agreed(program: Any, **options: Any) -> tuple[str, list[str]]:
    """What all of them say."""
    found = verdicts(program, stop_on_failure=False, **options)
    assert found["dpor"] == found["source-dpor"] == found["dfs"]
    return found["dfs"]


@pytest.mark.parametrize("program", SET_AND_SET_BACK)
def test_always_sees_a_variable_that_is_set_and_set_back(program: Any) -> None:
    assert agreed(program)[0] == "fail"
    assert explore(program).verdict == "fail"


def test_always_sees_loads_that_change_their_object() -> None:
    assert agreed(edges.readers)[0] == "fail"


def test_always_may_be_said_by_a_thread() -> None:
    assert agreed(edges.late)[0] == "fail"
    for strategy in ("bounded", "random", "pct", "portfolio", "urw", "pos"):
        assert explore(edges.late, strategy=strategy).verdict == "fail"


def test_what_a_predicate_is_seen_to_read_counts_besides_what_it_declares() -> None:
    assert agreed(edges.less_than_it_reads)[0] == "fail"


def test_that_every_step_counts_is_said_in_one_line() -> None:
    (remark,) = explore(edges.closure, stop_on_failure=False).remarks
    assert remark.startswith("always: <lambda> (edges.py:")
    assert "reads variables that steps change: every step counts; say reads=[...]" in remark
    (remark,) = explore(edges.by_name, stop_on_failure=False).remarks
    assert "reads getattr, which cannot be followed" in remark
    assert explore(edges.readers).remarks == []


@pytest.mark.parametrize(
    "program",
    [
        edges.looks_at_a_cell, edges.looks_at_a_lock, edges.looks_at_a_thread,
        edges.looks_after_a_choice, edges.looks_at_what_it_has_made_itself, hidden.looks_by_name,
        hidden.looks_by_a_name_that_is_put_together, asking.looks_by_a_pattern,
        asking.looks_by_a_format, asking.looks_by_a_slot, asking.made_anew,
        asking.asks_by_a_pattern, asking.asks_whether_it_failed, asking.asks_whether_time_is_out,
        asking.asks_for_children, asking.asks_for_errors, asking.two_enter_a_timeout,
        asking.two_enter_a_nursery, asking.started_from_outside, asking.keys_like_our_own,
    ],
)  # fmt: skip
def test_a_read_without_an_effect_is_an_access_of_its_step(program: Any) -> None:
    assert agreed(program)[0] == "fail"


@pytest.mark.parametrize(
    "program",
    [
        setting.assigned, setting.added_to, setting.by_setattr, setting.set_to_what_it_is,
        setting.undeclared, setting.element_of_a_list, setting.of_a_queue, setting.of_a_lock,
        setting.before_the_first_await, setting.cleaning_up, setting.looked_at_and_set,
        setting.what_must_always_hold, setting.of_an_event_that_is_waited_for,
    ],
)  # fmt: skip
def test_a_write_without_an_effect_is_an_access_of_its_step(program: Any) -> None:
    assert agreed(program)[0] == "fail"
    for options in ({"strategy": "bounded"}, {"check": True}):
        found = explore(program, stop_on_failure=False, **options)
        assert (found.verdict, found.exhausted) == ("fail", True)
        assert ALONE not in found.remarks


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (asking.asks_for_what_is_pending, "b uses pending of a (asking.py:"),
        (asking.asks_who_waits, "b uses waiters of q (asking.py:"),
        (asking.makes_it_anew, "b uses __init__ of q (asking.py:"),
        (asking.limits_in_a_thread, "b calls limit of q (asking.py:"),
    ],
)
def test_what_is_not_for_threads_is_refused_where_it_is_used(program: Any, said: str) -> None:
    _, (kind,) = agreed(program)
    assert kind.startswith(f"b: TypeError: {said}")


def test_that_a_write_without_an_effect_counts_is_said_in_one_line() -> None:
    (remark,) = explore(setting.undeclared, jobs=2, stop_on_failure=False).remarks
    assert remark.startswith("y is set by a thread without an effect: every step counts; await its")
    found = explore(setting.in_order)
    assert (found.verdict, found.executions, found.remarks) == ("pass", 2, [])


def test_what_one_has_taken_out_another_may_have_seen_before() -> None:
    assert agreed(setting.swapped_away)[0] == "fail"


def test_a_guard_of_a_select_looks_at_its_own_object_alone() -> None:
    _, kinds = agreed(setting.select_that_looks_elsewhere)
    assert all(": GuardError: a guard of " in kind for kind in kinds), kinds
    assert kinds


@pytest.mark.parametrize("program", [setting.by_a_guard, setting.by_a_predicate])
def test_what_is_there_to_look_sets_nothing(program: Any) -> None:
    _, (said,) = agreed(program)
    assert "sets x (setting.py:" in said


@pytest.mark.parametrize(
    "program",
    [
        ending.last_of_a_list, ending.last_cell_of_a_list, ending.last_in_a_dict,
        ending.last_of_a_variable,
        ending.last_of_a_field, ending.inside_of_what_is_put_there, ending.lost_update,
    ],
)  # fmt: skip
def test_at_end_sees_variables_that_steps_change(program: Any) -> None:
    assert agreed(program)[0] == "fail"
    (remark,) = explore(program, stop_on_failure=False).remarks
    assert remark.startswith("at_end: <lambda> (ending.py:")
    assert "reads variables that steps change: those that write what is there already" in remark


def test_at_end_costs_nothing_where_steps_are_in_order_or_change_nothing() -> None:
    found = explore(ending.one_after_the_other)
    assert (found.verdict, found.executions) == ("pass", 2)
    found = explore(ending.each_its_own)
    assert (found.verdict, found.executions, found.remarks) == ("pass", 1, [ALONE])


@pytest.mark.parametrize(
    "program", [ending.out_of_every_object, ending.read_by_a_thread, ending.written_as_it_is]
)
def test_what_a_search_does_not_see_the_race_check_does(program: Any) -> None:
    """The list of misses: one that is none any more goes from here and from the README."""
    found = verdicts(program)
    assert [found[name][0] for name in STRATEGIES] == ["fail", "pass", "pass"]
    (kind,) = explore(program, check=True).kinds
    assert ": DataRace: data race on " in kind


def joined(k: Any) -> None:
    k.joinable = True
    x = k.cell("x")

    async def work() -> None:
        one, other = k.spawn("one", x.add, 1), k.spawn("other", x.add, 1)
        await k.join(one)
        await k.join(other)
        assert x.value == 2
        assert one.done

    k.spawn("work", work)


def test_a_read_that_the_effects_put_in_order_costs_nothing() -> None:
    found = explore(joined)
    assert (found.verdict, found.executions, found.remarks) == ("pass", 2, [])


@pytest.mark.parametrize("program", [edges.object_of_no_repr, edges.partial_predicate])
def test_a_predicate_of_any_kind_is_named_the_same_every_time(program: Any) -> None:
    verdict, kinds = agreed(program)
    assert verdict == "fail"
    assert all(" at 0x" not in kind for kind in kinds)


def test_every_failure_of_a_trace_is_kept() -> None:
    assert agreed(edges.two_fail) == ("fail", ["a: KeyError: 'x'", "b: ValueError: y"])
    expected = ["a: KeyError: 'first'", "b: ValueError: second"]
    assert agreed(edges.second_after_the_first) == ("fail", expected)


def test_every_failure_of_a_step_is_kept() -> None:
    expected = ["child: ValueError: child", "parent: KeyError: 'parent'"]
    assert agreed(corners.both_fail) == ("fail", expected)


def test_a_guard_looks_at_its_own_object_alone() -> None:
    _, (said,) = agreed(edges.guard_of_two)
    assert said.startswith("w: GuardError: a guard of d looks at c (edges.py:")
    assert agreed(edges.guard_of_two, check=True)[1] == [said]


def test_a_guard_that_holds_and_was_not_asked_is_no_deadlock() -> None:
    _, (said,) = agreed(edges.guard_of_a_variable)
    assert said.startswith("GuardError: w waits to wait d (edges.py:")


@pytest.mark.parametrize(
    ("program", "reads"),
    [
        (waiting.variable, "reads ready, which"),
        (waiting.attribute, "reads flag, which"),
        (waiting.of_the_module, "reads flag, which"),
        (waiting.container, "reads a list, which"),
        (waiting.of_the_main_thread, "reads ready, which"),
        (waiting.of_another_kind, "reads a list, which"),
        (waiting.handed_over, "reads ready, which"),
        (partial(waiting.handed_over, first=False), "reads ready, which"),
        (waiting.of_another_call, "reads "),
        (waiting.by_name, "reads ready, which"),
        (waiting.made_anew, "reads ready, which"),
        (waiting.given_by_another, "reads ready, which"),
    ],
)
def test_what_a_guard_reads_besides_its_object_counts(program: Any, reads: str) -> None:
    assert agreed(program)[0] == "fail"
    (remark,) = explore(program, stop_on_failure=False).remarks
    assert remark.startswith("a guard (waiting.py:")
    assert reads in remark


@pytest.mark.parametrize(
    "program", [waiting.variable, waiting.handed_over, waiting.of_another_call, waiting.filled]
)
def test_how_much_is_done_is_known_after_every_execution(program: Any) -> None:
    """Also after one that was abandoned before its first step."""
    run = Run(Program(program, {}), 1000)
    strategy = Dpor(run.program.numbers)
    abandoned = 0
    while strategy.start():
        kept = len(strategy.trace)
        run.begin()
        strategy.conduct(run)
        run.finish()
        if strategy.stale:
            strategy.restart()
            continue
        abandoned += run.blocked and len(run.schedule) == kept
        assert 0 <= strategy.share() <= 1
    assert abandoned


def test_what_a_guard_is_given_counts_where_it_can_change() -> None:
    assert agreed(waiting.filled)[0] == "fail"
    (remark,) = explore(waiting.filled, stop_on_failure=False).remarks
    assert remark.startswith("a guard looks into what x holds, which can be changed without x")


@pytest.mark.parametrize(
    ("program", "executions"),
    [
        (waiting.opened_list, 21),
        (waiting.opened_variable, 21),
        (waiting.opened_event, 21),
        (partial(waiting.opened_list, sleeps=True), 21),
    ],
)
def test_who_was_not_asked_is_not_when_a_prefix_is_taken_again(
    program: Any, executions: int
) -> None:
    for strategy in ("dfs", "bounded", "dpor", "source-dpor"):
        found = explore(program, strategy=strategy)
        assert (found.verdict, found.executions) == ("pass", executions), strategy


def test_what_a_guard_is_given_costs_nothing() -> None:
    found = explore(waiting.numbers)
    assert (found.verdict, found.executions, found.remarks) == ("pass", 1, [ALONE])


def test_a_lazy_object_has_a_key_of_its_own() -> None:
    assert agreed(edges.lazy_and_not) == ("pass", [])


def test_a_lock_is_told_of_who_does_not_hold_it() -> None:
    _, kinds = agreed(edges.downgraded_by_a_stranger)
    assert [kind.partition(";")[0] for kind in kinds] == [
        "b: LockOrderError: b downgrades rw, which it does not hold"
    ] * len(kinds)
    _, kinds = agreed(edges.released_by_nobody)
    assert kinds == ["a: LockOrderError: a releases rw, which it does not hold; nobody does"]


@pytest.mark.parametrize(
    ("program", "bound"),
    [
        (edges.spins, 8),
        (edges.spins, 10),
        (edges.spin_on_each_other, 8),
        (edges.spin_on_each_other, 9),
        (edges.chain_of_spins, 6),
    ],
)
def test_traces_that_end_are_found_beside_those_that_are_cut(program: Any, bound: int) -> None:
    assert agreed(program, max_steps=bound)[0] == "fail"


def deep(k: Any) -> None:
    """As deep as it can be without being checked."""
    x = k.cell("x")

    def recurse(left: int) -> int:
        return recurse(left - 1) if left else 0

    async def work() -> None:
        await x.load()
        recurse(sys.getrecursionlimit() - len(inspect.stack(0)) - 40)

    k.spawn("a", work)


def test_a_recursion_that_passes_passes_checked() -> None:
    assert explore(deep).verdict == "pass"
    assert explore(deep, check=True).verdict == "pass"

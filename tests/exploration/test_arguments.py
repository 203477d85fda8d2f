"""What `explore` and `replay` are asked wrongly is one line: the argument, and what is expected."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from vkemu import explore, replay
from vkemu.exploration.strategies import NAMES

from tests.exploration.divided import lost_update


class Choosing:
    def choose(self, runnable: list[int], execution: Any) -> int:
        return runnable[0]


@pytest.mark.parametrize(
    ("argument", "value", "kind", "expected"),
    [
        ("max_executions", -1, ValueError, "a whole number, at least 0"),
        ("max_executions", 1.5, TypeError, "a whole number, at least 0"),
        ("max_executions", "10", TypeError, "a whole number, at least 0"),
        ("max_executions", True, TypeError, "a whole number, at least 0"),
        ("max_seconds", -0.1, ValueError, "seconds, at least 0"),
        ("max_seconds", float("nan"), ValueError, "seconds, at least 0"),
        ("max_seconds", "1", TypeError, "seconds, at least 0"),
        ("max_steps", -1, ValueError, "a whole number, at least 0"),
        ("max_steps", None, TypeError, "a whole number, at least 0"),
        ("jobs", 0, ValueError, "a whole number, at least 1"),
        ("jobs", -2, ValueError, "a whole number, at least 1"),
        ("jobs", None, TypeError, "a whole number, at least 1"),
        ("seed", "x", TypeError, "a whole number"),
        ("seed", None, TypeError, "a whole number"),
        ("on_step_bound", "pass", ValueError, "'unknown' or 'fail'"),
        ("on_step_bound", None, ValueError, "'unknown' or 'fail'"),
        ("strategy", None, TypeError, "one of random, pct, "),
        ("strategy", 3, TypeError, "an object with choose"),
        ("strategy", Choosing, TypeError, "an object with choose"),
        ("progress", 1, TypeError, "a function or None"),
        ("each", "f", TypeError, "a function or None"),
        ("checkpoint", 3, TypeError, "the path of a file or None"),
        ("check", "yes", TypeError, "True or False"),
        ("stop_on_failure", "no", TypeError, "True or False"),
        ("workers", 2, TypeError, "an object with submit, results, close"),
    ],
)
def test_an_argument_is_named_with_what_is_expected(
    argument: str, value: Any, kind: type[Exception], expected: str
) -> None:
    with pytest.raises(kind) as raised:
        explore(lost_update, **{argument: value})
    said = str(raised.value)
    assert said.startswith(f"{argument}: {value!r}, expected ")
    assert expected in said
    assert "\n" not in said


def test_an_unknown_strategy_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match=f"no strategy 'dpr': expected one of {', '.join(NAMES)}"):
        explore(lost_update, strategy="dpr")


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_executions": 0},
        {"max_seconds": 0},
        {"max_seconds": float("inf")},
        {"max_seconds": 1e30},
        {"max_steps": 0},
        {"seed": -1},
        {"strategy": Choosing(), "max_executions": 1},
    ],
)
def test_what_is_odd_and_has_a_meaning_is_no_mistake(arguments: dict[str, Any]) -> None:
    assert explore(lost_update, **arguments).verdict in {"unknown", "fail", "pass"}


async def asynchronous(k: Any) -> None:
    await k.cell("x").load()


def generating(k: Any) -> Any:
    yield k.cell("x")


async def both(k: Any) -> Any:
    yield k.cell("x")


def returning(k: Any) -> Any:
    return lambda: k.cell("x").value == 2


@pytest.mark.parametrize("program", [asynchronous, partial(asynchronous)])
def test_an_async_program_is_the_first_thread(program: Any) -> None:
    found = explore(program)
    assert (found.verdict, found.steps) == ("pass", 1)


MISTAKEN = [
    (generating, "generating is a generator function, whose body never runs"),
    (both, "both is a generator function, whose body never runs"),
    (returning, "returns a function, returning.<locals>.<lambda>, which nobody calls"),
]


@pytest.mark.parametrize(("program", "why"), MISTAKEN)
@pytest.mark.parametrize("check", [False, True])
def test_a_program_whose_body_never_runs_is_refused(program: Any, why: str, check: bool) -> None:
    with pytest.raises(TypeError, match=rf"^program: .*{why}; expected a plain function$"):
        explore(program, check=check)
    with pytest.raises(TypeError, match=why):
        replay(program, explore(lost_update).failure.token)  # type: ignore[union-attr]


@pytest.mark.parametrize("program", [None, 3, "p.py:program"])
@pytest.mark.parametrize("check", [False, True])
def test_what_cannot_be_called_is_no_program(program: Any, check: bool) -> None:
    with pytest.raises(TypeError, match=r"^program: .*, expected a function that takes k$"):
        explore(program, check=check)
    with pytest.raises(TypeError, match=r"^program: .*, expected a function that takes k$"):
        replay(program, explore(lost_update).failure.token)  # type: ignore[union-attr]


@pytest.mark.parametrize("token", [None, b"vkx1.AAAA", 3])
def test_a_token_is_a_str(token: Any) -> None:
    with pytest.raises(TypeError, match=r"^token: .*, expected a token as explore prints it"):
        replay(lost_update, token)


@pytest.mark.parametrize("where", ["at_end", "always"])
@pytest.mark.parametrize("jobs", [1])
def test_a_predicate_whose_body_never_runs_is_refused(where: str, jobs: int) -> None:
    def program(k: Any) -> None:
        async def holds() -> bool:
            return False

        k.spawn("a", k.cell("x").load)
        getattr(k, where)(holds)

    with pytest.raises(TypeError, match=rf"^{where}: .*holds is async, and its body never runs"):
        explore(program, jobs=jobs)


@pytest.mark.parametrize("where", ["at_end", "always"])
def test_a_predicate_is_a_function(where: str) -> None:
    with pytest.raises(TypeError, match=rf"^{where}: True, expected a function$"):
        explore(lambda k: getattr(k, where)(True))


@pytest.mark.parametrize("body", [None, 3, lambda: None])
@pytest.mark.parametrize("late", [False, True])
def test_a_thread_is_a_coroutine(body: Any, late: bool) -> None:
    """Said at the line of the spawn; in a thread it is that thread's failure."""

    def program(k: Any) -> None:
        async def parent() -> None:
            await k.cell("x").load()
            k.spawn("child", body)

        if late:
            k.spawn("parent", parent)
        else:
            k.spawn("child", body)

    said = r"spawn\('child'\): expected a coroutine function, not what gives "
    if late:
        failure = explore(program).failure
        assert failure is not None
        assert failure.message.startswith("parent: TypeError: spawn('child'): expected a corou")
    else:
        with pytest.raises(TypeError, match=said):
            explore(program)

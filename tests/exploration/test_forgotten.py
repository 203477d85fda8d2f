"""A forgotten `await` does nothing and says nothing: it is found in the first execution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vkemu import explore
from vkemu.commands.cli import main
from vkemu.exploration.forgotten import ForgottenAwait

HERE = Path(__file__).name
Operation = Callable[[Any], object]

# k -> what its thread makes and drops.
OPERATIONS: dict[str, Operation] = {
    "Cell.load": lambda k: k.cell("x").load(),
    "Cell.store": lambda k: k.cell("x").store(1),
    "Cell.wait": lambda k: k.cell("x").wait(bool),
    "Lock.acquire": lambda k: k.lock("l").acquire(),
    "Lock.release": lambda k: k.lock("l").release(),
    "RWLock.acquire_shared": lambda k: k.rwlock("l").acquire_shared(),
    "Semaphore.acquire": lambda k: k.semaphore("s").acquire(),
    "Event.set": lambda k: k.event("e").set(),
    "Queue.put": lambda k: k.queue("q").put(1),
    "k.sleep": lambda k: k.sleep(1),
    "k.choose": lambda k: k.choose(2),
    "k.step": lambda k: k.step(k.cell("x")),
    "Condition.notify": lambda k: k.condition("c").notify(),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strategy", ["dpor", "dfs", "random"])
def test_an_operation_that_is_dropped(name: str, strategy: str) -> None:
    def program(k: Any) -> None:
        async def thread() -> None:
            OPERATIONS[name](k)

        k.spawn("a", thread)

    with pytest.raises(ForgottenAwait) as error:
        explore(program, strategy=strategy)
    said = str(error.value)
    assert f"{name}() is never awaited and does nothing, expected `await`" in said
    assert f"{HERE}:" in said


def test_one_that_is_kept_is_told_by_the_line_that_made_it() -> None:
    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def double() -> None:
            await x.store(2)

        async def thread() -> None:
            kept = double()  # this line
            await x.store(1)
            del kept

        k.spawn("a", thread)

    line = program.__code__.co_firstlineno + 7
    with pytest.raises(ForgottenAwait, match=rf"{HERE}:{line}: .*double\(\) is never awaited"):
        explore(program)


def test_what_is_awaited_later_is_not_forgotten() -> None:
    """Also when the execution is abandoned before it is."""

    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def thread() -> None:
            kept = x.load()
            await x.add(1)
            await x.add(1)
            await kept

        for name in "abc":
            k.spawn(name, thread)

    assert explore(program).verdict == "pass"
    assert explore(program, max_steps=2).verdict == "unknown"


def test_in_other_processes_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.py"
    file.write_text(
        "def program(k):\n    x = k.cell('x', 0)\n    async def a():\n        x.store(1)\n"
        "    k.spawn('a', a)\n    k.spawn('b', a)\n"
    )
    for jobs in ("1", "2"):
        assert main(["explore", f"{file}:program", "--jobs", jobs]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"{file}:4: Cell.store() is never awaited and does nothing" in err
        assert err.count("\n") == 1

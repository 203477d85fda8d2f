"""A machine that is put back is the machine that a set-up leaves."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from types import CellType, FunctionType, MemberDescriptorType, MethodType
from typing import Any

import pytest
from vkemu.exploration.program import Program
from vkemu.exploration.run import Run
from vkemu.exploration.strategies.random_walk import RandomWalk
from vkemu.launch.names import policies
from vkemu.litmus import decide
from vkemu.litmus.file import Litmus, load_litmus, shipped
from vkemu.litmus.snapshot import Snapshot, Unrestorable
from vkemu.litmus.statement import Register
from vkemu.matrix.cell import not_applicable
from vkprotocol.effects import Cell, reset_setup


def parts(thing: Any) -> Iterator[tuple[object, Any]]:
    """What an object consists of, by name or place."""
    if isinstance(thing, dict):
        yield from enumerate(thing)
        yield from ((f"[{place}]", value) for place, value in enumerate(thing.values()))
    elif isinstance(thing, list | tuple | deque | set | frozenset | array | bytearray):
        yield from enumerate(thing)
    if isinstance(thing, FunctionType):
        yield "code", thing.__code__
        yield "closure", thing.__closure__
    elif isinstance(thing, CellType):
        yield "contents", thing.cell_contents
    elif isinstance(thing, MethodType):
        yield "self", thing.__self__
        yield "function", thing.__func__
    elif not isinstance(thing, type):
        yield from getattr(thing, "__dict__", {}).items()
        for kind in type(thing).__mro__:
            for name, slot in vars(kind).items():
                if isinstance(slot, MemberDescriptorType) and name != "index":
                    try:
                        yield name, slot.__get__(thing)
                    except AttributeError:
                        pass


def difference(one: Any, other: Any, outside: tuple[Any, ...]) -> str:
    """Where two graphs of objects have another shape, or another leaf; empty if nowhere."""
    met = dict(zip(map(id, outside), map(id, reversed(outside)), strict=True))
    keep = []
    stack = [("", one, other)]
    while stack:
        path, a, b = stack.pop()
        if id(a) in met:
            if met[id(a)] != id(b):
                return f"{path}: another object"
            continue
        if type(a) is not type(b):
            return f"{path}: {a!r} and {b!r}"
        if isinstance(a, int | float | str | bytes | None):
            if a != b:
                return f"{path}: {a!r} and {b!r}"
            continue
        if not isinstance(a, tuple | frozenset):  # which may be shared, or not
            met[id(a)] = id(b)
            keep.append((a, b))
        mine, its = list(parts(a)), list(parts(b))
        if [name for name, _ in mine] != [name for name, _ in its]:
            return f"{path}: {[n for n, _ in mine]} and {[n for n, _ in its]}"
        for (name, x), (_, y) in zip(mine, its, strict=True):
            stack.append((f"{path}.{name}", x, y))
    return ""


def after_executions(litmus: Litmus, policy: str) -> str:
    test, fresh = decide.Test(litmus, policy), decide.Test(litmus, policy)
    k, other = Program(test, {}), Program(fresh, {})
    run = Run(k, 2_000, stop_on_failure=False)
    strategy = RandomWalk(0)
    for _ in range(decide.OFTEN + 2):
        strategy.start()
        run.begin()
        strategy.conduct(run)
        run.finish()
    assert test._at_rest is not None
    test._at_rest.restore()
    other.begin().close()
    reset_setup()
    oracle, machine = fresh._set_up(other)
    machine.look()
    return difference((test._oracle, test.machine), (oracle, machine), (k, other))


@pytest.mark.slow
def test_put_back_is_set_up() -> None:
    chosen = policies()
    for place, path in list(enumerate(shipped()))[::4]:
        litmus = load_litmus(str(path))
        of = [policy for policy in chosen if not not_applicable(litmus, policy)]
        policy = of[place % len(of)]
        assert after_executions(litmus, policy) == "", (litmus.name, policy)


@pytest.mark.long
def test_put_back_is_set_up_on_every_policy() -> None:
    for path in shipped():
        litmus = load_litmus(str(path))
        for policy in policies():
            if not not_applicable(litmus, policy):
                assert after_executions(litmus, policy) == "", (litmus.name, policy)


class Slotted:
    __slots__ = ("filled", "later")
    later: int

    def __init__(self) -> None:
        self.filled = [1]


class Named(Slotted):  # with a namespace besides
    def __init__(self) -> None:
        super().__init__()
        self.word = Cell("x", 5)


def test_every_kind_of_state_is_put_back() -> None:
    def counter() -> Any:
        count = 0

        def add() -> int:
            nonlocal count
            count += 1
            return count

        return add

    named, add = Named(), counter()
    kinds: dict[str, Any] = {
        "list": [1, 2], "dict": {1: 2, 3: 4}, "set": {1}, "deque": deque([1], maxlen=4),
        "array": array("Q", [1, 2]), "bytes": bytearray(b"ab"), "counter": Counter(a=1),
        "default": defaultdict(list, {1: [2]}),
    }  # fmt: skip
    word, filled, inner = named.word, named.filled, kinds["default"][1]
    snapshot = Snapshot((named, kinds, add))
    for _ in range(2):
        named.word.state, named.word = 7, Cell("y")
        named.filled.append(2)
        named.filled = []
        named.later = 1
        named.new = 1  # type: ignore[attr-defined]
        assert add() == 1
        kinds["list"].clear()
        kinds["dict"].pop(1)
        kinds["dict"][1] = 2  # the same items in another order
        kinds["set"].add(2)
        kinds["deque"].extend(range(9))
        kinds["array"].append(3)
        kinds["bytes"][0] = 0
        kinds["counter"]["b"] += 1
        kinds["default"][1] = [2]
        kinds["default"][2].append(3)
        snapshot.restore()
        assert named.word is word
        assert word.state == 5
        assert named.filled is filled
        assert filled == [1]
        assert not hasattr(named, "later")
        assert not hasattr(named, "new")
        assert kinds["list"] == [1, 2]
        assert list(kinds["dict"]) == [1, 3]
        assert kinds["set"] == {1}
        assert kinds["deque"] == deque([1])
        assert kinds["array"] == array("Q", [1, 2])
        assert kinds["bytes"] == b"ab"
        assert kinds["counter"] == {"a": 1}
        assert kinds["default"] == {1: [2]}
        assert kinds["default"][1] is inner


@pytest.mark.parametrize("thing", [iter([1]), (n for n in [1]), OSError()])
def test_what_nobody_can_put_back_is_refused(thing: Any) -> None:
    with pytest.raises(Unrestorable):
        Snapshot([[thing]])


def test_a_kind_of_word_is_a_leaf() -> None:
    Snapshot([[Register("r0")]]).restore()

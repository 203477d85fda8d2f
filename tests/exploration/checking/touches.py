"""The ways to touch data that two threads share, and a search for a race on them."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

from vkemu import explore
from vkemu.exploration.checking.access_order import DataRace

counter = 0
table: dict[str, int] = {}


class Box:
    tally = 0

    def __init__(self) -> None:
        self.count = 0
        self._hidden = 0

    def bump(self) -> None:
        self.count += 1

    @property
    def hidden(self) -> int:
        return self._hidden

    @hidden.setter
    def hidden(self, value: int) -> None:
        self._hidden = value


class Slotted:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


Touch = Callable[[], None]


def closure_variable() -> Touch:
    n = 0

    def touch() -> None:
        nonlocal n
        n += 1

    return touch


def global_variable() -> Touch:
    def touch() -> None:
        global counter
        counter += 1

    return touch


def global_dict() -> Touch:
    def touch() -> None:
        table["x"] = 1

    return touch


def list_append() -> Touch:
    items: list[int] = []

    def touch() -> None:
        items.append(1)

    return touch


def list_item() -> Touch:
    items = [0]

    def touch() -> None:
        items[-1] = items[0] + 1

    return touch


def list_inplace() -> Touch:
    items: list[int] = []

    def touch() -> None:
        nonlocal items
        items += [1]

    return touch


def dict_item() -> Touch:
    found: dict[str, int] = {}

    def touch() -> None:
        found["x"] = found.get("x", 0) + 1

    return touch


def dict_inside() -> Touch:
    found = {"a": [0]}

    def touch() -> None:
        found["a"][0] += 1

    return touch


def dict_deleted() -> Touch:
    found = {"a": 1}

    def touch() -> None:
        if "a" in found:
            del found["a"]  # noqa: RUF051 - both of it are to be seen

    return touch


def set_add() -> Touch:
    found: set[int] = set()

    def touch() -> None:
        found.add(1)

    return touch


def deque_pop() -> Touch:
    found = deque([1, 2, 3, 4])

    def touch() -> None:
        found.popleft()

    return touch


def heap_push() -> Touch:
    heap: list[int] = []

    def touch() -> None:
        heapq.heappush(heap, 1)

    return touch


def attribute() -> Touch:
    box = Box()

    def touch() -> None:
        box.count += 1

    return touch


def attribute_in_a_method() -> Touch:
    box = Box()
    return lambda: box.bump()  # noqa: PLW0108 - a call in a frame of its own


def attribute_behind_a_property() -> Touch:
    box = Box()

    def touch() -> None:
        box.hidden += 1

    return touch


def attribute_in_a_slot() -> Touch:
    box = Slotted()

    def touch() -> None:
        box.count += 1

    return touch


def attribute_in_a_dict() -> Touch:
    boxes = {"a": Box()}

    def touch() -> None:
        boxes["a"].count += 1

    return touch


def attribute_of_a_class() -> Touch:
    def touch() -> None:
        Box.tally += 1

    return touch


KINDS = [
    closure_variable, global_variable, global_dict, list_append, list_item, list_inplace, dict_item,
    dict_inside, dict_deleted, set_add, deque_pop, heap_push, attribute, attribute_in_a_method,
    attribute_behind_a_property, attribute_in_a_slot, attribute_in_a_dict, attribute_of_a_class,
]  # fmt: skip


def race_of(program: Any, **options: Any) -> DataRace | None:
    found = explore(program, check=True, **options)
    if found.failure is None:
        assert found.verdict == "pass"
        return None
    error = found.failure.error
    assert isinstance(error, DataRace), error
    return error

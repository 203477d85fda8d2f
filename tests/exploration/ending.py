"""Programs that set variables, which `at_end` looks at; and what a search does not see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def both_change(k: Any, put: Callable[[str], object], ends: Callable[[], object]) -> None:
    """In steps on objects of their own."""

    async def work(name: str) -> None:
        await k.cell(f"x{name}").load()
        put(name)

    k.spawn("a", work, "a")
    k.spawn("b", work, "b")
    k.at_end(ends)


def last_of_a_list(k: Any) -> None:
    log: list[str] = []
    both_change(k, log.append, lambda: log == ["a", "b"])


def last_cell_of_a_list(k: Any) -> None:
    cells = [k.cell("c")]
    named = {name: k.cell(name, name) for name in "ab"}
    both_change(k, lambda name: cells.append(named[name]), lambda: cells[-1].value == "b")


def last_in_a_dict(k: Any) -> None:
    found: dict[str, str] = {}
    both_change(k, lambda name: found.update(last=name), lambda: found["last"] == "b")


def last_of_a_variable(k: Any) -> None:
    last = ""

    def put(name: str) -> None:
        nonlocal last
        last = name

    both_change(k, put, lambda: last == "b")


def last_of_a_field(k: Any) -> None:
    class Field:
        last = ""

    both_change(k, lambda name: setattr(Field, "last", name), lambda: Field.last == "b")


def inside_of_what_is_put_there(k: Any) -> None:
    lists: list[list[str]] = []

    def put(name: str) -> None:
        lists[:] = lists or [[]]
        lists[0].append(name)

    both_change(k, put, lambda: lists == [["a", "b"]])


def lost_update(k: Any) -> None:
    """Of a variable."""
    total = 0

    async def work(name: str) -> None:
        nonlocal total
        await k.cell(name).load()
        before = total
        await k.cell(name).load()
        total = before + 1

    k.spawn("a", work, "x")
    k.spawn("b", work, "y")
    k.at_end(lambda: total == 2)


def one_after_the_other(k: Any) -> None:
    """Two that change a list, under a lock, and two more steps."""
    lock, x, log = k.lock("l"), k.cell("x"), []

    async def work(name: str) -> None:
        async with lock:
            log.append(name)
        await x.load()

    k.spawn("a", work, "a")
    k.spawn("b", work, "b")
    k.at_end(lambda: sorted(log) == ["a", "b"])


def each_its_own(k: Any) -> None:
    """Nobody changes what the end looks at: cells in a list, and a variable of set-up."""
    cells = [k.cell(("x", n)) for n in range(2)]
    expected = sum(range(2))
    for cell in cells:
        k.spawn(f"t{cell.key[1]}", cell.store, cell.key[1])
    k.at_end(lambda: sum(cell.value for cell in cells) == expected)


# What a search does not see, and the race check does: the list of the README.


def out_of_every_object(k: Any) -> None:
    """A list that was in a queue, and that two threads have kept."""
    queue, x, y = k.queue("q"), k.cell("x"), k.cell("y")

    async def child(held: list[int]) -> None:
        await x.load()
        assert held

    async def take() -> None:
        held = await queue.get()
        k.spawn("child", child, held)
        await y.load()
        held.append(1)

    k.spawn("b", take)
    k.spawn("a", queue.put, [])


def read_by_a_thread(k: Any) -> None:
    """A variable that another sets."""
    x, y = k.cell("x"), k.cell("y")
    ready = False

    async def work() -> None:
        nonlocal ready
        await x.load()
        ready = True

    async def look() -> None:
        await y.load()
        assert ready

    k.spawn("a", work)
    k.spawn("b", look)


def written_as_it_is(k: Any) -> None:
    """A variable, by a thread that was first, in the order that was taken."""
    x, y = k.cell("x"), k.cell("y")
    last = ""

    async def reset() -> None:
        nonlocal last
        await x.load()
        last = ""

    async def work() -> None:
        nonlocal last
        await y.load()
        last = "work"

    k.spawn("a", reset)
    k.spawn("b", work)
    k.at_end(lambda: last == "work")

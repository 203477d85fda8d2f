"""Programs that set shared objects without an effect, or in a step that has not declared it; or
variables, which `at_end` looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def set_in_a_step(k: Any, put: Callable[[Any, Any], object], expected: int = 1) -> None:
    """x is set in a step that loads y, while another thread loads x."""
    x, y = k.cell("x"), k.cell("y")

    async def work() -> None:
        await y.load()
        put(x, y)

    async def look() -> None:
        assert await x.load() == expected

    k.spawn("a", work)
    k.spawn("b", look)


def assigned(k: Any) -> None:
    def put(x: Any, y: Any) -> None:
        x.state = 1

    set_in_a_step(k, put)


def added_to(k: Any) -> None:
    def put(x: Any, y: Any) -> None:
        x.state += 1

    set_in_a_step(k, put)


def by_setattr(k: Any) -> None:
    set_in_a_step(k, lambda x, y: setattr(x, "state", 1))


def set_to_what_it_is(k: Any) -> None:
    """Seen to change nothing, in the first order."""
    x, y = k.cell("x"), k.cell("y")

    async def reset() -> None:
        await y.load()
        x.state = 0

    k.spawn("a", reset)
    k.spawn("b", x.store, 1)
    k.at_end(lambda: x.value == 1)


def undeclared(k: Any) -> None:
    x, y, z = k.cell("x"), k.cell("y"), k.cell("z")

    async def work() -> None:
        await k.step(x, reads=[z])
        y.state = z.state + 1

    async def look() -> None:
        assert await y.load() == 1

    k.spawn("a", work)
    k.spawn("b", look)


def element_of_a_list(k: Any) -> None:
    cells, y = [k.cell(("a", n)) for n in range(2)], k.cell("y")

    async def work() -> None:
        cells[await y.load() + 1].state = 1

    async def look() -> None:
        assert await cells[1].load() == 1

    k.spawn("a", work)
    k.spawn("b", look)


def of_a_queue(k: Any) -> None:
    queue, y = k.queue("q"), k.cell("y")

    async def work() -> None:
        await k.step(y)
        queue.state = (*queue.state, 1)

    async def take() -> None:
        assert await queue.try_get()

    k.spawn("a", work)
    k.spawn("b", take)


def of_a_lock(k: Any) -> None:
    """What others wait for."""
    lock, y, z = k.lock("l"), k.cell("y"), k.cell("z")

    async def take() -> None:
        async with lock:
            await z.load()

    async def work() -> None:
        await y.load()
        lock.state = None

    k.spawn("a", take)
    k.spawn("b", work)


def of_an_event_that_is_waited_for(k: Any) -> None:
    """Who waits by then is not asked again; who comes later goes on."""
    event, y, z = k.event("e"), k.cell("y"), k.cell("z")

    async def wait() -> None:
        await z.load()
        await event.wait()
        raise ValueError

    async def work() -> None:
        await y.load()
        event.state = True

    k.spawn("b", wait)
    k.spawn("a", work)


def before_the_first_await(k: Any) -> None:
    """Of a thread that is started by a step of another."""
    x, y = k.cell("x"), k.cell("y")

    async def child() -> None:
        x.state = 1
        await y.load()

    async def parent() -> None:
        await y.load()
        k.spawn("child", child)

    async def look() -> None:
        assert await x.load() == 1

    k.spawn("a", parent)
    k.spawn("b", look)


def cleaning_up(k: Any) -> None:
    """In the step that a thread is cancelled in."""
    x, y = k.cell("x"), k.cell("y")

    async def work() -> None:
        try:
            await y.load()
            await y.load()
        finally:
            x.state = 1

    async def look() -> None:
        assert await x.load() == 0

    thread = k.spawn("a", work)
    k.spawn("b", k.cancel, thread)
    k.spawn("c", look)


def looked_at_and_set(k: Any) -> None:
    """By two threads, neither of which says so."""
    x = k.cell("x")

    async def work(name: str) -> None:
        await k.cell(name).load()
        before = x.state
        await k.cell(name).load()
        x.state = before + 1

    k.spawn("a", work, "y")
    k.spawn("b", work, "z")
    k.at_end(lambda: x.value == 2)


def what_must_always_hold(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")

    async def work() -> None:
        await k.cell("z").load()
        x.state = 1
        await k.cell("z").load()
        x.state = 0

    k.spawn("a", work)
    k.spawn("b", y.store, 1)
    k.always(lambda: not (x.value and y.value))


def in_order(k: Any) -> None:
    """Under a lock: what it is set to is known from the order of the effects."""
    lock, x = k.lock("l"), k.cell("x")

    async def work() -> None:
        async with lock:
            x.state += 1

    k.spawn("a", work)
    k.spawn("b", work)
    k.at_end(lambda: x.value == 2)


def by_a_guard(k: Any) -> None:
    x = k.cell("x")

    def guard(value: Any) -> bool:
        x.state = 1
        return True

    k.spawn("a", x.wait, guard)


def by_a_predicate(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")

    def always() -> None:
        x.state = y.value

    k.spawn("a", y.store, 1)
    k.always(always)


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


def swapped_away(k: Any) -> None:
    """A list that one thread has out of a cell, and another had a look at before."""
    x, y, z = k.cell("x", [0]), k.cell("y"), k.cell("z")

    async def look() -> None:
        held = await x.load()
        await z.load()
        assert not (held and held[0])

    async def take() -> None:
        held = await x.swap(None)
        await y.load()
        held[0] = 1

    k.spawn("a", look)
    k.spawn("b", take)


def select_that_looks_elsewhere(k: Any) -> None:
    """In the guard of a branch."""
    x, y, queue = k.cell("x"), k.cell("y"), k.queue("q")
    k.spawn("a", lambda: k.select(x.wait(lambda _: y.value), queue.get()))
    k.spawn("b", y.store, 1)


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

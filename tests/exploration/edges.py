"""Programs at the edge of what a search can see: what it is not told counts all the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from vkprotocol.effects import Lock

Put = Callable[[int], object]
flag = 0
module: Any = ModuleType("edges_of_a_module")


class Kept:
    flag = 0


class Word(str):
    flag = 0


def set_and_set_back(k: Any, put: Put, sees: Callable[[], Any]) -> None:
    """A variable is set by one step and set back by the next; another thread stores y."""
    put(0)
    x, y = k.cell("x"), k.cell("y")

    async def work() -> None:
        await x.load()
        put(1)
        await x.load()
        put(0)

    k.spawn("a", work)
    k.spawn("b", y.store, 1)
    k.always(lambda: not (sees() and y.value == 1))


def closure(k: Any) -> None:
    busy = 0

    def put(value: int) -> None:
        nonlocal busy
        busy = value

    set_and_set_back(k, put, lambda: busy)


def put_global(value: int) -> None:
    global flag
    flag = value


def comprehension(k: Any) -> None:
    set_and_set_back(k, put_global, lambda: sum(flag for _ in "x"))


def inner_lambda(k: Any) -> None:
    set_and_set_back(k, put_global, lambda: max("x", key=lambda _: flag) and flag)


def class_attribute(k: Any) -> None:
    set_and_set_back(k, partial(setattr, Kept, "flag"), lambda: Kept.flag)


def module_attribute(k: Any) -> None:
    set_and_set_back(k, partial(setattr, module, "flag"), lambda: module.flag)


def imported(k: Any) -> None:
    def sees() -> Any:
        from tests.exploration import edges

        return edges.flag

    set_and_set_back(k, put_global, sees)


def text_with_attributes(k: Any) -> None:
    word = Word("word")
    set_and_set_back(k, partial(setattr, word, "flag"), lambda: word.flag)


def bound_builtin(k: Any) -> None:
    log: list[int] = []
    set_and_set_back(k, lambda value: log.append(1) if value else log.clear(), log.__len__)


def bound_count(k: Any) -> None:
    log: list[int] = []
    set_and_set_back(
        k, lambda value: log.append(1) if value else log.clear(), partial(log.count, 1)
    )


def instance(k: Any) -> None:
    kept = Kept()
    set_and_set_back(k, partial(setattr, kept, "flag"), lambda: kept.flag)


def filled_dict(k: Any) -> None:
    kept: dict[str, int] = {}
    set_and_set_back(k, lambda value: kept.update(x=value), lambda: kept.get("x"))


def by_name(k: Any) -> None:
    name = "flag"
    set_and_set_back(k, partial(setattr, Kept, "flag"), lambda: getattr(Kept, name))


def readers(k: Any) -> None:
    """Loads that change their object."""
    lock = k.rwlock("rw")

    async def read() -> None:
        await lock.acquire_shared()
        await lock.release()

    k.spawn("a", read)
    k.spawn("b", read)
    k.always(lambda: len(lock.state[1]) < 2, reads=[lock])


def late(k: Any) -> None:
    """What must always hold, said by a thread in the middle."""
    x, y = k.cell("x"), k.cell("y")

    async def say() -> None:
        await x.load()
        k.always(lambda: not (x.value == 1 and y.value == 0))
        await y.load()

    k.spawn("a", say)
    k.spawn("b", x.store, 1)
    k.spawn("c", y.store, 1)


def less_than_it_reads(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")
    k.spawn("a", x.store, 1)
    k.spawn("b", y.store, 1)
    k.always(lambda: not (y.value and not x.value), reads=[y])


def looks_at_a_cell(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")

    async def look() -> None:
        await y.load()
        assert x.value == 0

    k.spawn("a", look)
    k.spawn("b", x.store, 1)


def looks_at_a_lock(k: Any) -> None:
    lock, y = k.lock("l"), k.cell("y")

    async def look() -> None:
        await y.load()
        assert lock.state is None

    async def take() -> None:
        async with lock:
            pass

    k.spawn("a", look)
    k.spawn("b", take)


def looks_at_what_it_has_made_itself(k: Any) -> None:
    """Not by `k`."""
    lock, y = Lock("mine"), k.cell("y")

    async def look() -> None:
        await y.load()
        assert lock.state is None

    async def take() -> None:
        await k.cell("z").load()
        async with lock:
            pass

    k.spawn("a", look)
    k.spawn("b", take)


def looks_at_a_thread(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")
    other = k.spawn("b", x.store, 1)

    async def look() -> None:
        await y.load()
        assert not other.done

    k.spawn("a", look)


def looks_after_a_choice(k: Any) -> None:
    """In a step that would not have looked, had it come earlier."""
    x, y = k.cell("x"), k.cell("y")

    async def look() -> None:
        if await y.load():
            assert x.value == 0

    k.spawn("a", look)
    k.spawn("b", y.store, 1)
    k.spawn("c", x.store, 1)


class Holds:
    def __init__(self, x: Any) -> None:
        self.x = x

    def __call__(self) -> bool:
        return bool(self.x.value == 0)


def object_of_no_repr(k: Any) -> None:
    x = k.cell("x")
    k.spawn("a", x.store, 1)
    k.always(Holds(x))
    k.at_end(Holds(x))


def partial_predicate(k: Any) -> None:
    x = k.cell("x")
    k.spawn("a", x.store, 1)
    k.always(partial(lambda cell: cell.value == 0, x))


def two_fail(k: Any) -> None:
    """In steps that do not depend on each other."""

    async def fail(name: str, error: type[Exception]) -> None:
        await k.cell(name).load()
        raise error(name)

    k.spawn("a", fail, "x", KeyError)
    k.spawn("b", fail, "y", ValueError)


def second_after_the_first(k: Any) -> None:
    """One failure that another makes possible."""
    x = k.cell("x")

    async def first() -> None:
        await x.store(1)
        raise KeyError("first")

    async def second() -> None:
        await x.wait(bool)
        raise ValueError("second")

    k.spawn("a", first)
    k.spawn("b", second)


def guard_of_two(k: Any) -> None:
    c, d = k.cell("c"), k.cell("d")
    k.spawn("w", d.wait, lambda value: value or c.value)
    k.spawn("s", c.store, 1)


def guard_of_a_variable(k: Any) -> None:
    c, d = k.cell("c"), k.cell("d")
    ready = False

    async def store() -> None:
        nonlocal ready
        await c.store(1)
        ready = True

    async def wait() -> None:
        await d.wait(lambda value: value or ready)

    k.spawn("w", wait)
    k.spawn("s", store)


def lazy_and_not(k: Any) -> None:
    """Two objects that would have one key."""
    mine = k.cell(("x", 0, 1))

    async def work() -> None:
        x = k.cell("x")
        await x.store(1)
        assert await mine.load() == 0

    k.spawn("a", work)
    k.spawn("b", work)


def downgraded_by_a_stranger(k: Any) -> None:
    lock = k.rwlock("rw")

    async def take() -> None:
        await lock.acquire_exclusive()
        await lock.release()

    k.spawn("a", take)
    k.spawn("b", lock.downgrade)


def released_by_nobody(k: Any) -> None:
    lock = k.rwlock("rw")
    k.spawn("a", lock.release)
    k.spawn("b", k.cell("x").load)


def spins(k: Any) -> None:
    """Some traces end, beside those that do not."""
    x, y = k.cell("x"), k.cell("y")

    async def spin() -> None:
        while not await x.load():
            pass
        assert not await y.load()

    async def other() -> None:
        await y.load()
        await y.load()
        await x.store(1)
        await y.store(1)

    k.spawn("a", spin)
    k.spawn("b", other)


def spin_on_each_other(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")

    async def spin(mine: Any, other: Any) -> None:
        await mine.store(1)
        while await other.load():
            pass
        await mine.store(0)
        raise ValueError(mine.key)

    k.spawn("a", spin, x, y)
    k.spawn("b", spin, y, x)


def chain_of_spins(k: Any) -> None:
    """Who fails waits, spinning, for who waits for another."""
    cells = [k.cell(f"x{n}") for n in range(3)]

    async def spin(n: int) -> None:
        while not await cells[n].load():
            pass
        await cells[n + 1].store(1)

    async def end() -> None:
        while not await cells[2].load():
            pass
        raise ValueError

    k.spawn("a", end)
    k.spawn("b", spin, 1)
    k.spawn("c", spin, 0)
    k.spawn("d", cells[0].store, 1)

"""Programs whose predicates and threads look at what is hard to see: inside of what a cell holds,
by names that are put together, by what a class or a module answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from enum import Enum
from functools import partial, singledispatch
from types import ModuleType
from typing import Any

from tests.exploration.edges import Kept, set_and_set_back


class Kind(Enum):
    ONE = 1


class Asking(type):
    def __getattr__(cls, name: str) -> Any:
        return kept.get(name)


class Asked(metaclass=Asking):
    pass


kept: dict[str, int] = {}
asking: Any = ModuleType("edges_of_a_module_that_is_asked")
asking.__getattr__ = kept.get


def member_of_an_enum(k: Any) -> None:
    one: Any = Kind.ONE
    set_and_set_back(k, partial(setattr, one, "flag"), lambda: one.flag)


def class_that_is_asked(k: Any) -> None:
    set_and_set_back(k, lambda value: kept.update(flag=value), lambda: Asked.flag)


def module_that_is_asked(k: Any) -> None:
    set_and_set_back(k, lambda value: kept.update(flag=value), lambda: asking.flag)


class Placed:
    __match_args__ = ("flag",)
    flag: Any = 0


class Set(Placed):
    flag = 1


def by_pattern(k: Any) -> None:
    own = Kept()

    def sees() -> bool:
        match own:
            case Kept(flag=1):
                return True
        return False

    set_and_set_back(k, partial(setattr, own, "flag"), sees)


def by_place(k: Any) -> None:
    own = Placed()

    def sees() -> bool:
        match own:
            case Placed(1):
                return True
        return False

    set_and_set_back(k, partial(setattr, own, "flag"), sees)


def by_format(k: Any) -> None:
    own = Kept()
    sees = lambda: "{.flag}".format(own) == "1"  # noqa: E731, UP032
    set_and_set_back(k, partial(setattr, own, "flag"), sees)


def by_its_own_method(k: Any) -> None:
    own, name = Kept(), "fl"
    sees = lambda: own.__getattribute__(name + "ag")  # noqa: E731
    set_and_set_back(k, partial(setattr, own, "flag"), sees)


def by_default(k: Any) -> None:
    own = Kept()
    made: dict[str, Any] = defaultdict(lambda: own.flag)
    set_and_set_back(k, partial(setattr, own, "flag"), lambda: (made["x"], made.popitem())[0])


def by_class(k: Any) -> None:
    own = Placed()
    put = lambda value: setattr(own, "__class__", Set if value else Placed)  # noqa: E731
    set_and_set_back(k, put, lambda: own.flag)


def by_kind(k: Any) -> None:
    own = Kept()

    @singledispatch
    def sees(thing: object) -> Any:
        return None

    @sees.register
    def _(thing: int) -> Any:
        return own.flag

    set_and_set_back(k, partial(setattr, own, "flag"), lambda: sees(1))


def in_a_cell(k: Any, held: Any, put: Callable[[Any, int], object], sees: Any) -> None:
    """What a cell holds is changed, and changed back, by who has got hold of it."""
    x, y, other = k.cell("x", None), k.cell("y"), k.cell("other")

    async def work() -> None:
        await x.store(held)
        for value in (1, 0):
            await other.load()
            put(held, value)

    k.spawn("a", work)
    k.spawn("b", y.store, 1)
    k.always(lambda: not (x.value and sees(x.value) and y.value == 1))


def list_in_a_cell(k: Any) -> None:
    in_a_cell(k, [0], lambda held, value: held.__setitem__(0, value), lambda held: held[0])


def object_in_a_cell(k: Any) -> None:
    in_a_cell(k, Kept(), lambda held, value: setattr(held, "flag", value), lambda held: held.flag)


def list_in_a_queue(k: Any) -> None:
    queue, y, other = k.queue("q"), k.cell("y"), k.cell("other")

    async def work() -> None:
        held: list[int] = []
        await queue.put(held)
        await other.load()
        held.append(1)
        await other.load()
        held.clear()

    k.spawn("a", work)
    k.spawn("b", y.store, 1)
    k.always(lambda: not (any(queue.value) and y.value == 1), reads=[queue, y])


class Named:
    """Its methods are found by names that are put together."""

    def __init__(self, k: Any) -> None:
        self.lock, self.y = k.lock("l"), k.cell("y")

    async def do_look(self) -> None:
        await self.y.load()
        assert self.lock.state is None

    async def do_take(self) -> None:
        async with self.lock:
            pass

    async def run(self, name: str) -> None:
        await getattr(self, "do_" + name)()


def looks_by_name(k: Any) -> None:
    named = Named(k)
    k.spawn("a", named.run, "look")
    k.spawn("b", named.run, "take")


def looks_by_a_name_that_is_put_together(k: Any) -> None:
    lock, y, part = k.lock("l"), k.cell("y"), "sta"

    async def look() -> None:
        await y.load()
        assert getattr(lock, part + "te") is None

    async def take() -> None:
        async with lock:
            pass

    k.spawn("a", look)
    k.spawn("b", take)

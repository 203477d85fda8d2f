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

from vkprotocol.effects import Cell, Shared

from tests.exploration.edges import Kept, set_and_set_back


class Kind(Enum):
    ONE = 1


class Asking(type):
    def __getattr__(cls, name: str) -> Any:
        return kept.get(name)


class Asked(metaclass=Asking):
    pass


kept: dict[str, int] = {}
SHARED: Any = Shared
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


def looks_while_it_is_taken(k: Any, looks: Callable[[Any], object]) -> None:
    lock, y = k.lock("l"), k.cell("y")

    async def look() -> None:
        await y.load()
        assert looks(lock)

    async def take() -> None:
        async with lock:
            pass

    k.spawn("a", look)
    k.spawn("b", take)


def looks_by_a_pattern(k: Any) -> None:
    def looks(lock: Any) -> bool:
        match lock:
            case object(state=None):
                return True
        return False

    looks_while_it_is_taken(k, looks)


def looks_by_a_format(k: Any) -> None:
    looks_while_it_is_taken(k, lambda lock: "{.state}".format(lock) == "None")  # noqa: UP032


def looks_by_a_slot(k: Any) -> None:
    looks_while_it_is_taken(k, lambda lock: SHARED.state.__get__(lock) is None)


def made_anew(k: Any) -> None:
    x, y = k.cell("x"), k.cell("y")

    async def work() -> None:
        await y.load()
        Cell.__init__(x, "x", 1)

    async def look() -> None:
        assert await x.load() == 0

    k.spawn("a", work)
    k.spawn("b", look)


def asks_of_another(k: Any, work: Callable[[], Any], asks: Callable[[Any], object]) -> None:
    y = k.cell("y")
    thread = k.spawn("a", work)

    async def ask() -> None:
        await y.load()
        assert asks(thread)

    k.spawn("b", ask)


def asks_by_a_pattern(k: Any) -> None:
    def asks(thread: Any) -> bool:
        match thread:
            case object(done=True):
                return False
        return True

    asks_of_another(k, k.cell("z").load, asks)


def asks_whether_it_failed(k: Any) -> None:
    async def work() -> None:
        await k.cell("z").load()
        raise KeyError

    asks_of_another(k, work, lambda thread: thread.error is None)


def asks_whether_time_is_out(k: Any) -> None:
    event, scope = k.event("e"), k.timeout(1)

    async def work() -> None:
        try:
            async with scope:
                await event.wait()
        except TimeoutError:
            pass

    async def ask() -> None:
        await k.sleep(1)
        assert scope.expired

    k.spawn("a", work)
    k.spawn("b", ask)


def asks_a_nursery(k: Any, asks: Callable[[Any], object]) -> None:
    nursery, z = k.nursery("n"), k.cell("z")

    async def child() -> None:
        await z.load()
        raise KeyError

    async def work() -> None:
        try:
            async with nursery:
                await nursery.start("c", child)
        except KeyError:
            pass

    asks_of_another(k, work, lambda thread: asks(nursery))


def asks_for_children(k: Any) -> None:
    asks_a_nursery(k, lambda nursery: nursery.children)


def asks_for_errors(k: Any) -> None:
    asks_a_nursery(k, lambda nursery: not nursery.errors)


def two_enter(k: Any, scope: Any) -> None:
    """One block of what is for one."""

    async def work(name: str) -> None:
        await k.cell(name).load()
        async with scope:
            await k.cell(name).load()

    k.spawn("a", work, "y")
    k.spawn("b", work, "z")


def two_enter_a_timeout(k: Any) -> None:
    two_enter(k, k.timeout(1))


def two_enter_a_nursery(k: Any) -> None:
    two_enter(k, k.nursery("n"))


def started_from_outside(k: Any) -> None:
    """Before somebody is in the block, or after."""
    nursery, y = k.nursery("n"), k.cell("y")

    async def work() -> None:
        await k.cell("z").load()
        async with nursery:
            pass

    async def start() -> None:
        await y.load()
        await nursery.start("c", y.load)

    k.spawn("a", work)
    k.spawn("b", start)


def refused(k: Any, use: Callable[[Any, Any], object]) -> None:
    """What is the executor's, or for set-up."""
    queue, y = k.queue("q", 1), k.cell("y")

    async def work() -> None:
        await y.load()
        use(queue, thread)

    thread = k.spawn("a", queue.put, 1)
    k.spawn("b", work)


def asks_for_what_is_pending(k: Any) -> None:
    refused(k, lambda queue, thread: thread.pending)


def makes_it_anew(k: Any) -> None:
    refused(k, lambda queue, thread: queue.__init__("q", 2))


def asks_who_waits(k: Any) -> None:
    refused(k, lambda queue, thread: queue.waiters)


def limits_in_a_thread(k: Any) -> None:
    refused(k, lambda queue, thread: queue.limit(2))


def keys_like_our_own(k: Any) -> None:
    """Of what stands for what predicates see, and for what is looked at; of a thread's sleep."""
    x, y, busy = k.cell(("view of always",), 1), k.cell(("looked at", "y")), False
    other = k.cell(("timer", 0, 1))

    async def work() -> None:
        nonlocal busy
        await x.load()
        busy = True
        await x.load()
        busy = False
        await k.sleep(1)

    async def look() -> None:
        await other.store(1)
        await y.store(1)
        assert await other.load()

    k.spawn("a", work)
    k.spawn("b", look)
    k.always(lambda: not (busy and y.value == 1))

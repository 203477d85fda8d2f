"""What steps are seen to touch: no less, or a trace is left out, and no more than that."""

from __future__ import annotations

import asyncio
import configparser
import copy
import hashlib
import http
import io
import itertools
import queue
import socket
import threading
import weakref
from collections.abc import Generator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from bytecode import Bytecode
from vkemu import explore
from vkemu.worlds.accesses import opaque
from vkemu.worlds.asyncio_loop import Loop
from vkemu.worlds.callees import path_of
from vkemu.worlds.instrumenting import Instruments
from vkemu.worlds.noting import HERE

from tests.worlds.test_worlds import ends


def numbers() -> Generator[int, None, None]:
    yield from range(2)


def write_once(view: memoryview) -> int:
    view[0] += 1
    return view[0]


# What the standard library keeps in its objects: how to make one, and what looks and changes.
USES: dict[str, tuple[Any, Any]] = {
    "count": (itertools.count, next),
    "cycle": (lambda: itertools.cycle("ab"), next),
    "generator": (numbers, lambda it: it.send(None)),
    "file": (io.BytesIO, lambda file: (file.tell(), file.write(b"a"))),
    "digest": (hashlib.md5, lambda digest: (digest.hexdigest(), digest.update(b"a"))),
    "event": (threading.Event, lambda event: (event.is_set(), event.set())),
    "queue": (queue.SimpleQueue, lambda items: (items.empty(), items.put(1))),
    "weak": (weakref.WeakSet, lambda kept: (len(kept), kept.add(numbers))),
    "values": (weakref.WeakValueDictionary, lambda d: ("a" in d, d.setdefault("a", numbers))),
    "parser": (configparser.ConfigParser, lambda c: (c.sections(), c.read_dict({"a": {}}))),
    "view": (lambda: memoryview(bytearray(1)), write_once),
}


async def uses(which: str) -> None:
    make, use = USES[which]
    thing = make()
    said = {}

    async def ask(name: str) -> None:
        said[name] = use(thing)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "one")
        nursery.start_soon(ask, "other")
    assert said["one"] == use(make())


async def fails_meanwhile() -> None:
    """It fails while others could go on, whatever they do by then."""
    done = []

    async def work(n: int) -> None:
        await asyncio.sleep(0)
        done.append(n)

    tasks = [asyncio.create_task(work(n)) for n in range(2)]
    await asyncio.sleep(0)
    assert not done, f"already done: {done}"
    await asyncio.wait(tasks)


@pytest.mark.parametrize(
    "which",
    [
        pytest.param(which, marks=() if which in {"count", "event"} else pytest.mark.long)
        for which in USES
    ],
)
def test_what_objects_of_the_standard_library_hold_is_followed(which: str) -> None:
    result, found = ends(partial(uses, which), "trio")

    assert result.executions == len(found) == 2


async def use_everybodys() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    copy.deepcopy({"status": [http.HTTPStatus(404), {1}]})  # by `id`, which is another each time


async def share_nothing() -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(use_everybodys)


def test_constants_and_ids_are_nobodys() -> None:
    """Whoever comes first has not made them; they were objects of its step."""
    result, _ = ends(share_nothing, "trio")

    assert (result.executions, result.exhausted) == (1, True)


def at_rest() -> None:
    pass


async def beside_a_thread() -> None:
    """A task fills a list, another empties it, or does nothing; a thread looks on."""
    ITEMS.clear()
    looks: list[bool] = []
    thread = threading.Thread(target=lambda: looks.append(HERE.on))
    thread.start()
    thread.join()

    async def ask() -> None:
        empties()

    async def fill() -> None:
        ITEMS.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(fill)
    assert looks == [False], "the thread is taken for the program's"


ITEMS: list[int] = []
empties: Any = at_rest


def test_a_global_that_is_something_else_in_the_next_search_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert explore(beside_a_thread, backend="trio").executions == 1
    monkeypatch.setitem(globals(), "empties", ITEMS.clear)

    assert explore(beside_a_thread, backend="trio").executions == 2


def test_what_a_call_calls_is_known_where_it_is_a_global() -> None:
    def calling(x: Any) -> None:
        len(x)
        pytest.raises(x, match="a" + str(x[0], *x))
        x.append(len)
        (len if x else str)(x)

    code = list(Bytecode.from_code(calling.__code__))
    found = [path_of(code, n) for n, at in enumerate(code) if getattr(at, "name", "") == "PRECALL"]

    assert found == [("len",), (), (), ()]


async def tallied() -> None:
    totals = {"seen": 0}

    async def tally() -> None:
        seen = totals["seen"]
        await anyio.lowlevel.checkpoint()
        totals["seen"] = seen + 1

    async with anyio.create_task_group() as group:
        group.start_soon(tally)
        group.start_soon(tally)
    assert totals == {"seen": 2}


def test_a_failure_on_anyio_is_told_in_the_programs_own_words() -> None:
    told = str(explore(tallied, backend="anyio+asyncio").failure).splitlines()

    said = [line.split()[2:5] for line in told if "tally." in line and "totals" in line]
    assert said[:2] == [[f"tally.{n}:", "reads", "totals['seen']"] for n in range(2)]
    assert said[2][1:] == said[3][1:] == ["writes", "totals['seen']"]


@pytest.mark.parametrize("backend", ["anyio+asyncio", "anyio+trio"])
def test_anyio_is_followed_wherever_it_is_imported(backend: str) -> None:
    assert "anyio" in Instruments(tallied, backend, None).primitives([])


def test_objects_of_derived_classes_are_no_objects_of_c() -> None:
    class Base:
        pass

    class Derived(Base):
        pass

    class Lock(type(threading.RLock())):  # type: ignore[misc]
        pass

    class More(Lock):
        pass

    assert [opaque(kind) for kind in (Derived, Loop, More)] == [False, False, True]


def test_who_could_go_on_when_the_program_failed_could_have_before() -> None:
    found = {}
    for strategy in ("dpor", "dfs"):
        forms: set[Any] = set()
        result = explore(
            fails_meanwhile, backend="asyncio", strategy=strategy, stop_on_failure=False,
            each=lambda run, forms=forms: forms.add(run.execution.form()),
        )  # fmt: skip
        assert result.doubt == ""
        found[strategy] = forms, result.failures < result.executions

    assert found["dpor"] == found["dfs"]

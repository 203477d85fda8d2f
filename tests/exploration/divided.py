"""Programs at the top level of a module, as other processes need them."""

from __future__ import annotations

from typing import Any

from vkprotocol.effects import pause


def lastzero(k: Any, n: int = 7) -> None:
    a = [k.cell(f"a{i}", 0) for i in range(n + 1)]

    async def seek() -> None:
        i = n
        while await a[i].load() != 0:
            i -= 1

    async def count(j: int) -> None:
        v = await a[j - 1].load()
        await a[j].store(v + 1)

    k.spawn("seek", seek)
    for j in range(1, n + 1):
        k.spawn(f"count{j}", count, j)


def lost_update(k: Any, n: int = 3) -> None:
    x = k.cell("x", 0)

    async def increment() -> None:
        v = await x.load()
        await x.store(v + 1)

    for t in range(n):
        k.spawn(f"t{t}", increment)
    k.at_end(lambda: x.value == n)


def locks(k: Any) -> None:
    """Locks, a condition, a timer and threads that spawn."""
    lock = k.lock("lock")
    ready = k.condition("ready", lock)
    x, y = k.cell("x", 0), k.cell("y", 0)

    async def child(cell: Any) -> None:
        await cell.add(1)
        async with lock:
            await cell.add(1)

    async def parent(cell: Any) -> None:
        await cell.load()
        k.spawn("child", child, cell)
        async with lock:
            await ready.notify()

    async def waiter() -> None:
        async with lock:
            if await x.load() == 0:
                await ready.wait()

    k.spawn("a", parent, x)
    k.spawn("b", parent, y)
    k.spawn("w", waiter)


def watched(k: Any) -> None:
    x, y, z = k.cell("x", 0), k.cell("y", 0), k.cell("z", 0)
    for cell in (x, y, z):
        k.spawn(cell.key, cell.store, 1)
    k.always(lambda: x.value >= y.value)


def opaque(k: Any) -> None:
    log: list[str] = []
    cells = [k.cell(name, 0) for name in "xyz"]

    async def look(cell: Any) -> None:
        await cell.load()
        log.append(cell.key)

    for cell in cells:
        k.spawn(cell.key, look, cell)
    k.always(lambda: log != ["z", "y", "x"])


def broken(k: Any) -> None:
    raise LookupError("no such thing")


def naps(k: Any) -> None:
    """Time passes between the steps of a path, and at its end."""
    x = k.cell("x", 0)

    async def look() -> None:
        await x.load()

    async def nap_before(first: bool) -> None:
        if first:
            k.spawn("child", look)
            await x.load()
        await pause(1)
        if not first:
            await x.load()

    k.spawn("a", nap_before, True)
    k.spawn("b", nap_before, False)


def readers(k: Any, n: int = 13) -> None:
    x = k.cell("x", 0)
    k.spawn("writer", x.store, 42)
    for j in range(1, n + 1):
        k.spawn(f"reader{j}", x.load)

"""The programs of the DPOR literature, one atomic operation an await."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.exploration import divided

Build = Callable[[Any], None]


def readers(n: int) -> Build:
    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def writer() -> None:
            await x.store(42)

        async def reader() -> None:
            await x.load()

        k.spawn("writer", writer)
        for j in range(1, n + 1):
            k.spawn(f"reader{j}", reader)

    return program


def lastzero(n: int) -> Build:
    return partial(divided.lastzero, n=n)


def indexer(n: int) -> Build:
    def program(k: Any) -> None:
        table = [k.cell(f"t{i}", 0) for i in range(128)]

        async def insert(t: int) -> None:
            for m in range(1, 5):
                w = m * 11 + t
                h = (w * 7) % 128
                while not await table[h].cmpset(0, w):
                    h = (h + 1) % 128

        for t in range(n):
            k.spawn(f"t{t}", insert, t)

    return program


def filesystem(n: int) -> Build:
    blocks, inodes = 26, 32

    def program(k: Any) -> None:
        locki = [k.lock(f"li{i}") for i in range(inodes)]
        inode = [k.cell(f"inode{i}", 0) for i in range(inodes)]
        lockb = [k.lock(f"lb{b}") for b in range(blocks)]
        busy = [k.cell(f"busy{b}", 0) for b in range(blocks)]

        async def create(t: int) -> None:
            i = t % inodes
            await locki[i].acquire()
            if await inode[i].load() == 0:
                b = (i * 2) % blocks
                while True:
                    await lockb[b].acquire()
                    if not await busy[b].load():
                        await busy[b].store(1)
                        await inode[i].store(b + 1)
                        await lockb[b].release()
                        break
                    await lockb[b].release()
                    b = (b + 1) % blocks
            await locki[i].release()

        for t in range(n):
            k.spawn(f"t{t}", create, t)

    return program


def lost_update(n: int) -> Build:
    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def increment() -> None:
            v = await x.load()
            await x.store(v + 1)

        for t in range(n):
            k.spawn(f"t{t}", increment)

    return program


def independent(n: int) -> Build:
    def program(k: Any) -> None:
        x = [k.cell(f"x{i}", 0) for i in range(4 * n)]

        async def write(t: int) -> None:
            for i in range(4):
                await x[4 * t + i].store(1)

        for t in range(n):
            k.spawn(f"t{t}", write, t)

    return program


def adds(n: int) -> Build:
    def program(k: Any) -> None:
        x = k.cell("x", 0)

        async def add() -> None:
            await x.add(1)

        for t in range(n):
            k.spawn(f"t{t}", add)
        k.at_end(lambda: x.value == n)

    return program

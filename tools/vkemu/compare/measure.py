"""Counting: one axis, one policy, every size."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import msgspec

from vkemu.compare.axes import AXES
from vkemu.compare.costs import nanoseconds
from vkemu.compare.fit import growth
from vkemu.compare.situation import Situation

COUNTS = (
    "visited", "written", "flushes", "ipis", "refaults", "left", "waits", "retries", "exits",
    "steps", "loads", "rmap_bytes", "pinned",
)  # fmt: skip


class Sample(msgspec.Struct, frozen=True):
    """What one operation took in a situation of one size."""

    size: int
    counts: dict[str, int]
    ns: int


class Series(msgspec.Struct, frozen=True):
    """A policy along an axis; `growth` is that of its time, `grows` that of each count."""

    axis: str
    policy: str
    samples: tuple[Sample, ...]
    growth: str
    grows: dict[str, str]


def measure(axis_name: str, policy: str, *, quick: bool = False) -> Series:
    axis = AXES[axis_name]
    samples = []
    for size in axis.quick if quick else axis.sizes:
        with uncollected():
            situation = Situation(policy, axis.shape(size))
            operation, asked = axis.operation(situation, size)
            counts = situation.counted(operation, asked=asked)
        samples.append(Sample(size, counts, nanoseconds(counts)))
    sizes = [sample.size for sample in samples]
    grows = {
        name: growth(sizes, [sample.counts[name] for sample in samples], axis.symbol)
        for name in COUNTS
    }
    time = growth(sizes, [sample.ns for sample in samples], axis.symbol)
    return Series(axis_name, policy, tuple(samples), time, grows)


@contextmanager
def uncollected() -> Iterator[None]:
    """A hundred thousand pages are made, and all are needed: the collector would only look."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def measure_all(
    cells: Iterable[tuple[str, str]], *, quick: bool = False, jobs: int = 1
) -> list[Series]:
    cells = list(cells)
    if jobs == 1:
        return [measure(axis, policy, quick=quick) for axis, policy in cells]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        # The longest first, so that no process is left with one of them at the end.
        longest = sorted(cells, key=lambda cell: -max(AXES[cell[0]].sizes))
        done = {cell: pool.submit(measure, *cell, quick=quick) for cell in longest}
        return [done[cell].result() for cell in cells]

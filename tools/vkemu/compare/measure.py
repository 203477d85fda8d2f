"""Counting: one axis, one policy, every size."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from vkemu.compare.axes import AXES
from vkemu.compare.costs import nanoseconds
from vkemu.compare.fit import growth
from vkemu.compare.situation import Situation
from vkemu.executors.collector import uncollected

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


def measure(
    axis_name: str, policy: str, quick: bool = False, sizes: tuple[int, ...] = ()
) -> Series:
    axis = AXES[axis_name]
    samples = []
    for size in sizes or (axis.quick if quick else axis.sizes):
        with uncollected():
            situation = Situation(policy, axis.shape(size))
            operation, asked = axis.operation(situation, size)
            counts = situation.counted(operation, asked=asked)
        samples.append(Sample(size, counts, nanoseconds(counts)))
    measured = [sample.size for sample in samples]
    grows = {
        name: growth(measured, [sample.counts[name] for sample in samples], axis.symbol)
        for name in COUNTS
    }
    time = growth(measured, [sample.ns for sample in samples], axis.symbol)
    return Series(axis_name, policy, tuple(samples), time, grows)


def longest_first(cells: Sequence[tuple[str, str]]) -> list[int]:
    """Their places, so that no worker is left with one of them at the end."""
    return sorted(range(len(cells)), key=lambda place: -max(AXES[cells[place][0]].sizes))

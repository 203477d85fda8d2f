"""The axes: what grows, and the operation whose cost is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from vkemu.compare.situation import Shape, Situation

Operation = Callable[[Situation, int], tuple[Callable[[], Any], int]]


class Axis(msgspec.Struct, frozen=True):
    """`shape` is the situation of a size, `operation` gives the operation and how many
    translations it is meant to take away."""

    name: str
    symbol: str  # in an O(...)
    what: str
    sizes: tuple[int, ...]
    shape: Callable[[int], Shape]
    operation: Operation

    @property
    def quick(self) -> tuple[int, ...]:
        return self.sizes[:4]


def _reclaim(situation: Situation, _: int) -> tuple[Callable[[], Any], int]:
    return lambda: situation.do(situation.reclaim()), situation.shape.mappings


def _share(situation: Situation, count: int) -> tuple[Callable[[], Any], int]:
    return lambda: situation.do(situation.reclaim(count)), count


def _miss(situation: Situation, accesses: int) -> tuple[Callable[[], Any], int]:
    return lambda: situation.do(situation.touch(accesses)), 0


def _inval(situation: Situation, pages: int) -> tuple[Callable[[], Any], int]:
    return lambda: situation.do(situation.inval(pages)), pages


def _edit(situation: Situation, count: int) -> tuple[Callable[[], Any], int]:
    return lambda: situation.do(situation.edit(count)), count


def _race(situation: Situation, invals: int) -> tuple[Callable[[], Any], int]:
    return lambda: situation.race(invals), invals


DOUBLING: Final = (1, 2, 4, 8, 16, 32, 64)

AXES: Final[dict[str, Axis]] = {
    axis.name: axis
    for axis in (
        Axis("guests", "guests", "reclaim of one page of one of n vkernels", DOUBLING,
             lambda n: Shape(guests=n), _reclaim),
        Axis("vmspaces", "vmspaces", "reclaim of one page of a vkernel with n processes", DOUBLING,
             lambda n: Shape(vmspaces=n), _reclaim),
        Axis("vcpus", "vcpus", "reclaim of one page of a process that n CPUs run", DOUBLING,
             lambda n: Shape(vcpus=n), _reclaim),
        Axis("mappings", "k", "reclaim of a page that is mapped n times", DOUBLING,
             lambda n: Shape(mappings=n), _reclaim),
        Axis("pages", "pages", "reclaim of one page of a process that maps n",
             (1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 16), lambda n: Shape(pages=n), _reclaim),
        Axis("misses", "misses", "n accesses to mapped pages that miss the TLB", DOUBLING,
             lambda n: Shape(pages=64, cold=True), _miss),
        Axis("inval", "range", "MADV_INVAL of n pages", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
             lambda n: Shape(pages=512, faulted=True), _inval),
        Axis("edits", "edits", "the guest clears n VPTEs of one table, and one INVAL",
             (1, 2, 4, 8, 16, 32, 64, 128, 256),
             lambda n: Shape(pages=256, faulted=True), _edit),
        Axis("race", "invals", "32 faults while n INVALs of other pages run on another CPU",
             DOUBLING, lambda n: Shape(pages=128, faulted=True), _race),
        Axis("share", "reclaimed", "reclaim of n of 256 pages, one after the other",
             (8, 16, 32, 64, 128, 256), lambda n: Shape(pages=256), _share),
    )
}  # fmt: skip

"""The maps of the vmspaces, as the oracle knows them: who maps what of which object."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from vkemu.oracle.frame import Id


class Extent:
    """A mapped range, in vpns. `offset` is the map's pindex at `start`; `pde` its master pde."""

    __slots__ = ("end", "maptype", "object", "offset", "pde", "start")

    def __init__(
        self, start: int, end: int, maptype: str, obj: Id, offset: int, pde: int = 0
    ) -> None:
        self.start = start
        self.end = end
        self.maptype = maptype
        self.object = obj
        self.offset = offset
        self.pde = pde

    def part(self, start: int, end: int) -> Extent:
        return Extent(
            start, end, self.maptype, self.object, self.offset + start - self.start, self.pde
        )


class AddressSpace:
    """The extents of one map, sorted, never overlapping."""

    __slots__ = ("extents", "starts")

    def __init__(self) -> None:
        self.extents: list[Extent] = []
        self.starts: list[int] = []

    def at(self, vpn: int) -> Extent | None:
        i = bisect_right(self.starts, vpn) - 1
        if i >= 0 and vpn < self.extents[i].end:
            return self.extents[i]
        return None

    def cut(self, start: int, end: int) -> list[Extent]:
        """Take the range out; what was there, clipped to it."""
        first = bisect_right(self.starts, start)
        if first and self.extents[first - 1].end > start:
            first -= 1
        last = bisect_left(self.starts, end)
        cut = self.extents[first:last]
        kept: list[Extent] = []
        if cut and cut[0].start < start:
            kept.append(cut[0].part(cut[0].start, start))
        if cut and cut[-1].end > end:
            kept.append(cut[-1].part(end, cut[-1].end))
        self._replace(first, last, kept)
        return [e.part(max(start, e.start), min(end, e.end)) for e in cut]

    def add(self, *extents: Extent) -> None:
        for extent in extents:
            at = bisect_left(self.starts, extent.start)
            self._replace(at, at, [extent])

    def _replace(self, first: int, last: int, extents: list[Extent]) -> None:
        self.extents[first:last] = extents
        self.starts[first:last] = [extent.start for extent in extents]

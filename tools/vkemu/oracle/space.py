"""The maps of the vmspaces, as the oracle knows them: who maps what of which object."""

from __future__ import annotations

from bisect import bisect_right

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
        kept: list[Extent] = []
        out: list[Extent] = []
        for extent in self.extents:
            if extent.end <= start or extent.start >= end:
                kept.append(extent)
                continue
            if extent.start < start:
                kept.append(extent.part(extent.start, start))
            out.append(extent.part(max(start, extent.start), min(end, extent.end)))
            if extent.end > end:
                kept.append(extent.part(end, extent.end))
        self._replace(kept)
        return out

    def add(self, *extents: Extent) -> None:
        self._replace([*self.extents, *extents])

    def _replace(self, extents: list[Extent]) -> None:
        self.extents = sorted(extents, key=lambda extent: extent.start)
        self.starts = [extent.start for extent in self.extents]

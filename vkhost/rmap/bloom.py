"""Option C: a counting Bloom filter a pmap says which address spaces cannot hold a page.

Idea: a query asks the filter of each VPAGETABLE pmap of the page's object; where it says no there
is nothing, where it says perhaps, that pmap's PTEs are all looked at. Source: the analysis of patch
#3389, section 6.3; Bloom, CACM 1970; Fan et al., Summary Cache, 1998, for counters.

Counting rather than rebuilding: every mapping made and removed passes through enter and remove, so
counters are exact, and a filter never has to be rebuilt while faults wait for it. A counter that is
full stays full, which can only make the filter say perhaps.

Relies on: nothing of the guest. A page is in the filter from before its PTE is installed until
after the PTE is gone.
Lock order: as the extent scan's; a filter operation is atomic.
Cost: bytes fixed for each pmap (4-bit counters, 9.6 a mapping at the design load); k counters a
mapping made or removed; a query scans every PTE of a pmap that says perhaps, wrongly about 1 % of
the time at the design load.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import ceil, log
from types import coroutine
from typing import TYPE_CHECKING, Final

from vkprotocol.effects import Effect, Shared, Step

from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_pte import Pte
from vkhost.rmap.extent_scan import ExtentScan, Scan, ScanBody
from vkhost.vm.vm import VM_MAPTYPE_VPAGETABLE
from vkhost.vm.vm_map import VmMapEntry
from vkhost.vm.vm_page import VmPage

if TYPE_CHECKING:
    from vkhost.kernel import Kernel

DESIGN_LOAD: Final = 4096  # mappings of one pmap
FALSE_POSITIVES: Final = 0.01
COUNTERS: Final = ceil(DESIGN_LOAD * -log(FALSE_POSITIVES) / log(2) ** 2)
HASHES: Final = round(COUNTERS / DESIGN_LOAD * log(2))
COUNTER_MAX: Final = 15


class BloomFilter(Shared):
    """Which frames a pmap may map through VPTEs. Insertions and removals commute with each other
    and are announced as loads; a test, which depends on all of them, as a store."""

    __slots__ = ("_change", "_test", "counters")

    def __init__(self, pmap: Pmap) -> None:
        super().__init__(("bloom", pmap.id), 0)
        self.counters = array("B", bytes(COUNTERS))
        self._change = Effect(self, "count", write=False)
        self._test = Effect(self, "test", write=True)

    @coroutine
    def insert(self, pfn: int) -> Step:
        yield self._change
        self.state += 1
        for i in places(pfn):
            if self.counters[i] < COUNTER_MAX:
                self.counters[i] += 1

    @coroutine
    def withdraw(self, pfn: int) -> Step:
        yield self._change
        self.state -= 1
        for i in places(pfn):
            if self.counters[i] < COUNTER_MAX:
                self.counters[i] -= 1

    @coroutine
    def test(self, pfn: int) -> Step:
        """False: no PTE entered through a VPTE maps the frame."""
        yield self._test
        return all(self.counters[i] for i in places(pfn))


def places(pfn: int) -> Iterator[int]:
    """The counters of a frame: double hashing (Kirsch, Mitzenmacher 2006) of a 64-bit mix."""
    mixed = (pfn + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
    mixed = (mixed ^ mixed >> 31) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    mixed ^= mixed >> 29
    first, stride = mixed & 0xFFFFFFFF, mixed >> 32 | 1
    return ((first + i * stride) % COUNTERS for i in range(HASHES))


class Bloom(ExtentScan):
    name = "bloom"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._filters: dict[int | str, BloomFilter] = {}
        # (PTE, frame): in the filter. While a PTE is replaced both of its frames are; and of two
        # who take away the same mapping the second finds it withdrawn.
        self._inserted: dict[tuple[Pte, int], None] = {}
        # Of the filters, for `compare`.
        self.tests = 0
        self.positives = 0
        self.false_positives = 0

    def filter(self, pmap: Pmap) -> BloomFilter:
        found = self._filters.get(pmap.id)
        if found is None:
            found = self._filters[pmap.id] = BloomFilter(pmap)
            self.grow(COUNTERS // 2)
        return found

    async def enter(self, pmap: Pmap, m: VmPage, pte: Pte, entry: VmMapEntry | None) -> None:
        if entry is None or entry.maptype != VM_MAPTYPE_VPAGETABLE:
            return
        if "bloom-not-inserted" not in self.kernel.mutants:
            self._inserted[pte, m.pfn] = None
            await self.filter(pmap).insert(m.pfn)

    async def remove(self, pmap: Pmap, m: VmPage, pte: Pte, old: int) -> None:
        if self._inserted.pop((pte, m.pfn), self) is None:
            await self.filter(pmap).withdraw(m.pfn)
        await super().remove(pmap, m, pte, old)

    def release(self, pmap: Pmap) -> None:
        if self._filters.pop(pmap.id, None) is not None:
            self.grow(-(COUNTERS // 2))

    async def scan(self, m: VmPage, only: Pmap | None, body: ScanBody) -> Scan:
        if await super().scan(m, only, body) is Scan.DONE:
            return Scan.DONE
        for pmap in await self._regions(m, only):
            self.tests += 1
            if not await self.filter(pmap).test(m.pfn):
                continue
            self.positives += 1
            found = self.found
            if await self._scan_all(m, pmap, body) is Scan.DONE:
                return Scan.DONE
            self.false_positives += self.found == found
        return Scan.NEXT

    async def _regions(self, m: VmPage, only: Pmap | None) -> list[Pmap]:
        obj = m.object
        assert obj is not None
        await obj.backing_lk.acquire_shared()
        pmaps = dict.fromkeys(
            ba.pmap
            for ba in obj.backing_list
            if ba.maptype == VM_MAPTYPE_VPAGETABLE and only in (None, ba.pmap)
        )
        await obj.backing_lk.release()
        return list(pmaps)

    async def _scan_all(self, m: VmPage, pmap: Pmap, body: ScanBody) -> Scan:
        for pte in await pmap.valid_ptes(0, 1 << 47):
            if await self.visit(m, pmap, pte, body) is Scan.DONE:
                return Scan.DONE
        return Scan.NEXT

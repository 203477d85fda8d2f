"""What the analysis of patch #3389 says these policies cost, beside what is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from vkemu.compare.measure import Series


class Claim(msgspec.Struct, frozen=True):
    """`count` is the count it is about: `ns`, or one of measure.COUNTS. `why`: where the measured
    growth is another, the reason."""

    policy: str
    axis: str
    growth: str
    section: str
    says: str
    count: str = "ns"
    why: str = ""


class Judged(msgspec.Struct, frozen=True):
    """A claim and what was measured."""

    claim: Claim
    measured: str
    agrees: bool


CLAIMS: Final = (
    Claim(
        "extent_scan", "vmspaces", "O(vmspaces)", "5.1",
        "N = number of vm_map_backing entries on the object's backing_list", "visited",
    ),
    Claim(
        "broadcast", "guests", "O(guests)", "6.1", "O(vkernels) for VPTMAPPED page reclaim",
        why="the page's object names its regions: other vkernels have other images and are left "
        "alone; what grows is the processes of the one vkernel",
    ),
    Claim("vpte_list", "mappings", "O(k)", "6.2",
        "O(k) where k = number of VPAGETABLE mappings for this page"),
    Claim("vpte_list", "pages", "O(1)", "6.2",
        "O(k) where k = number of VPAGETABLE mappings for this page"),
    Claim("bloom", "guests", "O(1)", "6.3", "O(1) for negative"),
    Claim(
        "bloom", "vmspaces", "O(vmspaces)", "6.3",
        "Test each VPAGETABLE pmap's bloom filter", "steps",
    ),
    Claim("bloom", "pages", "O(pages)", "6.3", "O(pmap_size) for positive", "visited"),
    Claim(
        "shadow", "mappings", "O(1)", "6.4", "O(1) lookup",
        why="the lookup is, but each PTE that it finds is removed by itself",
    ),
    Claim(
        "shadow", "edits", "O(edits)", "6.4", "O(1) overhead on every guest PTE modification",
    ),
    Claim(
        "hybrid", "pages", "O(1)", "7", "Use for precise invalidation instead of broad MADV_INVAL",
        why="the first query of a page is the broad one; what maps it from then on is listed",
    ),
    Claim("nested", "vmspaces", "O(1)", "6.5", "Normal backing_list mechanism works", "visited"),
    Claim("nested", "mappings", "O(1)", "6.5", "Best possible performance"),
    Claim(
        "nested", "pages", "O(1)", "6.5", "Best possible performance",
        why="one PTE is found and changed, but the flush takes all that the CPU had combined, up "
        "to the size of its TLB",
    ),
)  # fmt: skip


def judged(found: Iterable[Series]) -> Iterator[Judged]:
    """The claims about what was measured."""
    by = {(series.policy, series.axis): series for series in found}
    for claim in CLAIMS:
        series = by.get((claim.policy, claim.axis))
        if series is not None:
            measured = series.growth if claim.count == "ns" else series.grows[claim.count]
            yield Judged(claim, measured, measured == claim.growth)

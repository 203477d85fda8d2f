"""No witness of the matrix needs what the real pmap_scan of a range does not allow.

It holds a page table's lock over all of its PTEs (pmap.c:pmap_scan_callback); by default the scan
here takes it for each. A `pass` covers the real one, whose executions are among ours. A `fail` is
one that the real kernel has too if nobody else takes that lock while a scan is between two PTEs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
from vkemu.exploration.replaying import replay
from vkemu.litmus import decide, token
from vkemu.matrix import Cell
from vkprotocol.effects import curthread

from vkhost.pc64 import pmap_pgscan, pmap_protect, pmap_pte, pmap_remove
from vkhost.pc64.pmap_scan import pmap_scan

pytestmark = pytest.mark.long
Key = tuple[int, int]  # a scan, a page table


@dataclass
class Watch:
    """`spans`: of each scan and page table, (thread, lock, first and last moment, PTEs)."""

    moments: list[tuple[int, Any]] = field(default_factory=list)  # (thread, lock taken)
    spans: dict[Key, list[Any]] = field(default_factory=dict)
    scans: int = 0

    def between(self) -> int:
        """How often somebody else took a page table's lock between two PTEs of a scan."""
        return sum(
            owner != tid and taken is lock
            for tid, lock, first, last, ptes in self.spans.values()
            if ptes > 1
            for owner, taken in self.moments[first:last]
        )


def watching(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    enter = pmap_pte.PteLocks.__aenter__

    async def locked(locks: Any) -> None:
        await enter(locks)
        watch.moments.append((curthread().tid, locks.pt_pv))

    async def scan(pmap: Any, start: int, end: int, func: Any) -> None:
        watch.scans += 1
        number = watch.scans

        async def one(pte: Any, locks: Any) -> bool:
            new = [curthread().tid, pte.table.lock, len(watch.moments), 0, 0]
            span = watch.spans.setdefault((number, id(pte.table)), new)
            go_on: bool = await func(pte, locks)
            span[3:] = len(watch.moments), span[4] + 1
            return go_on

        await pmap_scan(pmap, start, end, one)

    monkeypatch.setattr(pmap_pte.PteLocks, "__aenter__", locked)
    modules: tuple[ModuleType, ...] = (pmap_remove, pmap_protect, pmap_pgscan)
    for module in modules:
        monkeypatch.setattr(module, "pmap_scan", scan)
    return watch


def test_no_witness_needs_others_between_the_ptes_of_a_scan(
    recorded: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    several: defaultdict[str, int] = defaultdict(int)
    for cell in recorded:
        if cell.token:
            found = token.parse(cell.token)
            with monkeypatch.context() as patch:
                watch = watching(patch)
                replay(decide.Test(found.litmus(), found.policy), found.schedule)
            several[cell.test] += any(span[4] > 1 for span in watch.spans.values())
            assert not watch.between(), cell

    assert sum(several.values()) > 5, "some witnesses have scans of several PTEs"

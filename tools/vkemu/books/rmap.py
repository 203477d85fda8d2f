"""The books of the reverse maps: what each has noted against the PTEs that there are."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING

from vkemu.oracle.frame import PTE_MANAGED
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import pte_pfn
from vkhost.pc64.pmap_pte import Pte
from vkhost.rmap.bloom import COUNTER_MAX, COUNTERS, Bloom, places
from vkhost.rmap.broadcast import Broadcast
from vkhost.rmap.hybrid import Hybrid
from vkhost.rmap.nested import PAGE_TABLE_BYTES, Nested
from vkhost.rmap.notifier import Notifier
from vkhost.rmap.pv_entry import PV_ENTRY_BYTES, PvEntry
from vkhost.rmap.shadow import TABLE_LINK_BYTES, Shadow
from vkhost.rmap.vpte_list import VPTE_RMAP_BYTES, VpteList
from vkhost.rmap.vptmapped import Vptmapped
from vkhost.rmap.wired import Wired
from vkhost.vm.vm import VM_MAPTYPE_VPAGETABLE
from vkhost.vm.vm_map import VmMap
from vkhost.vm.vm_page import PG_VPTMAPPED, VmPage

if TYPE_CHECKING:
    from vkemu.books.host import Books


def check_rmap(books: Books) -> None:
    """What is asked of a policy: of all those that it is a kind of."""
    rmap = books.kernel.rmap
    through = _through_vptes(books)
    if isinstance(rmap, PvEntry):
        _check_pv_entries(books, rmap)
    if isinstance(rmap, VpteList):
        _check_vpte_lists(books, rmap, through)
    if isinstance(rmap, Bloom):
        _check_filters(books, rmap, through)
    if isinstance(rmap, Wired):
        _check_wires(books, rmap)
    if isinstance(rmap, Notifier):
        for ident, mmu in rmap._mmus.items():
            books.agree("invalidations in progress of pmap {}", mmu.count.state[1], 0, ident)
    if isinstance(rmap, Nested):
        _check_users(books, rmap)
    if isinstance(rmap, (Vptmapped, Broadcast)):
        for m in books.kernel.pages.values():
            listed = isinstance(rmap, Hybrid) and rmap.tracks(m)
            if through.get(m.pfn) and not listed:
                flagged = bool(m.flags.state & PG_VPTMAPPED)
                books.agree("PG_VPTMAPPED of {}, mapped through a VPTE", flagged, True, m)


def _through_vptes(books: Books) -> dict[int, dict[Pte, Pmap]]:
    """By frame, the PTEs in VPAGETABLE entries."""
    maps = {vm_map.pmap: vm_map for vm_map in books.vm_maps()}
    through: dict[int, dict[Pte, Pmap]] = {}
    for m in books.kernel.pages.values():
        for pmap, pte in books.mappings(m):
            if pmap in maps and _maptype(maps[pmap], pte.va) == VM_MAPTYPE_VPAGETABLE:
                through.setdefault(m.pfn, {})[pte] = pmap
    return through


def _maptype(vm_map: VmMap, va: int) -> int | None:
    return next((e.maptype for e in vm_map.entries if e.start <= va < e.end), None)


def _listed(m: VmPage) -> dict[Pte, Pmap]:
    return {} if m.pv_list is None else m.pv_list.ptes


def _check_pv_entries(books: Books, rmap: PvEntry) -> None:
    count = 0
    for m in books.kernel.pages.values():
        there = {pte: pmap for pmap, pte in books.mappings(m) if pte.state & PTE_MANAGED}
        books.agree("pv_entries of {}", _places(_listed(m)), _places(there), m)
        count += len(there)
    if isinstance(rmap, Nested):
        tables = sum(map(len, rmap._tables.values()))
        books.agree("rmap_bytes", rmap.bytes, count * PV_ENTRY_BYTES + tables * PAGE_TABLE_BYTES)
    else:
        books.agree("rmap_bytes", rmap.bytes, count * PV_ENTRY_BYTES)


def _check_vpte_lists(books: Books, rmap: VpteList, through: dict[int, dict[Pte, Pmap]]) -> None:
    count = links = 0
    for m in books.kernel.pages.values():
        listed, there = _listed(m), through.get(m.pfn, {})
        count += len(listed)
        if isinstance(rmap, Hybrid) and not rmap.tracks(m):
            there = {}  # a page is listed from when it was asked about
        books.agree("vpte_list of {}", _places(listed), _places(there), m)
    if isinstance(rmap, Shadow):
        for table in rmap._tables.values():
            for word in table.words.values():
                books.agree("links of {}", word.state[1], len(word.derived), word.key)
                links += len(word.derived)
    books.agree("rmap_bytes", rmap.bytes, count * VPTE_RMAP_BYTES + links * TABLE_LINK_BYTES)


def _check_filters(books: Books, rmap: Bloom, through: dict[int, dict[Pte, Pmap]]) -> None:
    there = {(pte, pfn): pmap for pfn, ptes in through.items() for pte, pmap in ptes.items()}
    # By name: a pmap of a fork has one, the others have numbers.
    noted = sorted((str(pte.table.pmap_id), pte.va, pfn) for pte, pfn in rmap._inserted)
    found = sorted((str(pmap.id), pte.va, pfn) for (pte, pfn), pmap in there.items())
    books.agree("mappings in the filters", noted, found)
    for ident, bloom in rmap._filters.items():
        mine = [pfn for (_, pfn), pmap in there.items() if pmap.id == ident]
        books.agree("mappings of the filter of pmap {}", bloom.state, len(mine), ident)
        counters = array("B", bytes(COUNTERS))
        for i in (i for pfn in mine for i in places(pfn)):
            counters[i] += 1
        if max(bloom.counters) < COUNTER_MAX:  # one that was full once stays full
            books.agree("counters of the filter of pmap {}", bloom.counters, counters, ident)


def _check_wires(books: Books, rmap: Wired) -> None:
    owed = sum(map(len, rmap._owed.values()))
    books.agree("wires owed", owed, 0)
    there = Counter(pfn for pte, pfn in rmap._wires)
    for pte, pfn in rmap._wires:
        books.agree("frame of the wired PTE {:#x}", pte_pfn(pte.state), pfn, pte.va)
    for m in books.kernel.pages.values():
        if there[m.pfn]:
            enough = m.wire_count.state >= there[m.pfn]
            books.agree("wire_count of {}, {} wired PTEs", enough, True, m, there[m.pfn])


def _check_users(books: Books, rmap: Nested) -> None:
    roots: Counter[tuple[Pmap, Pmap]] = Counter()
    for pmap in books.kernel.pmaps.values():
        for root in () if pmap.roots is None else pmap.roots.state:
            roots[root.ept.pmap, pmap] += 1
    for stage in rmap._stages.of.values():
        users = {} if stage.pmap.users is None else stage.pmap.users.state
        for pmap in books.kernel.pmaps.values():
            says = users.get(pmap, 0)
            books.agree("roots of {} into {}", says, roots[stage.pmap, pmap], pmap, stage)


def _places(ptes: dict[Pte, Pmap]) -> list[tuple[str, int]]:
    return sorted((str(pmap.id), pte.va) for pte, pmap in ptes.items())

"""The guest's page tables of a litmus test, as words of the first pages of its image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vkprotocol.vpte import (
    VPTE_A,
    VPTE_M,
    VPTE_NAMES,
    VPTE_PAGE_BITS,
    VPTE_PAGE_MASK,
    VPTE_RW,
    VPTE_U,
    VPTE_V,
)

from vkemu.verdict import UsageError

LEVELS = (27, 18, 9, 0)  # index bits left at the PML4, the PDP, the PD and the page table
ROOT = 0
DIRECTORY_BITS = VPTE_V | VPTE_RW | VPTE_U | VPTE_A | VPTE_M  # as _pmap_allocpte makes them
MASTER_PDE = ROOT << 12 | VPTE_V | VPTE_RW | VPTE_U


@dataclass(slots=True)
class Tables:
    """`words[pindex][slot]` is a VPTE; page 0 is the PML4, the others come as they are needed."""

    limit: int
    words: dict[int, dict[int, int]] = field(default_factory=lambda: {ROOT: {}})
    _of: dict[tuple[int, int], int] = field(default_factory=dict)

    def slot(self, va: int, level: int = 0) -> tuple[int, int]:
        """(pindex, slot) of the VPTE that decides `va` at `level`, making tables above it."""
        index = va >> 12
        table = ROOT
        for vshift in LEVELS:
            slot = index >> vshift & VPTE_PAGE_MASK
            if vshift == level:
                return table, slot
            table = self._below(table, slot, vshift, index)
        raise ValueError(f"no level {level}, expected one of {LEVELS}")

    def _below(self, table: int, slot: int, vshift: int, index: int) -> int:
        place = (vshift - VPTE_PAGE_BITS, index >> vshift)
        below = self._of.get(place)
        if below is None:
            below = self._of[place] = len(self.words)
            if below >= self.limit:
                raise ValueError(f"more than {self.limit} page tables, the root among them")
            self.words[below] = {}
            self.words[table][slot] = below << 12 | DIRECTORY_BITS
        return below

    def enter(self, va: int, vpte: int, level: int = 0) -> None:
        table, slot = self.slot(va, level)
        self.words[table][slot] = vpte


def tables_for(addresses: Iterable[tuple[int, int]], limit: int) -> Tables:
    """Tables in which each (va, VPTE) is entered; a VPTE of 0 makes the tables above it only."""
    tables = Tables(limit)
    for va, vpte in addresses:
        tables.enter(va, vpte)
    return tables


def vpte_bits(text: str, where: str) -> int:
    """`V|RW|U` as VPTE bits."""
    value = 0
    for name in text.split("|"):
        bit = VPTE_NAMES.get(name.strip())
        if bit is None:
            known = "|".join(VPTE_NAMES)
            raise UsageError(f"{where}: {name!r} is no VPTE bit, expected some of {known}")
        value |= bit
    return value

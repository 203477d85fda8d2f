"""The pages that second-stage page tables are in, and how one is freed: policy `nested`.

A walk reads from the directory where a table is, and then from the table: between the two it has
an address that a kernel may take out of the directory. So a table is freed in this order: what it
maps goes; then it is taken out of the directory; then all who run the guest flush, which a walk
that has its address does not survive; then it is free. KVM mmu.c:kvm_mmu_commit_zap_page.

Walks look at directories only where a kernel frees tables (Nested.frees_tables): elsewhere a table
stays until its image goes, and what every walk would read there never changes.
"""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING

from vkprotocol.effects import Cell, Step
from vkprotocol.param import PAGE_SHIFT

from vkhost.pc64.pmap_bits import PT_SHIFT
from vkhost.pc64.pmap_inval import pmap_inval_users
from vkhost.pc64.pmap_remove import pmap_remove

if TYPE_CHECKING:
    from vkhost.pc64.pmap import Pmap
    from vkhost.pc64.pmap_pte import PageTable


class EptTables(dict["PageTable", "EptTable"]):
    """Those of a second stage. Looking makes them: what is not linked is a directory entry of 0."""

    def __init__(self, ept: Pmap) -> None:
        super().__init__()
        self.ept = ept

    def __missing__(self, table: PageTable) -> EptTable:
        found = self[table] = EptTable(self.ept, table)
        return found


class EptTable(Cell):
    """A directory entry; state: the page it leads to, by the numbers of those that were ever there.

    0: none; below 0 there is none either, but the last one is not free yet.
    """

    __slots__ = ("ept", "last", "table")

    def __init__(self, ept: Pmap, table: PageTable) -> None:
        super().__init__(("ept_table", ept.id, table.slot), 0)
        self.ept = ept
        self.table = table
        self.last = 0

    async def link(self) -> None:
        """A PTE is about to be entered, table.lock held: there has to be a page."""
        if await self.load() <= 0:
            self.last += 1
            await self.store(self.last)
            self.ept.kernel.emit("ept.link", self.ept.id, self.table.slot, self.last)

    async def free(self) -> bool:
        """Free the page. False: there is none, or what it maps comes back as fast as it goes."""
        table, ept = self.table, self.ept
        start = table.slot << PT_SHIFT << PAGE_SHIFT
        await pmap_remove(ept, start, start + (1 << PT_SHIFT << PAGE_SHIFT))
        async with table.lock:
            number: int = await self.load()
            first = table.slot << PT_SHIFT
            if number <= 0 or await table.valid(first, first + (1 << PT_SHIFT)):
                return False
            await self.store(-number)
        if "nested-table-freed-unflushed" not in ept.kernel.mutants:
            await pmap_inval_users(ept)
        await self._freed(number)
        return True

    @coroutine
    def _freed(self, number: int) -> Step:
        yield self._write
        if self.state == -number:
            self.state = 0
        self.ept.kernel.emit("ept.free", self.ept.id, self.table.slot, number)


class Users(Cell):
    """How many roots each pmap has that lead to a second stage. Changed under EPT_LOCK. `tables`:
    its pages, where a kernel frees them."""

    __slots__ = ("tables",)

    def __init__(self, pmap: Pmap, frees_tables: bool) -> None:
        super().__init__(("ept.users", pmap.id), {})
        self.tables = EptTables(pmap) if frees_tables else None

    @coroutine
    def count(self, pmap: Pmap, roots: int) -> Step:
        """As many more or less. Is there any left?"""
        yield self._write
        left = self.state.pop(pmap, 0) + roots
        if left:
            self.state[pmap] = left
        return bool(self.state)

"""Page tables: PTEs, and which of them a scan has to look at. DragonFly pc64 pmap.c.

A PTE object is made when somebody first looks at its address; its state is then 0, as the real
table's would be. What a scan of a range would see change is its page table's list: the PTEs ever
written. So entering a PTE for the first time writes the page table, entering it again only reads
it, and a scan of one page table is one step that reads the table and every PTE on its list.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from types import TracebackType, coroutine
from typing import TYPE_CHECKING

from vkprotocol.effects import Also, Cell, Effect, Lock, Shared, Step
from vkprotocol.param import PAGE_SHIFT

from vkhost.kern.lockorder import PT_PV

if TYPE_CHECKING:
    from vkhost.pc64.pmap import Pmap


class Pte(Cell):
    """A host PTE; state: the integer of pmap_bits.

    `generation` is the frame's when the PTE was installed, changed with it: a reader that finds
    the frame's differs holds a translation to memory somebody else was given.
    """

    __slots__ = ("generation", "install", "listed", "table", "va", "vpn")

    def __init__(self, table: PageTable, vpn: int) -> None:
        pmap_id = table.pmap_id
        super().__init__(("pte", pmap_id, vpn))
        self.table = table
        self.vpn = vpn
        self.va = vpn << PAGE_SHIFT
        self.generation = 0
        self.listed = False
        self.install = _Install(self)

    def locked(self, pmap: Pmap) -> PteLocks:
        """`async with` it: nobody else enters, removes or protects the PTE. The hardware and the
        queries of a reverse map change it all the same."""
        return PteLocks(pmap.placemark(self.vpn), self.table.lock)

    def put(self, pte: int, generation: int) -> int:
        """The swap itself, in a step of `install`; the PTE before."""
        old: int = self.state
        self.state = pte
        self.generation = generation
        if pte and not self.listed:
            self.table.list_pte(self)
        if not pte or not old:
            self.table.directory.resident_count += (pte != 0) - (old != 0)
        return old


class PteLocks:
    """What pmap.c holds over the change of a PTE: its placemark, and the page table page's pv."""

    __slots__ = ("placemark", "pt_pv")
    scanning = False  # a scan has the page table's lock anyhow

    def __init__(self, placemark: Lock, pt_pv: Lock) -> None:
        self.placemark = placemark
        self.pt_pv = pt_pv

    async def __aenter__(self) -> None:
        await self.placemark.acquire()
        await self.pt_pv.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:  # closed, its execution over: it may not await any more
            await self.placemark.release()
            await self.pt_pv.release()

    async def let_go(self) -> None:
        """Of the page table, while the scan's caller has a page that it found."""

    async def take_again(self) -> None:
        """And again."""


class _Install(Effect):
    """A write of a PTE that may make it visible to scans."""

    __slots__ = ()

    def __init__(self, pte: Pte) -> None:
        self.obj = pte
        self.op = "swap"
        self.write = True
        self.guard = None
        self.deadline = None

    @property
    def also(self) -> Also:  # type: ignore[override]
        pte = self.obj
        assert isinstance(pte, Pte)
        table = pte.table
        return ((table, not pte.listed), (table.directory, not table.state))


class PageDirectory(Shared):
    """Which page tables of a pmap hold PTEs; state: how many do.

    `resident_count`, the PTEs that are not 0, changes in the steps that change one.
    """

    __slots__ = ("_count", "_read", "listed", "pmap_id", "resident_count", "tables")

    def __init__(self, pmap_id: int | str) -> None:
        super().__init__(("ptdir", pmap_id), 0)
        self.pmap_id = pmap_id
        self.tables: dict[int, PageTable] = {}
        self.resident_count = 0
        self.listed: list[int] = []  # sorted
        self._read = Effect(self, "load", write=False)
        self._count = _Count(self)

    @coroutine
    def resident(self) -> Step:
        yield self._count
        return self.resident_count

    def table(self, index: int) -> PageTable:
        table = self.tables.get(index)
        if table is None:
            table = self.tables[index] = PageTable(self, index)
        return table

    @coroutine
    def listed_in(self, first: int, last: int) -> Step:
        """The page tables in use with first <= index <= last."""
        yield self._read
        return [self.tables[i] for i in self.listed if first <= i <= last]


class PageTable(Shared):
    """512 PTEs; state: how many are listed."""

    __slots__ = ("_scan", "directory", "listed", "lock", "pmap_id", "ptes", "slot")

    def __init__(self, directory: PageDirectory, index: int) -> None:
        super().__init__(("pt", directory.pmap_id, index), 0)
        self.lock = Lock(("pt_pv", directory.pmap_id, index), rank=PT_PV)
        self.directory = directory
        self.pmap_id = directory.pmap_id
        self.slot = index
        self.listed: list[int] = []  # vpns, sorted
        self.ptes: dict[int, Pte] = {}
        self._scan = _Scan(self)

    def pte(self, vpn: int) -> Pte:
        pte = self.ptes.get(vpn)
        if pte is None:
            pte = self.ptes[vpn] = Pte(self, vpn)
        return pte

    def list_pte(self, pte: Pte) -> None:
        pte.listed = True
        insort(self.listed, pte.vpn)
        if not self.state:
            insort(self.directory.listed, self.slot)
            self.directory.state += 1
        self.state += 1

    @coroutine
    def valid(self, start_vpn: int, end_vpn: int) -> Step:
        """The PTEs of [start_vpn, end_vpn) that are not 0 now, in order of address."""
        yield self._scan
        return list(self.valid_now(start_vpn, end_vpn))

    def valid_now(self, start_vpn: int, end_vpn: int) -> Iterator[Pte]:
        for vpn in self.listed:
            if start_vpn <= vpn < end_vpn:
                pte = self.ptes[vpn]
                if pte.state:
                    yield pte


class _Scan(Effect):
    """Reads a page table and every PTE on its list."""

    __slots__ = ()

    def __init__(self, table: PageTable) -> None:
        self.obj = table
        self.op = "scan"
        self.write = False
        self.guard = None
        self.deadline = None

    @property
    def also(self) -> Also:  # type: ignore[override]
        table = self.obj
        assert isinstance(table, PageTable)
        return tuple((table.ptes[vpn], False) for vpn in table.listed)


class _Count(Effect):
    """Reads every PTE of a pmap: what resident_count counts."""

    __slots__ = ()

    def __init__(self, directory: PageDirectory) -> None:
        self.obj = directory
        self.op = "count"
        self.write = False
        self.guard = None
        self.deadline = None

    @property
    def also(self) -> Also:  # type: ignore[override]
        directory = self.obj
        assert isinstance(directory, PageDirectory)
        tables = [directory.tables[i] for i in directory.listed]
        return (
            *((table, False) for table in tables),
            *((table.ptes[vpn], False) for table in tables for vpn in table.listed),
        )

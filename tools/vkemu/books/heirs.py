"""What a frame leaves behind for its next owner is nothing.

Whenever a frame changes hands, nobody wires or holds it, and no list has it; and a page table of a
guest is zero as it becomes reachable, or a walk would go by what the last owner of its frame wrote.
"""

from __future__ import annotations

from typing import Any

from vkprotocol.messages import MEMIMAGE_FD
from vkprotocol.vpte import VPTE_V, vpte_frame

from vkemu.books.host import Books, nobody
from vkemu.oracle import Oracle
from vkemu.oracle.violation import Violation
from vkguest.kernel import Vkernel


class Heirs:
    """Listens to the events of its name. `tables`: (guest, frame) of page tables; those that are
    linked already are True."""

    def __init__(self, books: Books, oracle: Oracle) -> None:
        self.books = books
        self.guests = {guest.proc: guest for guest in books.guests}
        self.tables: dict[tuple[int | str, int], bool] = {}
        self._guest_of: dict[Any, int | str] = {}  # image object -> guest
        for name in ("page.free", "guest.alloc", "guest.free", "mem.store", "setmap.begin"):
            oracle.tell(name, getattr(self, name.replace(".", "_")))

    def page_free(self, pfn: int, gen: int) -> None:
        with nobody():
            m = self.books.kernel.pages[pfn]
            for what, count in (("wired", m.wire_count.state), ("held", m.hold_count.state)):
                self._none(f"{m} is freed and {what}", count)

    def guest_free(self, proc: int | str, frame: int) -> None:
        self.tables.pop((proc, frame), None)
        self._idle(proc, frame, "freed")

    def guest_alloc(self, proc: int | str, frame: int, name: str) -> None:
        if name.startswith(("pt ", "pml4 ")):
            self.tables[proc, frame] = False
        self._idle(proc, frame, "handed out")

    def _idle(self, proc: int | str, frame: int, how: str) -> None:
        if proc not in self.guests:
            return
        with nobody():
            m = self.guests[proc].vm_page_queues.pages[frame]
            where = f"{self.guests[proc].name}: {m} is {how} and"
            self._none(f"{where} held", m.hold_count)
            self._none(f"{where} mapped", len(m.pv_list))

    def mem_store(self, cpu: int, pmap: Any, va: int, pfn: int, idx: int, value: int) -> None:
        """A guest's store of a VPTE that leads from one page table to another."""
        if not value & VPTE_V or not self.tables:
            return
        with nobody():
            m = self.books.kernel.pages[pfn]
            proc, frame = self._proc_of(m.object), vpte_frame(value)
            if (proc, m.pindex) in self.tables and not self.tables.get((proc, frame), True):
                self.tables[proc, frame] = True
                self._table(self.guests[proc], frame)

    def setmap_begin(self, pmap: Any, start: int, end: int, value: int) -> None:
        """A root that is a vmspace's from here on."""
        assert self.books.shadow is not None
        name = self.books.shadow.actor().removeprefix("lwp ").rpartition(".")[0]
        for guest in self.books.guests:
            if guest.name == name and (guest.proc, vpte_frame(value)) in self.tables:
                with nobody():
                    self._table(guest, vpte_frame(value))

    def _table(self, guest: Vkernel, frame: int) -> None:
        left = sum(map(bool, self.books.image(guest)(frame)))
        self._none(f"{guest.name}: words in frame {frame}, which is a table now", left)

    def _proc_of(self, image: Any) -> Any:
        proc = self._guest_of.get(image)
        if proc is None:
            for known in self.books.kernel.procs:
                file = known.files.get(MEMIMAGE_FD)
                if file is not None and file.vnode.object is image:
                    proc = self._guest_of[image] = known.pid
        return proc

    def _none(self, what: str, count: int) -> None:
        if count:
            raise Violation(
                12, f"{what}: {count}, counted 0", check="books",
                accesses=(None, self.books.now()),
            )  # fmt: skip

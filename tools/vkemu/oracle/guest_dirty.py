"""Invariant 5: what a guest's process changed through va since the guest last cleared VPTE_M, and
invalidated, shows in VPTE_M.

A store through a host PTE whose VPTE has no M is legal between the guest's edit and the return of
its INVAL: the guest goes by the M it has just cleared. It is a lost dirty bit when the guest has
said that it relies on the bit (`guest.clean`), or when no INVAL ever comes.
"""

from __future__ import annotations

from vkprotocol.vpte import VPTE_M

from vkemu.oracle.frame import Id, Translation
from vkemu.oracle.memory import Memory, PageKey, Walk
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.violation import Happening, Violation

Place = tuple[Id, int]  # pmap and vpn
Word = tuple[PageKey, int]  # where a VPTE is


class GuestDirty:
    """`unseen`: the first store since M was cleared, until the INVAL that accounts for it."""

    def __init__(self, shadow: Shadow, memory: Memory) -> None:
        self.shadow = shadow
        self.memory = memory
        self.unseen: dict[Place, Happening] = {}
        # The guest relies on M being clear in this VPTE.
        self.clean: dict[Place, tuple[Word, Happening]] = {}

    def vpte_read(self, pfn: int, idx: int, value: int, vshift: int) -> None:
        if self.clean and value & VPTE_M and pfn >= 0:
            self._modified(pfn, idx)

    def vpte_am(self, pfn: int, idx: int, old: int, new: int) -> None:
        if self.clean and new & VPTE_M:
            self._modified(pfn, idx)

    def _modified(self, pfn: int, idx: int) -> None:
        """The host has found or set M there, so it may map it writable: whoever relied on M being
        clear has to look again, even if the guest clears it once more before anyone stores."""
        frame = self.shadow.frame(pfn)
        for place, ((key, index), _) in list(self.clean.items()):
            if index == idx and self.memory.leads_to(*key, frame):
                del self.clean[place]

    def mem_store(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        t = self.shadow.cached(cpu, pmap, va)
        if t is None:
            return
        if t.leaf is None:
            extent = self.shadow.extent(pmap, t.vpn)
            if extent is None or extent.maptype != "vpagetable":
                t.leaf = False
                return
            walk = self.memory.walk(pmap, t.vpn)
            t.leaf = False if walk is None or walk.leaf is None else walk.leaf
        if t.leaf is False:
            return
        key, index = t.leaf
        place = (pmap, t.vpn)
        if self.memory.page(key).get(index, 0) & VPTE_M:
            self.clean.pop(place, None)
            return
        # A page table that was taken out of the tree says nothing: look from the root.
        walk = self.memory.walk(pmap, t.vpn)
        if walk is not None and self._lacks_m(t, walk):
            self._store(place, walk)

    def mem_cmpset(
        self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int, ok: bool, old: int
    ) -> None:
        if ok:
            self.mem_store(cpu, pmap, va, pfn, idx, value)

    def _lacks_m(self, t: Translation, walk: Walk) -> bool:
        if walk.leaf is None:
            return False
        key, index = walk.leaf
        if self.memory.page(key).get(index, 0) & VPTE_M:
            return False
        return self.memory.leads_to(walk.object, walk.pindex, t.frame)

    def _store(self, place: Place, walk: Walk) -> None:
        relied = self.clean.get(place)
        now = self.shadow.now()
        if relied is not None:
            raise self._violation(place, relied[1], now, "after the guest took it for clean")
        self.unseen.setdefault(place, now)

    def inval_end(self, pmap: Id, start: int, end: int) -> None:
        first, last = start >> 12, end + 0xFFF >> 12
        for place in [p for p in self.unseen if p[0] == pmap and first <= p[1] < last]:
            del self.unseen[place]

    def map_remove(self, vm_map: Id, start: int, end: int) -> None:
        self.inval_end(vm_map, start, end)
        first, last = start >> 12, end + 0xFFF >> 12
        for place in [p for p in self.clean if p[0] == vm_map and first <= p[1] < last]:
            del self.clean[place]

    def guest_clean(self, proc: Id, ident: int, va: int) -> None:
        pmap = self.shadow.vmspace(proc, ident)
        if pmap is None:
            return
        place = (pmap, va >> 12)
        now = self.shadow.now()
        walk = self.memory.walk(*place)
        if walk is None or walk.leaf is None:
            return
        key, index = walk.leaf
        if self.memory.page(key).get(index, 0) & VPTE_M:
            return  # it was set again meanwhile: no longer clean
        first = self.unseen.get(place)
        if first is not None:
            raise self._violation(place, first, now, "and the guest takes it for clean")
        self.clean[place] = (walk.leaf, now)

    def finish(self) -> None:
        for place, first in self.unseen.items():
            raise self._violation(place, first, None, "and no INVAL followed")

    def _violation(
        self, place: Place, first: Happening, second: Happening | None, how: str
    ) -> Violation:
        pmap, vpn = place
        return Violation(
            5,
            f"a store to {vpn << 12:#x} of {self.shadow.space(pmap)} without VPTE_M, {how}",
            check="guest-dirty",
            accesses=(first, second),
        )

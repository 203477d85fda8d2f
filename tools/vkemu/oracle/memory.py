"""What memory holds, by object and page, and what it held: the guest's page tables are in there.

Content is followed word by word through stores, page-ins, page-outs and copies. While somebody's
fault or INVAL is in flight, every change leaves an undo record, so that "did the tree ever say so
since then?" has an exact answer.
"""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from vkprotocol.events import NO_OBJECT
from vkprotocol.vpte import (
    VPTE_M,
    VPTE_NX,
    VPTE_PAGE_BITS,
    VPTE_PAGE_MASK,
    VPTE_PS,
    VPTE_ROOT_SHIFT,
    VPTE_RW,
    VPTE_V,
    vpte_frame,
)

from vkemu.oracle.frame import Frame, Id
from vkemu.oracle.shadow import Shadow
from vkemu.oracle.space import AddressSpace, Extent

PageKey = tuple[Id, int]
Words = dict[int, int]
SHADOWS_MAX: Final = 64  # length of a chain of shadow objects


def words_of(content: bytes) -> Words:
    return {i: word for i, word in enumerate(array("Q", content)) if word}


@dataclass(frozen=True, slots=True)
class Undo:
    """How something was before `step`: a word, a whole page, or the extents of a map."""

    step: int
    key: Any
    idx: int  # of the word; -1 for all of the page or map
    old: Any


@dataclass(frozen=True, slots=True)
class Walk:
    """Where a guest page table leads: the page, the rights of the path, and its last VPTE."""

    object: Id
    pindex: int
    writable: bool  # RW at every level, and M in the leaf (which the master pde cannot have)
    executable: bool  # NX at no level
    leaf: tuple[PageKey, int] | None  # page and index of the last VPTE; None: the master pde


class Memory:
    """Content of frames and backing stores."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow
        self.stored: dict[PageKey, Words] = {}
        self._stored: dict[Id, set[int]] = {}  # object -> its pages that are stored
        self.undo: deque[Undo] = deque()
        self._watched: dict[Any, int] = {}  # who needs undo records -> since which step

    # Watching.

    def watch(self, who: Any) -> None:
        self._watched[who] = self.shadow.step

    def unwatch(self, who: Any) -> None:
        self._watched.pop(who, None)
        if not self._watched:
            self.undo.clear()
            return
        oldest = self.horizon()
        while self.undo and self.undo[0].step < oldest:
            self.undo.popleft()

    def horizon(self) -> int:
        """Nothing before this step is asked for any more."""
        return next(iter(self._watched.values()), self.shadow.step)

    def note(self, key: Any, idx: int, old: Any) -> None:
        if self._watched:
            self.undo.append(Undo(self.shadow.step, key, idx, old))

    # Content.

    def put(self, frame: Frame, idx: int, value: int) -> bool:
        """One word; True if that changed it."""
        words = frame.words
        old = frame.was = words.get(idx, 0)
        if old == value:
            return False
        frame.stamp = self.shadow.step
        if self._watched:
            self.undo.append(Undo(self.shadow.step, (frame.object, frame.pindex), idx, old))
        if value:
            words[idx] = value
        else:
            del words[idx]
        return True

    def fill(self, frame: Frame, words: Words) -> bool:
        """All words; True if that changed any."""
        changed = frame.words != words
        if changed:
            before = self.page((frame.object, frame.pindex))
            self.note((frame.object, frame.pindex), -1, before)
        frame.words = words
        frame.stamp = self.shadow.step
        return changed

    def resolve(self, key: PageKey) -> PageKey:
        """The page that shows at `key`: itself, or the one below in a chain of shadows."""
        at = key
        for _ in range(SHADOWS_MAX):
            frame = self.shadow.resident.get(at)
            if (frame is not None and frame.initialised) or at in self.stored:
                return at
            below = self.shadow.backing.get(at[0])
            if below is None:
                break
            at = (below[0], at[1] + below[1])
        return key

    def page(self, key: PageKey) -> Words:
        """The words of a page, in memory or on its store, through shadows. Not to be changed."""
        at = self.resolve(key) if self.shadow.backing else key
        frame = self.shadow.resident.get(at)
        if frame is not None and frame.initialised:
            return frame.words
        return self.stored.get(at, {})

    def leads_to(self, obj: Id, pindex: int, frame: Frame) -> bool:
        """Is the frame this page, or what shows through where the page is absent?"""
        for _ in range(SHADOWS_MAX):
            if frame.object == obj and frame.pindex == pindex:
                return True
            below = self.shadow.backing.get(obj)
            if below is None:
                return False
            obj, pindex = below[0], pindex + below[1]
        return False

    # Events.

    def mem_store(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        frame = self.shadow.frame(pfn)
        if self.put(frame, idx, value) and frame.changed is None:
            frame.changed = self.shadow.now()

    def mem_cmpset(
        self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int, ok: bool, old: int
    ) -> None:
        if ok:
            self.mem_store(cpu, pmap, va, pfn, idx, value)

    def mem_emulate(self, cpu: int, pmap: Id, va: int, pfn: int, idx: int, value: int) -> None:
        self.mem_store(cpu, pmap, va, pfn, idx, value)

    def vpte_am(self, pfn: int, idx: int, old: int, new: int) -> None:
        self.mem_store(-1, NO_OBJECT, 0, pfn, idx, new)

    def page_zero(self, pfn: int) -> None:
        self._filled(pfn, {})

    def page_copy(self, src: int, dst: int) -> None:
        self._filled(dst, dict(self.shadow.frame(src).words))

    def page_write(self, pfn: int, content: bytes) -> None:
        self._filled(pfn, words_of(content))

    def _filled(self, pfn: int, words: Words) -> None:
        frame = self.shadow.frame(pfn)
        # The first content of a new owner is no change: dropped, it would be made again.
        if self.fill(frame, words) and frame.initialised and frame.changed is None:
            frame.changed = self.shadow.now()
        frame.initialised = True

    def page_discard(self, pfn: int) -> None:
        self.shadow.frame(pfn).changed = None

    def pager_content(self, obj: Id, pindex: int, content: bytes) -> None:
        self.stored[obj, pindex] = words_of(content)
        self._stored.setdefault(obj, set()).add(pindex)

    def pager_get(self, obj: Id, pindex: int, pfn: int) -> None:
        frame = self.shadow.frame(pfn)
        frame.words = dict(self.stored.get((obj, pindex), {}))
        frame.stamp = self.shadow.step
        frame.initialised = True
        frame.changed = None

    def pager_put(self, obj: Id, pindex: int, pfn: int) -> None:
        frame = self.shadow.frame(pfn)
        self.stored[obj, pindex] = dict(frame.words)
        self._stored.setdefault(obj, set()).add(pindex)
        frame.changed = None
        frame.remember(self.shadow.now())

    def object_destroy(self, obj: Id) -> None:
        for pindex in self._stored.pop(obj, ()):
            del self.stored[obj, pindex]

    def setmap_begin(self, pmap: Id, start: int, end: int, value: int) -> None:
        space = self.shadow.spaces.setdefault(pmap, AddressSpace())
        first, last = start >> 12, end >> 12
        if self._watched:
            self.note(("map", pmap), -1, list(space.extents))
        for extent in space.cut(first, last):
            if extent.maptype == "vpagetable":
                extent.pde = value
            space.add(extent)

    map_root = setmap_begin

    # The tree.

    def walk(self, pmap: Id, vpn: int, past: Past | None = None) -> Walk | None:
        """Where the guest's page table for the VPAGETABLE mapping leads; None: nowhere."""
        extent = self.shadow.extent(pmap, vpn) if past is None else past.extent(pmap, vpn)
        if extent is None or extent.maptype != "vpagetable":
            return None
        index = vpn - extent.start + extent.offset
        shift = VPTE_ROOT_SHIFT
        vpte = extent.pde
        writable = executable = True
        leaf: tuple[PageKey, int] | None = None
        while True:
            if not vpte & VPTE_V:
                return None
            writable = writable and bool(vpte & VPTE_RW)
            executable = executable and not vpte & VPTE_NX
            if vpte & VPTE_PS or shift == 0:
                break
            key = (extent.object, vpte_frame(vpte))
            shift -= VPTE_PAGE_BITS
            leaf = (key, index >> shift & VPTE_PAGE_MASK)
            page = self.page(key) if past is None else past.page(key)
            vpte = page.get(leaf[1], 0)
        pindex = vpte_frame(vpte) + (index & ((1 << shift) - 1))
        # The master pde never gets M, so its RW is all there is.
        writable = writable and (leaf is None or bool(vpte & VPTE_M))
        return Walk(extent.object, pindex, writable, executable, leaf)

    def walks_since(self, pmap: Id, vpn: int, since: int) -> Any:
        """(step from which it was true, walk) now and back to `since`, latest first."""
        past = Past(self)
        yield self.shadow.step, self.walk(pmap, vpn)
        for undo in reversed(self.undo):
            if undo.step < since:
                return
            past.revert(undo)
            yield undo.step, self.walk(pmap, vpn, past)


class Past:
    """Memory as it was, one undo record further back at a time."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.pages: dict[PageKey, Words] = {}
        self.maps: dict[Id, AddressSpace] = {}

    def revert(self, undo: Undo) -> None:
        if undo.key[0] == "map":
            space = self.maps[undo.key[1]] = AddressSpace()
            space.add(*undo.old)
        elif undo.idx < 0:
            self.pages[undo.key] = dict(undo.old)
        else:
            page = self.pages.get(undo.key)
            if page is None:
                page = self.pages[undo.key] = dict(self.memory.page(undo.key))
            page[undo.idx] = undo.old

    def page(self, key: PageKey) -> Words:
        found = self.pages.get(self.memory.resolve(key))
        return self.memory.page(key) if found is None else found

    def extent(self, pmap: Id, vpn: int) -> Extent | None:
        space = self.maps.get(pmap)
        return self.memory.shadow.extent(pmap, vpn) if space is None else space.at(vpn)

"""What machine code is judged by beyond its loads: bytes, and whole pages.

A store may be of some bytes of a word, and a step of many instructions has one load of each page it
reads and a store of each word it changes. So the word before a store is to be right, and of a page
that is loaded in such a step all of it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from vkprotocol.param import PAGE_SIZE

from vkemu.oracle.frame import Frame
from vkemu.oracle.user_memory import Memory, Values
from vkemu.oracle.user_space import Process, Region

Wrong = tuple[int, int, Values]  # address, what is there, what is right


class CodeAccess:
    """`code`: threads that execute machine code; `merged`: whose step holds more than one
    instruction; `right`: by frame, what was right when it was looked at last."""

    def __init__(self) -> None:
        self.code: set[str] = set()
        self.merged: set[str] = set()
        self.right: dict[int, tuple[Memory, int, int, int]] = {}

    def insns(self, actor: str, count: int) -> None:
        self.code.add(actor)
        if count > 1:
            self.merged.add(actor)
        else:
            self.merged.discard(actor)

    def before(self, process: Process, va: int, frame: Frame) -> Wrong | None:
        """What is wrong with the word that a store has changed."""
        region = process.at(va)
        if region is None or not frame.initialised or process.changes:
            return None
        values = region.memory.values(va - region.shift)
        if frame.was in values or process.doubted(va):
            return None
        return va, frame.was, values

    def page(self, process: Process, region: Region, va: int, frame: Frame) -> Wrong | None:
        """What is wrong with a page."""
        start = va & -PAGE_SIZE
        memory, place = region.memory, start - region.shift
        state = (memory, place, frame.stamp, memory.version)
        if self.right.get(frame.pfn) == state or process.changes or not frame.initialised:
            return None
        for idx in range(PAGE_SIZE // 8):
            value, values = frame.words.get(idx, 0), memory.values(place + 8 * idx)
            if value not in values and not process.doubted(start + 8 * idx):
                return start + 8 * idx, value, values
        self.right[frame.pfn] = state
        return None


def words_of(content: bytes) -> array[int]:
    """The last one filled up with zeroes."""
    return array("Q", content.ljust(-(-len(content) // 8) * 8, b"\0"))


def bytes_at(va: int, content: bytes) -> Iterator[tuple[int, int, int]]:
    """(address, mask, bits) of each word that they are in."""
    first = va & ~7
    before = bytes(va - first)
    masks, bits = words_of(before + b"\xff" * len(content)), words_of(before + content)
    yield from zip(range(first, va + len(content), 8), masks, bits, strict=True)

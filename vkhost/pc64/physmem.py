"""Physical memory: frames of 512 words. What a frame holds outlives every owner it has.

A real kernel poisons nothing: the words stay as they are through free and allocation until somebody
zeroes or overwrites them, which is what makes a stale translation leak.
"""

from __future__ import annotations

from array import array
from types import coroutine
from typing import Final

from vkprotocol.effects import Effect, Shared, Step
from vkprotocol.param import PAGE_SIZE

_ZEROES: Final = array("Q", bytes(PAGE_SIZE))


class Word(Shared):
    """One word as a unit of dependence; its value lives in `Frame.words`."""

    __slots__ = ("read", "write")

    def __init__(self, frame: Frame, idx: int) -> None:
        super().__init__(("word", frame.pfn, idx))
        whole = ((frame.bulk, False),)
        self.read = Effect(self, "load", write=False, also=whole)
        self.write = Effect(self, "store", write=True, also=whole)


class Frame:
    """Invariant: generation counts the allocations of this frame (vm_page_alloc)."""

    __slots__ = ("_word", "bulk", "generation", "pfn", "words")
    words: array[int]

    def __init__(self, pfn: int) -> None:
        self.pfn = pfn
        self.generation = 0
        self._word: dict[int, Word] = {}
        # Read by every access to one word, written by what touches all of them.
        self.bulk = Shared(("frame", pfn))

    def __getattr__(self, name: str) -> array[int]:
        # Memory nobody has touched takes no memory.
        if name != "words":
            raise AttributeError(name)
        self.put_zeroes()
        return self.words

    def word(self, idx: int) -> Word:
        word = self._word.get(idx)
        if word is None:
            word = self._word[idx] = Word(self, idx)
        return word

    def forget_words(self) -> None:
        """As units of dependence: they are made anew. Their values stay."""
        self._word.clear()

    @coroutine
    def load(self, idx: int) -> Step:
        yield self.word(idx).read
        return self.words[idx]

    @coroutine
    def store(self, idx: int, value: int) -> Step:
        yield self.word(idx).write
        self.words[idx] = value

    @coroutine
    def swap(self, idx: int, value: int) -> Step:
        yield self.word(idx).write
        old = self.words[idx]
        self.words[idx] = value
        return old

    @coroutine
    def cmpset(self, idx: int, old: int, new: int) -> Step:
        """atomic_cmpset_long."""
        yield self.word(idx).write
        if self.words[idx] != old:
            return False
        self.words[idx] = new
        return True

    @coroutine
    def zero(self) -> Step:
        """pmap_zero_page."""
        yield Effect(self.bulk, "zero", write=True)
        self.put_zeroes()

    @coroutine
    def read_bytes(self) -> Step:
        """All of the frame, as a device reads it.

        A write in the footprint: it must not commute with the stores to single words, which only
        read `bulk`.
        """
        yield Effect(self.bulk, "read_bytes", write=True)
        return self.words.tobytes()

    @coroutine
    def write_bytes(self, source: bytes) -> Step:
        """The frame filled from a device, zero-padded."""
        yield Effect(self.bulk, "write_bytes", write=True)
        self.put_bytes(source.ljust(PAGE_SIZE, b"\0"))

    def put_zeroes(self) -> None:
        self.words = _ZEROES[:]

    def put_bytes(self, page: bytes) -> None:
        self.words = array("Q", page)[:]  # which takes no more than it needs


class Frames(dict[int, Frame]):
    """The frames of a machine that somebody has looked at, by pfn. Looking makes them."""

    def __init__(self, pages: int) -> None:
        super().__init__()
        self.pages = pages

    def __missing__(self, pfn: int) -> Frame:
        if not 0 <= pfn < self.pages:
            raise IndexError(f"no frame {pfn}, there are {self.pages}")
        frame = self[pfn] = Frame(pfn)
        return frame


class PhysMem:
    """The frames of the machine, by pfn."""

    __slots__ = ("frames",)

    def __init__(self, pages: int) -> None:
        self.frames = Frames(pages)

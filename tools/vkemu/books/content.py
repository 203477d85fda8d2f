"""What is stored is still there: now, and if every page that counts as clean were thrown away.

A kernel that has lost an M bit, wrote to the wrong block or looks for a page in the wrong layer
shows nothing until a program reads the page again, which it may never do. Here the page is read for
it: each word of a program that the reference knows is looked up as the kernels would find it -
resident, in swap, in a layer below, or zero. And as they would find it once the page is gone, when
neither its dirty bit nor an M bit says that it has to be written first.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from vkprotocol.param import PAGE_SHIFT, PAGE_SIZE

from vkemu.oracle.reference import Reference
from vkemu.oracle.user_memory import ZERO
from vkemu.oracle.user_space import Region
from vkemu.oracle.violation import Violation
from vkguest.kernel import Vkernel
from vkguest.vm.vm_map import VmMap, VmMapEntry
from vkguest.vm.vm_object import VmObject
from vkguest.vm.vm_page import VmPage
from vkhost.vm.vm_page import VM_PAGE_BITS_ALL
from vkhost.vm.vm_page import VmPage as HostPage
from vkhost.vm.vnode import Vnode

Words = Sequence[int]
NOTHING: Final = array("Q", bytes(PAGE_SIZE))


@dataclass(slots=True)
class Image:
    """A guest's memory: the words of each frame, and the frames with an M in some VPTE."""

    words: Callable[[int], Words]
    modified: set[int] = field(default_factory=set)


def check_clean(pages: Iterable[HostPage], modified: Callable[[HostPage], bool]) -> None:
    """A page of the host that counts as clean is on its backing store as it is. `modified`: some
    PTE has M."""
    for m in pages:
        if m.object is None or m.valid != VM_PAGE_BITS_ALL or m.dirty.state or modified(m):
            continue
        stored = _stored(m)
        if stored is not None and stored != m.frame.words.tobytes():
            raise _violation(f"{m} counts as clean, and is not as its backing store has it")


def _stored(m: HostPage) -> bytes | None:
    """None: nowhere."""
    obj = m.object
    assert obj is not None
    if isinstance(obj.handle, Vnode):
        return obj.handle.pread(PAGE_SIZE * m.pindex, PAGE_SIZE).ljust(PAGE_SIZE, b"\0")
    block = obj.swblocks.get(m.pindex)
    return None if block is None else m.kernel.swap._block(block).state.ljust(PAGE_SIZE, b"\0")


def check_programs(guest: Vkernel, image: Image, reference: Reference) -> None:
    """Of every process of the guest whose system calls have all returned."""
    for proc in guest.allproc:
        process = reference.processes.get(f"{guest.proc}/{proc.pid}")
        if process is None or proc.zombie or process.loose:
            continue
        for region in process.regions:
            if not region.memory.busy:
                _check_region(image, process.who, proc.vmspace.vm_map, region)


def _check_region(image: Image, who: str, vm_map: VmMap, region: Region) -> None:
    memory = region.memory
    known: dict[int, list[int]] = {}  # page -> its words that somebody has stored
    for place in memory.words:
        known.setdefault(place >> PAGE_SHIFT, []).append(place >> 3 & 511)
    for va, entry in _pages(who, vm_map, region, known):
        for words, gone in _found(image, entry.object, entry.pindex(va)):
            if not words:
                continue  # nobody writes it
            there = [at for at, word in enumerate(words) if word]
            for at in (*there, *known.get((va - region.shift) >> PAGE_SHIFT, ())):
                place = va + 8 * at - region.shift
                word = words[at]
                if word in memory.words.get(place, ZERO):
                    continue
                allowed = memory.values(place)
                if word not in allowed:
                    right = " or ".join(f"{value:#x}" for value in dict.fromkeys(allowed))
                    raise _violation(
                        f"program {who} would read {word:#x} at {va + 8 * at:#x}, not {right}{gone}"
                    )


def _pages(
    who: str, vm_map: VmMap, region: Region, known: Iterable[int]
) -> Iterator[tuple[int, VmMapEntry]]:
    """Where there may be anything but zeroes, or should be. A program may have mapped far more."""
    stored = {(page << PAGE_SHIFT) + region.shift for page in known}
    at = region.start
    for entry in vm_map.entries:
        if entry.end <= at or entry.start >= region.end:
            continue
        if entry.start > at:
            break
        places = {entry.start + (n - entry.offset << PAGE_SHIFT) for n in _held(entry.object)}
        end = min(entry.end, region.end)
        yield from ((va, entry) for va in sorted(places | stored) if at <= va < end)
        at = end
    if at < region.end:
        raise _violation(f"{at:#x} of program {who} is not mapped")


def _held(obj: VmObject) -> set[int]:
    """The pages that are in one of its layers."""
    held: set[int] = set()
    layer: VmObject | None = obj
    while layer is not None:
        held.update(layer.pages, layer.swap, range(bool(layer.text)))
        layer = layer.backing
    return held


def _found(image: Image, obj: VmObject, pindex: int) -> Iterator[tuple[Words, str]]:
    """What the guest finds there; and what once a page that counts as clean has gone."""
    m, words = _looked_up(image, obj, pindex, None)
    yield words, ""
    if m is not None and not (m.dirty or m.wire_count or m.frame in image.modified):
        yield _looked_up(image, obj, pindex, m)[1], f", were {m} reused, which counts as clean"


def resident(obj: VmObject, pindex: int) -> VmPage | None:
    """The page that a fault finds in memory, if it is what it finds."""
    layer: VmObject | None = obj
    while layer is not None and pindex not in layer.pages and pindex not in layer.swap:
        layer = layer.backing
    return None if layer is None else layer.pages.get(pindex)


def _looked_up(
    image: Image, obj: VmObject, pindex: int, gone: VmPage | None
) -> tuple[VmPage | None, Words]:
    """As vm_fault_object of the guest goes down the layers, had it not the page `gone`."""
    layer: VmObject | None = obj
    while layer is not None:
        m = layer.pages.get(pindex)
        if m is not None and m is not gone:
            return m, image.words(m.frame)
        if pindex in layer.swap:
            return None, image.words(layer.swap[pindex])
        if layer.disk is not None:
            return None, ()  # a file, which nobody writes
        layer = layer.backing
    return None, (*obj.text, *NOTHING[len(obj.text) :])


def _violation(message: str) -> Violation:
    return Violation(12, message, check="books")

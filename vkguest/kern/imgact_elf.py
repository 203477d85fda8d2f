"""Static ELF64 executables: what of the file exec needs. DragonFly `kern/imgact_elf.c`.

Of a loadable segment the vnode-like object has its pages as they are to be mapped: padded with
zeroes in front and behind, where the real kernel clears the rest of the last page in the process's
own copy of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from vkprotocol.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from vkprotocol.param import PAGE_MASK, PAGE_SIZE, VM_MAX_USER_ADDRESS, round_page, trunc_page

HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
ET_EXEC, EM_X86_64, PT_LOAD, PT_DYNAMIC, PT_INTERP = 2, 62, 1, 2, 3
PF_X, PF_W, PF_R = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Segment:
    """Pages from `start` on. Those past `content` are bss."""

    start: int
    end: int
    prot: int
    content: bytes


@dataclass(frozen=True, slots=True)
class ElfImage:
    """An executable by its `name`; `phdr` is where its program headers are once it is loaded."""

    name: str
    entry: int
    phdr: int
    phnum: int
    segments: tuple[Segment, ...]
    raw: bytes = field(repr=False, compare=False)

    @property
    def brk(self) -> int:
        """Where its heap begins."""
        return max(segment.end for segment in self.segments)


@dataclass(frozen=True, slots=True)
class ElfProgram:
    """A process to start: an image and its arguments, the first of which is its name."""

    image: ElfImage
    args: tuple[str, ...]
    name: str


def elf_image(name: str, raw: bytes) -> ElfImage:
    """ValueError says what is wrong, and at which byte."""
    magic = b"\x7fELF"
    if len(raw) < HEADER.size or raw[:4] != magic:
        raise ValueError("byte 0: no ELF file")
    fields = HEADER.unpack_from(raw)
    ident, kind, machine, entry, phoff, phentsize, phnum = (
        fields[0], fields[1], fields[2], fields[4], fields[5], fields[9], fields[10],
    )  # fmt: skip
    class64, little = 2, 1
    if ident[4] != class64 or ident[5] != little or machine != EM_X86_64:
        raise ValueError("byte 4: not for x86-64, expected ELF64, little endian, machine 62")
    if kind != ET_EXEC:
        raise ValueError(f"byte 16: ELF type {kind}, expected 2: static, at fixed addresses")
    if phentsize != PROGRAM_HEADER.size or phoff + phnum * phentsize > len(raw):
        raise ValueError(f"byte 32: {phnum} program headers at {phoff}, beyond the file's end")
    segments: list[Segment] = []
    for number in range(phnum):
        at = phoff + number * phentsize
        segment = _segment(raw, at)
        if segment is not None:
            segments.append(segment)
    return _checked(name, entry, phoff, phnum, segments, raw)


def _segment(raw: bytes, at: int) -> Segment | None:
    kind, flags, offset, va, _, filesz, memsz, _ = PROGRAM_HEADER.unpack_from(raw, at)
    if kind in (PT_DYNAMIC, PT_INTERP):
        raise ValueError(f"byte {at}: linked dynamically, expected a static executable")
    if kind != PT_LOAD or not memsz:
        return None
    if filesz > memsz or offset + filesz > len(raw):
        raise ValueError(f"byte {at}: a segment of {filesz} bytes at {offset} is not in the file")
    if (va ^ offset) & PAGE_MASK:
        raise ValueError(f"byte {at}: offset {offset} and address {va:#x} differ within a page")
    image_bytes_max = 16 << 20
    if va < PAGE_SIZE or va + memsz > VM_MAX_USER_ADDRESS or memsz > image_bytes_max:
        raise ValueError(f"byte {at}: {memsz} bytes at {va:#x} are no user memory")
    prot = (
        (PROT_READ if flags & PF_R else 0)
        | (PROT_WRITE if flags & PF_W else 0)
        | (PROT_EXEC if flags & PF_X else 0)
    )
    content = bytes(va & PAGE_MASK) + raw[offset : offset + filesz]
    content = content.ljust(round_page(len(content)), b"\0") if filesz else b""
    return Segment(trunc_page(va), round_page(va + memsz), prot, content)


def _checked(
    name: str, entry: int, phoff: int, phnum: int, segments: list[Segment], raw: bytes
) -> ElfImage:
    segments_max = 8
    if not 1 <= len(segments) <= segments_max:
        raise ValueError(f"{len(segments)} segments to load, expected 1 to {segments_max}")
    ordered = sorted(segments, key=lambda segment: segment.start)
    for below, above in pairwise(ordered):
        if above.start < below.end:
            raise ValueError(f"segments at {below.start:#x} and {above.start:#x} share a page")
    if not any(s.start <= entry < s.end and s.prot & PROT_EXEC for s in ordered):
        raise ValueError(f"byte 24: the entry {entry:#x} is in no segment that may be executed")
    first = ordered[0]
    phdr = first.start + phoff if phoff < len(first.content) else 0
    return ElfImage(name, entry, phdr, phnum, tuple(ordered), raw)

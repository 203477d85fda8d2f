"""The guest's disk and the files on it. DragonFly vkernel64 `vkdisk.c`, without a file system.

Each file is an object of its own, whose pages are read from the disk on the first fault, and
written to it by the page daemon and msync, and when a shared mapping of them goes. The disk is a
file of the host that is open as DISK_FD.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vkprotocol.errno import errno_name
from vkprotocol.messages import DISK_FD
from vkprotocol.param import PAGE_SIZE, round_page

from vkguest.kern.errors import GuestPanic
from vkguest.kern.imgact_elf import ElfImage
from vkguest.kern.param import phys_to_dmap
from vkguest.vm.vm_object import VmObject

if TYPE_CHECKING:
    from vkguest.vkernel64.globaldata import GlobalData
    from vkguest.vm.vm_page import VmPage


@dataclass(frozen=True, slots=True)
class Vnode:
    """A file: `size` bytes, and the object of its pages, which keeps one reference to itself."""

    name: str
    size: int
    object: VmObject


class Disk:
    """Files by name; executables by name, each with an object for every segment."""

    def __init__(self, images: Iterable[ElfImage], files: Mapping[str, bytes]) -> None:
        self.given = dict(files)
        self.content = bytearray()
        self.files = {name: self._file(name, content) for name, content in files.items()}
        self.images = {image.name: image for image in images}
        self.text = {
            image.name: [self._file(image.name, segment.content) for segment in image.segments]
            for image in self.images.values()
        }

    def vnodes(self) -> Iterator[Vnode]:
        yield from self.files.values()
        for segments in self.text.values():
            yield from segments

    def _file(self, name: str, content: bytes) -> Vnode:
        block = len(self.content) // PAGE_SIZE
        self.content += content.ljust(round_page(len(content)), b"\0")
        pages = round_page(len(content)) // PAGE_SIZE
        return Vnode(name, len(content), VmObject(disk=range(block, block + pages)))


async def vkdisk_read(gd: GlobalData, obj: VmObject, m: VmPage) -> None:
    """vkdisk.c, its strategy: the page from the disk, straight into its frame."""
    reply = await gd.pread(DISK_FD, phys_to_dmap(m.frame), _offset(obj, m))
    if reply.errno:
        raise GuestPanic(f"{gd.kernel.name}: disk read failed: {errno_name(reply.errno)}")


async def vkdisk_write(gd: GlobalData, obj: VmObject, m: VmPage) -> None:
    """The same the other way. The page is busied, and nobody can write to it."""
    if "disk-write-lost" in gd.mutants:
        return
    reply = await gd.pwrite(DISK_FD, phys_to_dmap(m.frame), _offset(obj, m))
    if reply.errno:
        raise GuestPanic(f"{gd.kernel.name}: disk write failed: {errno_name(reply.errno)}")


def _offset(obj: VmObject, m: VmPage) -> int:
    assert obj.disk is not None
    return obj.disk[m.pindex] * PAGE_SIZE

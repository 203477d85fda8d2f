"""A guest's memory image: a file that it may have made itself, and may spoil under us."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from typing import TypeAlias

from vkprotocol.errno import Errno
from vkprotocol.messages import Hello

from vkemu.serving.session import Refused
from vkhost.vm.vnode_pager import FileVnode

Lost: TypeAlias = Callable[[str], None]


class MemoryImage(FileVnode):
    """The file can be truncated or sealed under us, or its disk fill up: then this guest's memory
    is lost and it is told so (`lost`), but the host goes on. It is read and written by calls and
    never mapped, so a truncated one is a short read and no SIGBUS.
    """

    def __init__(self, lost: Lost, name: str, fd: int, size: int) -> None:
        super().__init__(f"image.{name}", fd, size)
        self.unlinked = True
        self._lost = lost

    def pread(self, offset: int, count: int) -> bytes:
        try:
            content = super().pread(offset, count)
        except OSError as error:
            self._lost(f"the memory image: {error.strerror}")
            return b""
        if len(content) < count:
            self._lost(f"the memory image: it ends at byte {offset + len(content)}")
        return content

    def pwrite(self, offset: int, content: bytes) -> None:
        try:
            super().pwrite(offset, content)
        except OSError as error:
            self._lost(f"the memory image: {error.strerror}")


def memory_image(hello: Hello, name: str, fd: int | None, lost: Lost) -> MemoryImage:
    """The guest's memory: the descriptor it sent, or a sparse file without a name made here."""
    if fd is None:
        try:
            fd = os.memfd_create(f"vkernel {name}"[:64], os.MFD_CLOEXEC)
            os.ftruncate(fd, hello.memory)
        except OSError as error:
            if fd is not None:
                os.close(fd)
            raise Refused(Errno.ENOMEM, f"no memory image: {error.strerror}") from None
    try:
        check_image(fd, hello.memory)
    except Refused:
        os.close(fd)
        raise
    return MemoryImage(lost, name, fd, hello.memory)


def check_image(fd: int, memory: int) -> None:
    """Raises Refused."""
    status = os.fstat(fd)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if not stat.S_ISREG(status.st_mode):
        raise Refused(Errno.ENODEV, "the memory image is no regular file")
    if flags & os.O_ACCMODE != os.O_RDWR:
        raise Refused(Errno.EACCES, "the memory image is not open for reading and writing")
    if flags & os.O_APPEND:  # pwrite would write at its end, whatever the offset
        raise Refused(Errno.EINVAL, "the memory image is open for appending")
    if status.st_size < memory:
        raise Refused(Errno.EINVAL, f"the memory image has {status.st_size} bytes, not {memory}")

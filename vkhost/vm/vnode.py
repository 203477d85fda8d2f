"""Vnodes: what stands behind a file mapping. Real bytes, by page.

DragonFly sys/kern/vfs_lock.c, vfs_vnops.c, as far as the VM sees them.
"""

from __future__ import annotations

import os
from types import coroutine
from typing import TYPE_CHECKING

from vkprotocol.effects import CLOCK, Cell, Effect, Key, RWLock, Shared, Step, key_text, took
from vkprotocol.guarded import guarded_by
from vkprotocol.param import PAGE_SIZE

from vkhost.kern.lockorder import VNODE_LOCK

if TYPE_CHECKING:
    from vkhost.vm.vm_object import VmObject


class VnodeLock(RWLock):
    """lockmgr lock of a vnode."""

    __slots__ = ()

    @coroutine
    def try_exclusive(self, patience_ns: int = 0) -> Step:
        """vget(vp, LK_EXCLUSIVE | LK_TIMELOCK): False when it is not to be had in that time."""
        me = yield self._want
        owner, readers, want = self.state
        if owner is not None or readers:
            if not patience_ns:
                return False
            self.state = (owner, readers, want + 1)
            deadline = CLOCK[0] + patience_ns
            yield Effect(self, "vget", write=True, guard=_unlocked, deadline=deadline)
            owner, readers, want = self.state
            want -= 1
            if owner is not None or readers:
                self.state = (owner, readers, want)
                return False
        if me.held is not None:
            took(me, self)
        self.state = (me.tid, (), want)
        return True


def _unlocked(state: tuple[int | None, tuple[int, ...], int]) -> bool:
    return state[0] is None and not state[1]


@guarded_by("lock", "object")
class Vnode:
    """Base: `_read` and `_write` move bytes at once; here they become visible operations, one
    object of dependence for each page of the file.

    LOCKING: `lock` is the vnode lock; `object` is under it; `opencount` is atomic: descriptors,
    the last of which takes an unlinked file's pages with it. `size` in bytes, fixed for a run but
    for truncation under the lock.
    """

    def __init__(self, key: Key, size: int) -> None:
        self.key = key
        self.name = key_text(key)
        self.size = size
        self.lock = VnodeLock(("vnode", self.name, "lock"), rank=VNODE_LOCK)
        self.object: VmObject | None = None
        self.opencount = Cell(("vnode", self.name, "open"), 1)
        self.unlinked = False
        self._pages: dict[int, Shared] = {}
        self.reported: set[int] = set()  # pages whose content the events tell (pager.content)

    async def lock_shared(self) -> None:
        await self.lock.acquire_shared()

    async def unlock_shared(self) -> None:
        await self.lock.release()

    def _page(self, pindex: int) -> Shared:
        page = self._pages.get(pindex)
        if page is None:
            page = self._pages[pindex] = Shared(("vnode", self.name, pindex))
        return page

    @coroutine
    def read_page(self, pindex: int) -> Step:
        """The bytes of a page, zeroes where the file is shorter."""
        yield Effect(self._page(pindex), "read", write=False)
        offset = pindex * PAGE_SIZE
        count = max(0, min(PAGE_SIZE, self.size - offset))
        return self.pread(offset, count).ljust(PAGE_SIZE, b"\0")

    @coroutine
    def write_page(self, pindex: int, content: bytes) -> Step:
        yield Effect(self._page(pindex), "write", write=True)
        offset = pindex * PAGE_SIZE
        self.pwrite(offset, content[: max(0, self.size - offset)])

    def pread(self, offset: int, count: int) -> bytes:
        raise NotImplementedError

    def pwrite(self, offset: int, content: bytes) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """The last descriptor and the last mapping are gone."""


class MemoryVnode(Vnode):
    """A file that is a byte array."""

    def __init__(self, key: Key, size: int) -> None:
        super().__init__(key, size)
        self.content = bytearray(size)

    def pread(self, offset: int, count: int) -> bytes:
        return bytes(self.content[offset : offset + count])

    def pwrite(self, offset: int, content: bytes) -> None:
        self.content[offset : offset + len(content)] = content


class FileVnode(Vnode):
    """A file of the machine this runs on. Owns `fd`."""

    def __init__(self, key: Key, fd: int, size: int | None = None) -> None:
        super().__init__(key, os.fstat(fd).st_size if size is None else size)
        self.fd = fd

    def pread(self, offset: int, count: int) -> bytes:
        return os.pread(self.fd, count, offset)

    def pwrite(self, offset: int, content: bytes) -> None:
        done = 0
        while done < len(content):
            done += os.pwrite(self.fd, content[done:], offset + done)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

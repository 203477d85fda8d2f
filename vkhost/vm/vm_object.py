"""vm_object: pages by index, and who maps them. DragonFly sys/vm/vm_object.h, vm_object.c.

LOCKING. As declared (guarded.py); ref_count and paging_in_progress are atomic; size is fixed but
for truncation, which needs the vnode lock and the token.
"""

from __future__ import annotations

from enum import IntEnum
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vkprotocol.effects import Cell, Key, RWLock, fresh_key, key_text
from vkprotocol.guarded import guarded_by

from vkhost.kern.lockorder import BACKING_LK
from vkhost.kern.token import Token, tsleep_until

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.vm.vm_page import VmPage
    from vkhost.vm.vnode import Vnode


class ObjectType(IntEnum):
    OBJT_DEFAULT = 0
    OBJT_SWAP = 1
    OBJT_VNODE = 2


OBJT_DEFAULT = ObjectType.OBJT_DEFAULT
OBJT_SWAP = ObjectType.OBJT_SWAP
OBJT_VNODE = ObjectType.OBJT_VNODE


class BackingLock(RWLock):
    """backing_lk; `async with` takes it exclusively."""

    __slots__ = ()

    async def __aenter__(self) -> None:
        await self.acquire_exclusive()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.release()


@guarded_by("token", "memq", "resident_page_count", "dead", "swblocks")
@guarded_by("backing_lk", "backing_list")
class VmObject:
    """`size` in pages. `handle`: the vnode of an OBJT_VNODE, else None.

    `backing_list` holds the vm_map_backings (vm_map.py) that map some of this object, each with
    pmap, start, end, offset (bytes), in the order they were attached.
    """

    __slots__ = (
        "backing_list", "backing_lk", "dead", "handle", "id", "kernel", "key", "memq", "onemapping",
        "paging_in_progress", "ref_count", "resident_page_count", "size", "swblocks", "token",
        "type",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, kind: ObjectType, size: int, handle: Vnode | None, key: Key
    ) -> None:
        self.kernel = kernel
        self.key = key
        self.id = key_text(key)  # in events
        self.type = kind
        self.size = size
        self.handle = handle
        self.dead = False
        self.token = Token((self.id, "token"))
        self.memq: dict[int, VmPage] = {}
        self.resident_page_count = 0
        self.ref_count = Cell((self.id, "refs"), 1)
        self.paging_in_progress = Cell((self.id, "pip"))
        # OBJ_ONEMAPPING: anonymous memory of one process, each page in one of its entries at most.
        self.onemapping = Cell((self.id, "onemapping"), kind in (OBJT_DEFAULT, OBJT_SWAP))
        self.backing_lk = BackingLock((self.id, "backing_lk"), rank=BACKING_LK)
        self.backing_list: list[Any] = []
        self.swblocks: dict[int, int] = {}  # token: pindex -> swap block

    def __repr__(self) -> str:
        return f"<VmObject {self.id} {self.type.name} {self.size} pages>"


def vm_object_allocate(
    kernel: Kernel, kind: ObjectType, size: int, handle: Vnode | None = None, key: Key | None = None
) -> VmObject:
    """vm_object.c:vm_object_allocate. One reference. `key` names the object, stably."""
    obj = VmObject(kernel, kind, size, handle, fresh_key("object") if key is None else key)
    kernel.objects[obj.id] = obj
    kernel.emit("object.create", obj.id, kind.name, size)
    return obj


async def vm_object_reference(obj: VmObject) -> None:
    await obj.ref_count.add(1)


async def vm_object_pip_wait(obj: VmObject, wmesg: str) -> None:
    """Until no paging of the object is in progress."""
    await tsleep_until(obj.paging_in_progress, lambda pip: not pip, wmesg)

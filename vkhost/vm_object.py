"""vm_object: pages by index, and who maps them. DragonFly sys/vm/vm_object.h, vm_object.c.

LOCKING. memq, resident_page_count, size, dead: the object's token. backing_list: backing_lk.
ref_count, paging_in_progress: atomic.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from vkhost.lockorder import BACKING_LK
from vkhost.token import Token
from vkprotocol.effects import Cell, Key, RWLock, fresh_key, key_text

if TYPE_CHECKING:
    from vkhost.kernel import Kernel
    from vkhost.vm_page import VmPage
    from vkhost.vnode_pager import Vnode


class ObjectType(IntEnum):
    OBJT_DEFAULT = 0
    OBJT_SWAP = 1
    OBJT_VNODE = 2


OBJT_DEFAULT = ObjectType.OBJT_DEFAULT
OBJT_SWAP = ObjectType.OBJT_SWAP
OBJT_VNODE = ObjectType.OBJT_VNODE


class VmObject:
    """`size` in pages. `handle`: the vnode of an OBJT_VNODE, else None.

    `backing_list` holds the vm_map_backings (vm_map.py) that map some of this object, each with
    pmap, start, end, offset (bytes), in the order they were attached.
    """

    __slots__ = (
        "backing_list", "backing_lk", "dead", "handle", "id", "kernel", "key", "memq",
        "paging_in_progress", "ref_count", "resident_page_count", "size", "swblocks", "token",
        "type",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, type: ObjectType, size: int, handle: Vnode | None, key: Key
    ) -> None:
        self.kernel = kernel
        self.key = key
        self.id = key_text(key)  # in events
        self.type = type
        self.size = size
        self.handle = handle
        self.dead = False
        self.token = Token(("object.token", key))
        self.memq: dict[int, VmPage] = {}
        self.resident_page_count = 0
        self.ref_count = Cell(("object.refs", key), 1)
        self.paging_in_progress = Cell(("object.pip", key))
        self.backing_lk = RWLock(("object.backing_lk", key), rank=BACKING_LK)
        self.backing_list: list[Any] = []
        self.swblocks: dict[int, int] = {}  # token: pindex -> swap block

    def __repr__(self) -> str:
        return f"<VmObject {self.id} {self.type.name} {self.size} pages>"


def vm_object_allocate(
    kernel: Kernel, type: ObjectType, size: int, handle: Vnode | None = None, key: Key | None = None
) -> VmObject:
    """vm_object.c:vm_object_allocate. One reference. `key` names the object, stably."""
    obj = VmObject(kernel, type, size, handle, fresh_key("object") if key is None else key)
    kernel.objects[obj.id] = obj
    kernel.emit("object.create", obj.id, type.name, size)
    return obj

"""The vnode pager: pages of files. DragonFly sys/vm/vnode_pager.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vkprotocol.param import PAGE_SIZE

from vkhost.vm.vm_object import OBJT_VNODE, VmObject, vm_object_allocate, vm_object_reference
from vkhost.vm.vm_page import VM_PAGE_BITS_ALL, VmPage
from vkhost.vm.vm_page_dirty import vm_page_undirty
from vkhost.vm.vnode import FileVnode, MemoryVnode, Vnode, VnodeLock

if TYPE_CHECKING:
    from vkhost.kernel import Kernel

__all__ = [
    "FileVnode",
    "MemoryVnode",
    "Vnode",
    "VnodeLock",
    "vnode_pager_alloc",
    "vnode_pager_getpage",
    "vnode_pager_haspage",
    "vnode_pager_putpage",
]


async def vnode_pager_alloc(kernel: Kernel, vp: Vnode) -> VmObject:
    """The object of the vnode, with one reference more. Made on first use, then kept."""
    await vp.lock.acquire_exclusive()
    obj = vp.object
    if obj is None:
        pages = -(-vp.size // PAGE_SIZE)
        obj = vp.object = vm_object_allocate(kernel, OBJT_VNODE, pages, vp, ("object", vp.name))
    else:
        await vm_object_reference(obj)
    await vp.lock.release()
    return obj


def vnode_pager_haspage(obj: VmObject, pindex: int) -> bool:
    assert obj.handle is not None
    return pindex * PAGE_SIZE < obj.handle.size


async def vnode_pager_getpage(obj: VmObject, pindex: int, m: VmPage) -> None:
    """Fill the busied page from the file: valid, and clean."""
    assert obj.handle is not None
    content = await obj.handle.read_page(pindex)
    if pindex not in obj.handle.reported:
        obj.handle.reported.add(pindex)
        if any(content):
            obj.kernel.emit("pager.content", obj.id, pindex, content)
    await m.frame.write_bytes(content)
    obj.kernel.emit("pager.get", obj.id, pindex, m.pfn)
    m.valid = VM_PAGE_BITS_ALL
    await vm_page_undirty(m)
    obj.kernel.vmmeter.count("v_vnodein")
    obj.kernel.vmmeter.count("v_vnodepgsin")


async def vnode_pager_putpage(obj: VmObject, pindex: int, m: VmPage) -> None:
    """Write the soft-busied page to the file. What is stored into it after the device has read it
    is not in the file, and yet the page is clean in the end (W12)."""
    assert obj.handle is not None
    content = await m.frame.read_bytes()
    # Now, not after the write: what is stored from here on is not in it.
    obj.kernel.emit("pager.put", obj.id, pindex, m.pfn)
    obj.handle.reported.add(pindex)
    await obj.handle.write_page(pindex, content)
    await vm_page_undirty(m)
    obj.kernel.vmmeter.count("v_vnodepgsout")

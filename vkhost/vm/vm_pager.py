"""Pager dispatch by object type. DragonFly sys/vm/vm_pager.c."""

from __future__ import annotations

from typing import Final

from vkhost.vm.swap_pager import swap_pager_getpage, swap_pager_haspage, swap_pager_putpage
from vkhost.vm.vm_object import OBJT_DEFAULT, OBJT_SWAP, OBJT_VNODE, VmObject
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vnode_pager import vnode_pager_getpage, vnode_pager_haspage, vnode_pager_putpage

VM_PAGER_OK: Final = 0
VM_PAGER_BAD: Final = 1  # outside the object
VM_PAGER_FAIL: Final = 2  # not there; or, writing, no room for it
VM_PAGER_ERROR: Final = 4


def vm_pager_has_page(obj: VmObject, pindex: int) -> bool:
    """Token held."""
    if obj.type == OBJT_VNODE:
        return vnode_pager_haspage(obj, pindex)
    return obj.type == OBJT_SWAP and swap_pager_haspage(obj, pindex)


async def vm_pager_get_page(obj: VmObject, pindex: int, m: VmPage) -> int:
    """Fill the busied page, which stays busied. Token of `obj` held exclusively."""
    if obj.type == OBJT_DEFAULT:
        return VM_PAGER_FAIL
    injection = obj.kernel.injection
    try:
        if injection is not None:
            await injection.page_io(obj, pindex, write=False)
        if obj.type == OBJT_VNODE:
            if not vnode_pager_haspage(obj, pindex):
                return VM_PAGER_BAD
            await vnode_pager_getpage(obj, pindex, m)
        elif not swap_pager_haspage(obj, pindex):
            return VM_PAGER_FAIL
        else:
            await swap_pager_getpage(obj, pindex, m)
    except OSError:
        return VM_PAGER_ERROR
    return VM_PAGER_OK


async def vm_pager_put_pages(obj: VmObject, pages: list[VmPage], flags: int) -> list[int]:
    """Write soft-busied pages of `obj`; what was written is clean. A status for each.

    The I/O is done one page after the other, by the caller's thread.
    """
    statuses = []
    injection = obj.kernel.injection
    for m in pages:
        pindex = m.pindex
        try:
            if injection is not None:
                await injection.page_io(obj, pindex, write=True)
            if obj.type != OBJT_VNODE:
                done = await swap_pager_putpage(obj, pindex, m)
                statuses.append(VM_PAGER_OK if done else VM_PAGER_FAIL)
            elif vnode_pager_haspage(obj, pindex):
                await vnode_pager_putpage(obj, pindex, m)
                statuses.append(VM_PAGER_OK)
            else:
                statuses.append(VM_PAGER_BAD)
        except OSError:
            statuses.append(VM_PAGER_ERROR)
    return statuses

"""What a page's words say: flags, dirty; and taking permissions away from everybody.

DragonFly vm_page.c:vm_page_dirty, vm_page_test_dirty, vm_page2.h:vm_page_protect, vm_page_flag_set.
"""

from __future__ import annotations

from types import coroutine

from vkprotocol.effects import Step

from vkhost.kern.panic import kkassert
from vkhost.pc64.pmap_bits import PTE_M, PTE_RW
from vkhost.vm.vm import VM_PROT_NONE, VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_page import PG_MAPPED, PG_WRITEABLE, VM_PAGE_BITS_ALL, VmPage


@coroutine
def vm_page_flag_set(m: VmPage, bits: int) -> Step:
    """atomic_set_int on m->flags; the flags before."""
    word = m.flags
    yield word._write
    old = word.state
    if ~old & bits:
        word.state = old | bits
        m.kernel.emit("page.flags", m.pfn, bits, 0)
    return old


@coroutine
def vm_page_flag_clear(m: VmPage, bits: int) -> Step:
    """atomic_clear_int on m->flags; the flags before."""
    word = m.flags
    yield word._write
    old = word.state
    if old & bits:
        word.state = old & ~bits
        m.kernel.emit("page.flags", m.pfn, 0, bits)
    return old


@coroutine
def vm_page_dirty(m: VmPage) -> Step:
    """Mark the whole page dirty. The page need not be busy: pmap_remove does it to pages it does
    not own, whatever has become of them (W08)."""
    yield m.dirty._write
    kkassert(
        m.kernel,
        not m.reusable,
        f"vm_page_dirty: page {m.pfn} in free/cache queue!",
    )
    if m.dirty.state != VM_PAGE_BITS_ALL:
        m.dirty.state = VM_PAGE_BITS_ALL
        m.kernel.emit("page.dirty", m.pfn, VM_PAGE_BITS_ALL)


@coroutine
def vm_page_reusable(m: VmPage, reusable: bool) -> Step:
    """The clean page, busied, is about to become free or cached - or no longer is. Its dirty word
    before, which had better be 0."""
    yield m.dirty._write
    m.reusable = reusable
    return m.dirty.state


@coroutine
def vm_page_undirty(m: VmPage) -> Step:
    """What is in the page is on its backing store (or worthless)."""
    yield m.dirty._write
    if m.dirty.state:
        m.dirty.state = 0
        m.kernel.emit("page.dirty", m.pfn, 0)


async def vm_page_test_dirty(m: VmPage) -> None:
    """Collect the hardware's modified bits into m.dirty. Page hard-busied."""
    if await m.dirty.load() != VM_PAGE_BITS_ALL and await m.kernel.rmap.testbit(m, PTE_M):
        await vm_page_dirty(m)


async def vm_page_protect(m: VmPage, prot: int) -> None:
    """Reduce every mapping of the page: NONE removes them, READ makes them read-only.

    The page is hard-busied. What the caller may assume afterwards is only as good as the kernel's
    reverse map (facts 6.2).
    """
    if prot == VM_PROT_NONE:
        if await m.flags.load() & (PG_WRITEABLE | PG_MAPPED):
            await m.kernel.rmap.remove_all(m)
    elif prot & VM_PROT_READ and not prot & VM_PROT_WRITE and await m.flags.load() & PG_WRITEABLE:
        await m.kernel.rmap.clearbit(m, PTE_RW)

"""The content of a page, made here: zeroes, or a copy. DragonFly sys/vm/vm_page2.h:
vm_page_zero_fill, vm_page_copy."""

from __future__ import annotations

from types import coroutine

from vkprotocol.effects import Effect, Step

from vkhost.vm.vm_page import VM_PAGE_BITS_ALL, VmPage


@coroutine
def vm_page_zero_fill(m: VmPage) -> Step:
    """Page busied."""
    yield Effect(m.frame.bulk, "zero", write=True)
    m.frame.put_zeroes()
    m.kernel.emit("page.zero", m.pfn)


@coroutine
def vm_page_copy(src: VmPage, dst: VmPage) -> Step:
    """Both busied, or src read-only for everybody."""
    yield Effect(dst.frame.bulk, "copy", write=True, also=((src.frame.bulk, True),))
    dst.frame.words[:] = src.frame.words
    dst.valid = VM_PAGE_BITS_ALL
    dst.kernel.emit("page.copy", src.pfn, dst.pfn)

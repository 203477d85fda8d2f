"""madvise of pages: which are waited for, which move, and what becomes of their swap."""

from __future__ import annotations

import pytest
from vkprotocol.mman import MADV_FREE, MADV_WILLNEED

from tests.vkhost.vkernel import Vkernel
from tests.vkhost.vm.pages import queue_of
from vkhost.vm.swap_pager import swap_pager_putpage
from vkhost.vm.vm import VM_PROT_NONE, VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_mmap import kern_mmap
from vkhost.vm.vm_object import VmObject
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_alloc import vm_page_free
from vkhost.vm.vm_page_busy import (
    vm_page_busy_try,
    vm_page_io_finish,
    vm_page_io_start,
    vm_page_wakeup,
)
from vkhost.vm.vm_page_dirty import vm_page_protect
from vkhost.vm.vm_page_lru import vm_page_deactivate
from vkhost.vm.vmspace import vmspace_fork

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
READ, WRITE = VM_PROT_READ, VM_PROT_WRITE
PRIVATE, FIXED, ANON = 0x2, 0x10, 0x1000


def written() -> tuple[Vkernel, VmObject, VmPage]:
    """Two pages of private memory, of which the first is there, and dirty."""
    k = Vkernel("extent_scan")
    assert k.do(kern_mmap(k.own, k.proc, 0, 2 * PAGE, 7, PRIVATE | ANON | FIXED, -1, 0)) == (0, 0)
    k.fault(0, WRITE, flags=8)
    obj = k.own.vm_map.entries[0].ba.object
    assert obj is not None
    return k, obj, obj.memq[0]


def test_madv_free_is_for_memory_of_one_process() -> None:
    """vm_object_madvise: MADV_FREE needs OBJ_ONEMAPPING, which fork takes away."""
    k, obj, m = written()
    assert m.dirty.value
    k.do(vmspace_fork(k.own, "child"))
    k.do(vm_map_madvise(k.own.vm_map, 0, PAGE, MADV_FREE))
    assert m.dirty.value
    obj.onemapping.state = True
    k.do(vm_map_madvise(k.own.vm_map, 0, PAGE, MADV_FREE))
    assert not m.dirty.value


def test_madvise_waits_for_a_busy_page() -> None:
    """vm_object_madvise, "madvpo"."""
    k, _, m = written()
    k.do(vm_page_io_start(m))
    thread = k.spawn("madvise", vm_map_madvise(k.own.vm_map, 0, PAGE, MADV_FREE))
    while thread.runnable:
        k.step(thread)
    assert m.dirty.value
    k.do(vm_page_io_finish(m))
    while not thread.done:
        k.step(thread)
    assert not m.dirty.value


def test_madv_willneed_activates_what_is_there() -> None:
    """vm_object_madvise: vm_page_activate; nothing is brought in."""
    k, obj, m = written()

    async def idle() -> None:
        assert await vm_page_busy_try(m)
        await vm_page_deactivate(m)
        await vm_page_wakeup(m)

    k.do(idle())
    k.do(vm_map_madvise(k.own.vm_map, 0, 2 * PAGE, MADV_WILLNEED))

    assert queue_of(m) == "active"
    assert list(obj.memq) == [0]


@pytest.mark.parametrize("resident", [True, False])
def test_madv_free_frees_what_is_on_swap(resident: bool) -> None:
    """vm_object_madvise: also where there is no page, "there may be swap"."""
    k, obj, m = written()

    async def page_out() -> None:
        await swap_pager_putpage(obj, 0, m)
        if not resident:
            assert await vm_page_busy_try(m)
            await vm_page_protect(m, VM_PROT_NONE)
            await vm_page_free(m)

    k.do(page_out())
    assert list(obj.swblocks) == [0]
    assert list(obj.memq) == [0] * resident
    k.do(vm_map_madvise(k.own.vm_map, 0, 2 * PAGE, MADV_FREE))
    assert obj.swblocks == {}

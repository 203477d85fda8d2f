"""madvise of pages: whose are taken, and which of them move."""

from __future__ import annotations

import pytest
from vkprotocol.mman import MADV_FREE, MADV_WILLNEED

from tests.vkhost.vkernel import Vkernel
from tests.vkhost.vm.pages import queue_of
from vkhost.vm.vm import VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_map_backing import vm_map_entry_shadow
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_mmap import kern_mmap
from vkhost.vm.vm_object import VmObject
from vkhost.vm.vm_page import VmPage
from vkhost.vm.vm_page_busy import (
    vm_page_busy_try,
    vm_page_io_finish,
    vm_page_io_start,
    vm_page_wakeup,
)
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


def test_madv_free_asks_again_after_a_wait() -> None:
    """vm_object_madvise, "madvpo": what it finds then may have been forked."""
    k, obj, m = written()
    k.do(vm_page_io_start(m))
    thread = k.spawn("madvise", vm_map_madvise(k.own.vm_map, 0, PAGE, MADV_FREE))
    k.blocked(thread)
    obj.onemapping.state = False
    k.do(vm_page_io_finish(m))
    k.finish(thread)

    assert m.dirty.value


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


def test_a_shadow_takes_onemapping_from_its_source() -> None:
    """vm_map.c:vm_map_entry_shadow."""
    k, _, _ = written()
    k.do(vmspace_fork(k.own, "child"))
    entry = k.own.vm_map.entries[0]
    source = entry.ba.object
    assert source is not None

    async def shadow() -> None:
        await k.own.vm_map.lock.acquire_exclusive()
        await vm_map_entry_shadow(k.own.vm_map, entry)
        await k.own.vm_map.lock.release()

    source.onemapping.state = True
    k.do(shadow())
    assert not source.onemapping.value

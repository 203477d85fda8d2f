"""msync: vm_map.c:vm_map_clean."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol.mman import MAP_SHARED, MS_INVALIDATE

from tests.vkhost.vkernel import Vkernel
from vkhost.pc64.pmap_switch import swtch_in
from vkhost.quirks import Quirks
from vkhost.vm.vm_mmap import sys_msync
from vkhost.vm.vm_object_page import vm_object_page_clean
from vkhost.vm.vm_pageout_clean import OBJPC_SYNC

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096


def dirty(k: Vkernel, frame: int, va: int) -> None:
    """A store by a CPU."""

    async def body() -> None:
        await swtch_in(k.lwp)
        await k.lwp.cpu.store(va, 0x55)

    k.do(body())
    assert k.word(frame) == 0x55


async def fsync(k: Vkernel) -> None:
    await k.vnode.lock.acquire_exclusive()
    assert k.vnode.object is not None
    await vm_object_page_clean(k.vnode.object, 0, 0, OBJPC_SYNC)
    await k.vnode.lock.release()


def test_msync_of_part_of_a_file_writes_nothing() -> None:
    k = Vkernel("pv_entry")
    k.mmap(k.own, 0, 8 * PAGE, MAP_SHARED)
    dirty(k, 1, PAGE)
    dirty(k, 5, 5 * PAGE)

    # Pass 1 of vm_object.c:vm_object_page_clean is made for whole objects, and pass 2 writes what
    # it has marked: a part of a file is not written at all.
    assert k.do(sys_msync(k.proc, 0, 2 * PAGE, 0)) == 0
    assert k.vnode.content[PAGE] == 0
    k.do(fsync(k))
    assert (k.vnode.content[PAGE], k.vnode.content[5 * PAGE]) == (0x55, 0x55)


def test_msync_of_all_of_a_file_writes_it() -> None:
    k = Vkernel("pv_entry", image_pages=8)
    k.mmap(k.own, 0, 8 * PAGE, MAP_SHARED)
    dirty(k, 5, 5 * PAGE)

    assert k.do(sys_msync(k.proc, 2 * PAGE, 0, 0)) == 0  # the whole entry
    assert k.vnode.content[5 * PAGE] == 0x55


def test_msync_with_invalidate_unmaps_the_range_and_frees_its_clean_pages() -> None:
    k = Vkernel("pv_entry")
    k.mmap(k.own, 0, 8 * PAGE, MAP_SHARED)
    k.fault(PAGE, 1)
    dirty(k, 2, 2 * PAGE)
    k.do(sys_msync(k.proc, PAGE, 2 * PAGE, MS_INVALIDATE))

    assert k.vnode.object is not None
    assert 1 not in k.vnode.object.memq
    assert k.mapped(2 * PAGE) is None
    assert k.vnode.object.memq[2].dirty.value  # not written, so not freed either


def test_msync_with_invalidate_removes_the_mappings_of_the_range_first() -> None:
    """vm_map.c:vm_map_clean: pmap_remove, and only then is anything cleaned; so that an M that is
    in a PTE alone is written too."""
    k = Vkernel("pv_entry", image_pages=8)
    k.mmap(k.own, 0, 8 * PAGE, MAP_SHARED)
    dirty(k, 5, 5 * PAGE)
    k.events.clear()
    k.do(sys_msync(k.proc, 0, 8 * PAGE, MS_INVALIDATE))

    order = [name for name, *fields in k.named("pte.write", "pager.put")]
    assert order.index("pager.put") > order.index("pte.write")
    assert [fields[-1] for name, *fields in k.named("pte.write")] == ["remove"]
    assert k.vnode.content[5 * PAGE] == 0x55


@pytest.mark.parametrize(
    ("how", "freed", "written"),
    [("range", {5}, False), ("object", {5, 6}, True), ("skip", set(), False)],
)
def test_w41_what_msync_takes_for_the_pages_of_a_page_table_mapping(
    how: Any, freed: set[int], written: bool
) -> None:
    """vm_map.c:vm_map_clean: by address as the patch, the whole object to 2021, nothing in 2026."""
    k = Vkernel("pv_entry", quirks=Quirks(clean_vpagetable=how))
    k.vpagetable(k.tables({5: 10 << 12 | 0x7, 20: 5 << 12 | 0x7, 21: 6 << 12 | 0x7}))
    k.fault(20 * PAGE, 1)
    k.fault(21 * PAGE, 1)
    dirty(k, 10, 5 * PAGE)
    k.do(sys_msync(k.proc, 5 * PAGE, PAGE, MS_INVALIDATE))

    assert k.vnode.object is not None
    assert {5, 6} - k.vnode.object.memq.keys() == freed
    assert (k.vnode.content[10 * PAGE] == 0x55) is written
    assert k.mapped(5 * PAGE) is None

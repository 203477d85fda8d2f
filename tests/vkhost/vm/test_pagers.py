from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from vkprotocol.effects import Cell
from vkprotocol.mman import MADV_DONTNEED, MADV_FREE

from tests.vkhost.machine import Machine
from vkhost.vm.swap_pager import swap_pager_haspage, swap_pager_unswapped
from vkhost.vm.vm_object import (
    OBJT_SWAP,
    VmObject,
    vm_object_pip_wait,
    vm_object_reference,
)
from vkhost.vm.vm_object_madvise import vm_object_madvise
from vkhost.vm.vm_object_page import (
    vm_object_deallocate,
    vm_object_page_clean,
    vm_object_page_remove,
)
from vkhost.vm.vm_page import PG_SWAPPED, VmPage
from vkhost.vm.vm_page_busy import (
    vm_page_busy_try,
    vm_page_io_finish,
    vm_page_io_start,
    vm_page_wakeup,
)
from vkhost.vm.vm_page_dirty import vm_page_dirty
from vkhost.vm.vm_page_queue import PQ_INACTIVE
from vkhost.vm.vm_page_wire import vm_page_wire
from vkhost.vm.vm_pageout_clean import OBJPC_SYNC
from vkhost.vm.vm_pager import (
    VM_PAGER_BAD,
    VM_PAGER_ERROR,
    VM_PAGER_FAIL,
    VM_PAGER_OK,
    vm_pager_get_page,
    vm_pager_has_page,
    vm_pager_put_pages,
)
from vkhost.vm.vnode import FileVnode, MemoryVnode, Vnode
from vkhost.vm.vnode_pager import vnode_pager_alloc

pytestmark = pytest.mark.usefixtures("guarded")
Act = Callable[[VmPage], Coroutine[Any, Any, Any]]


def get(machine: Machine, obj: VmObject, m: VmPage) -> Any:
    async def body() -> int:
        async with obj.token:
            return await vm_pager_get_page(obj, m.pindex, m)

    return machine.do(body())


def put(machine: Machine, obj: VmObject, *pages: VmPage) -> Any:
    async def body() -> list[int]:
        for m in pages:
            await vm_page_io_start(m)
        return await vm_pager_put_pages(obj, list(pages), 0)

    return machine.do(body())


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


@pytest.fixture(params=["memory", "file"])
def vp(request: pytest.FixtureRequest, tmp_path: Path) -> Vnode:
    """Two pages and a half."""
    size = 2 * 4096 + 2048
    if request.param == "memory":
        return MemoryVnode("v", size)
    path = tmp_path / "image"
    path.write_bytes(bytes(size))
    import os

    return FileVnode("v", os.open(path, os.O_RDWR))


def test_a_page_of_a_file_comes_and_goes(vp: Vnode) -> None:
    machine = Machine()
    vp.pwrite(4096, words(1, 2))
    obj = machine.do(vnode_pager_alloc(machine.kernel, vp))
    m = machine.page(obj, 1)
    m.valid = 0

    assert get(machine, obj, m) == VM_PAGER_OK
    assert list(m.frame.words[:3]) == [1, 2, 0]
    assert m.valid == 0xFF

    machine.do(m.frame.store(1, 9))
    machine.do(vm_page_dirty(m))
    assert put(machine, obj, m) == [VM_PAGER_OK]
    assert vp.pread(4096, 16) == words(1, 9)
    assert m.dirty.value == 0
    vp.close()


def test_the_last_page_of_a_file_is_padded_and_not_beyond_it(vp: Vnode) -> None:
    machine = Machine()
    vp.pwrite(2 * 4096 + 2040, words(7))
    obj = machine.do(vnode_pager_alloc(machine.kernel, vp))
    m, beyond = machine.page(obj, 2), machine.page(obj, 3)
    machine.do(m.frame.store(300, 5))

    assert obj.size == 3
    assert get(machine, obj, m) == VM_PAGER_OK
    assert (m.frame.words[255], m.frame.words[300]) == (7, 0)
    assert get(machine, obj, beyond) == VM_PAGER_BAD
    machine.do(m.frame.store(300, 5))
    assert put(machine, obj, m, beyond) == [VM_PAGER_OK, VM_PAGER_BAD]
    assert len(vp.pread(0, 1 << 20)) == 2 * 4096 + 2048
    vp.close()


def test_a_device_error_is_an_error_of_the_pager(vp: Vnode) -> None:
    machine = Machine()
    obj = machine.do(vnode_pager_alloc(machine.kernel, vp))
    m = machine.page(obj, 0)

    def fail(*args: Any) -> Any:
        raise OSError

    vars(vp).update(pread=fail, pwrite=fail)
    assert get(machine, obj, m) == VM_PAGER_ERROR
    assert put(machine, obj, m) == [VM_PAGER_ERROR]


def test_a_file_has_one_object_which_lives_while_it_is_open_or_mapped(vp: Vnode) -> None:
    machine = Machine()
    vp.unlinked = True
    obj = machine.do(vnode_pager_alloc(machine.kernel, vp))
    assert machine.do(vnode_pager_alloc(machine.kernel, vp)) is obj
    machine.page(obj, 0, busy=False)
    machine.do(vm_object_deallocate(obj))
    machine.do(vm_object_deallocate(obj))
    assert not obj.dead  # still open

    machine.do(vm_object_reference(obj))
    vp.opencount.state = 0
    machine.do(vm_object_deallocate(obj))

    assert obj.dead
    assert obj.memq == {}
    assert machine.kernel.vmstats.v_free_count.value == 8
    assert ("object.destroy", obj.id) in machine.events
    assert ("page.discard", 0) in machine.events


def test_a_linked_files_dirty_pages_are_written_before_its_object_goes(vp: Vnode) -> None:
    machine = Machine()
    obj = machine.do(vnode_pager_alloc(machine.kernel, vp))
    m = machine.page(obj, 0)
    machine.do(m.frame.store(0, 3))
    machine.do(vm_page_dirty(m))
    machine.do(vm_page_wakeup(m))
    vp.opencount.state = 0

    machine.do(vm_object_deallocate(obj))

    assert vp.pread(0, 8) == words(3)


def test_swap_holds_what_it_is_given() -> None:
    machine = Machine(swap_pages=2)
    swap = machine.kernel.swap
    obj = machine.object()
    pages = [machine.page(obj, i) for i in range(3)]
    for i, m in enumerate(pages):
        machine.do(m.frame.store(0, 10 + i))
        machine.do(vm_page_dirty(m))

    assert get(machine, obj, pages[0]) == VM_PAGER_FAIL
    assert put(machine, obj, *pages) == [VM_PAGER_OK, VM_PAGER_OK, VM_PAGER_FAIL]
    assert obj.type == OBJT_SWAP
    assert [m.dirty.value for m in pages] == [0, 0, 0xFF]
    assert machine.do(swap.full())
    machine.do(pages[1].frame.zero())
    assert get(machine, obj, pages[1]) == VM_PAGER_OK
    assert pages[1].frame.words[0] == 11
    assert get(machine, obj, pages[2]) == VM_PAGER_FAIL

    async def unswap() -> None:
        async with obj.token:
            assert vm_pager_has_page(obj, 1)
            await swap_pager_unswapped(pages[1])
            assert not swap_pager_haspage(obj, 1)

    machine.do(unswap())
    assert not pages[1].flags.value & PG_SWAPPED
    assert not machine.do(swap.full())
    assert put(machine, obj, pages[2]) == [VM_PAGER_OK]


def test_swap_comes_back_when_its_object_goes() -> None:
    machine = Machine(swap_pages=2)
    obj = machine.object()
    m = machine.page(obj, 0)
    put(machine, obj, m)
    m.busy_count.state = 0
    assert machine.kernel.swap.vm_swap_size.value == 1

    machine.do(vm_object_deallocate(obj))

    assert machine.kernel.swap.vm_swap_size.value == 2
    assert machine.kernel.objects == {}


def test_what_is_given_up_does_not_come_back_from_swap() -> None:
    """vm_object.c:vm_object_madvise: of the page that is resident, and of the one that is not."""
    machine = Machine(swap_pages=2)
    obj = machine.object()
    obj.onemapping.state = 1
    pages = [machine.page(obj, i) for i in range(2)]
    put(machine, obj, *pages)
    for m in pages:
        m.busy_count.state = 0
    del obj.memq[1]

    machine.do(vm_object_madvise(obj, 0, 2, MADV_DONTNEED))
    assert machine.kernel.swap.vm_swap_size.value == 0
    machine.do(vm_object_madvise(obj, 0, 2, MADV_FREE))

    assert machine.kernel.swap.vm_swap_size.value == 2
    assert not pages[0].flags.value & PG_SWAPPED


@pytest.mark.parametrize(
    ("busied", "done"),
    [(vm_page_busy_try, vm_page_wakeup), (vm_page_io_start, vm_page_io_finish)],
)
def test_advice_waits_for_a_busy_page(busied: Act, done: Act) -> None:
    """vm_object.c:vm_object_madvise sleeps in "madvpo" and looks again."""
    machine = Machine()
    obj = machine.object()
    m = machine.page(obj, 0)
    machine.do(vm_page_wakeup(m))
    machine.do(busied(m))

    thread = machine.spawn("madvise", vm_object_madvise(obj, 0, 1, MADV_DONTNEED))
    machine.blocked(thread)
    machine.do(done(m))
    machine.finish(thread)

    assert m.queue == PQ_INACTIVE


@pytest.mark.parametrize(("pages", "almost"), [(0, True), (1, True), (100, False)])
def test_swap_is_nearly_full(pages: int, almost: bool) -> None:
    machine = Machine(swap_pages=pages)

    assert machine.do(machine.kernel.swap.almost_full()) is (pages <= 1)
    assert machine.do(machine.kernel.swap.full()) is (pages == 0)


@pytest.mark.parametrize(("clean_only", "left"), [(False, [2]), (True, [1, 2])])
def test_page_remove(clean_only: bool, left: list[int]) -> None:
    machine = Machine()
    obj = machine.object()
    pages = [machine.page(obj, i) for i in range(4)]
    machine.do(vm_page_dirty(pages[1]))
    machine.do(vm_page_wire(pages[2]))
    for m in pages:
        machine.do(vm_page_wakeup(m))

    machine.do(vm_object_page_remove(obj, 0, 3, clean_only))

    assert sorted(obj.memq) == [*left, 3]
    assert obj.paging_in_progress.value == 0


def test_page_clean_protects_then_writes() -> None:
    machine = Machine("pv_entry")
    pmap = machine.pmap()
    vp = MemoryVnode("v", 4 * 4096)
    obj = machine.do(vnode_pager_alloc(machine.kernel, vp))
    m = machine.page(obj, 2)
    machine.enter(pmap, 0x5000, m)
    machine.do(vm_page_wakeup(m))
    cpu = machine.run_on(0, pmap)
    machine.do(cpu.store(0x5000, 4))

    machine.do(vm_object_page_clean(obj, 0, 0, OBJPC_SYNC))

    assert vp.pread(2 * 4096, 8) == words(4)
    assert m.dirty.value == 0
    assert cpu.tlb.entries() == []
    assert m.busy_count.value == 0


def test_pip_wait() -> None:
    machine = Machine()
    obj = machine.object()
    obj.paging_in_progress.state = 1
    waiting = machine.spawn("w", vm_object_pip_wait(obj, "tst"))
    machine.blocked(waiting)
    machine.do(obj.paging_in_progress.add(-1))
    machine.finish(waiting)


def test_a_vnode_lock_has_patience() -> None:
    machine = Machine()
    vp = MemoryVnode("v", 4096)
    done = Cell("done")
    got: list[bool] = []

    async def owner() -> None:
        await vp.lock.acquire_exclusive()
        await done.wait(bool)
        await vp.lock.release()

    async def impatient(patience: int) -> None:
        got.append(await vp.lock.try_exclusive(patience))
        if got[-1]:
            await vp.lock.release()

    first = machine.spawn("a", owner())
    machine.step(first)
    machine.do(impatient(0))
    waiting = machine.spawn("b", impatient(1000))
    machine.blocked(waiting)
    shared = machine.spawn("c", vp.lock_shared())
    assert not shared.runnable  # behind the exclusive request
    machine.ex.advance()
    machine.finish(waiting)
    machine.do(done.store(1))
    machine.finish(first)
    machine.do(impatient(1000))

    assert got == [False, False, True]
    machine.finish(shared)

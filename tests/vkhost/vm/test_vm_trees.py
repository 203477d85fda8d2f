"""The VM as each tree has it: what an item changes, shown by what happens without it."""

from __future__ import annotations

from typing import Any

import pytest
from vkprotocol.mman import MADV_NOSYNC, MADV_SETMAP

from tests.vkhost.machine import Machine
from tests.vkhost.vkernel import RW, Vkernel
from tests.vkhost.vm.pages import Pages, queue_of
from vkhost.kern.panic import Panic
from vkhost.pc64.pmap import pmap_resident_tlnw_count
from vkhost.pc64.pmap_enter import pmap_enter
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.tree import Tree
from vkhost.vm.vm import VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_madvise import vm_map_madvise
from vkhost.vm.vm_mmap import kern_mmap
from vkhost.vm.vm_object_page import vm_object_page_clean, vm_object_page_remove
from vkhost.vm.vm_page import PG_CLEANCHK, PG_MAPPED, PG_NOSYNC, PG_WRITEABLE, VmPage
from vkhost.vm.vm_page_busy import (
    vm_page_io_start,
    vm_page_wakeup,
)
from vkhost.vm.vm_page_cache import vm_page_cache, vm_page_try_to_cache
from vkhost.vm.vm_page_dirty import vm_page_dirty
from vkhost.vm.vm_page_wire import vm_page_hold
from vkhost.vm.vm_pageout_clean import OBJPC_NOSYNC, OBJPC_SYNC
from vkhost.vm.vm_wait import vm_wait_pfault
from vkhost.vm.vmspace import Vmspace, vmspace_fork, vmspace_rel
from vkhost.vm.vnode import MemoryVnode
from vkhost.vm.vnode_pager import vnode_pager_alloc

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
READ, WRITE = VM_PROT_READ, VM_PROT_WRITE
SHARED, PRIVATE, FIXED, ANON, VPAGETABLE = 0x1, 0x2, 0x10, 0x1000, 0x2000
NEW: Tree = "2020"


def anonymous(pages: int, flags: int = PRIVATE, **options: Any) -> Vkernel:
    k = Vkernel(**{"tree": NEW, **options})
    assert k.do(kern_mmap(k.own, k.proc, 0, pages * PAGE, 7, flags | ANON | FIXED, -1, 0)) == (0, 0)
    return k


# vm_page.c:vm_page_cache, vm_page_try_to_cache.


@pytest.mark.parametrize(("tree", "panics"), [("5.4", True), (NEW, False)])
def test_vm_page_cache_of_a_dirty_page(tree: Tree, panics: bool) -> None:
    """vm_page.c:vm_page_cache, `cache_dirty_panic`: since May 2019 it is deactivated."""
    host = Pages(tree=tree)
    m = host.busied(host.resident(0, active=True))
    host.drive(vm_page_dirty(m))
    if panics:
        with pytest.raises(Panic, match="caching a dirty page"):
            host.drive(vm_page_cache(m))
    else:
        host.drive(vm_page_cache(m))
        assert queue_of(m) == "inactive"


@pytest.mark.parametrize("pin", [vm_page_io_start, vm_page_hold])
def test_vm_page_cache_leaves_a_page_under_io_or_held_where_it_is(pin: Any) -> None:
    """vm_page.c:vm_page_cache looks at the soft-busy count and hold_count as it begins."""
    host = Pages(tree=NEW)
    m = host.busied(host.resident(0, active=True))
    host.drive(pin(m))
    host.drive(vm_page_cache(m))

    assert queue_of(m) == "active"


@pytest.mark.parametrize("pin", [vm_page_io_start, vm_page_hold])
def test_and_leaves_its_mappings(pin: Any) -> None:
    machine = Machine("pv_entry", tree=NEW)
    pmap, m = machine.pmap(), machine.page(machine.object(), 0)
    machine.enter(pmap, PAGE, m)
    machine.do(pin(m))
    machine.do(vm_page_cache(m))

    assert pmap.pte(PAGE).value


def test_what_is_held_while_its_mappings_go_is_not_cached() -> None:
    """vm_page.c:vm_page_cache looks again."""
    machine = Machine("pv_entry", tree=NEW)
    pmap, m = machine.pmap(), machine.page(machine.object(), 0)
    machine.enter(pmap, PAGE, m)
    thread = machine.spawn("cache", vm_page_cache(m))
    machine.until(thread, "pte.write", "p", PAGE)
    machine.do(vm_page_hold(m))
    machine.finish(thread)

    assert queue_of(m) != "cache"


def test_vm_page_cache_leaves_a_page_that_stays_mapped_on_its_queue() -> None:
    """Where PG_MAPPED comes back: nothing deactivates it."""
    host = Pages(tree=NEW, mutants=("cache-without-protect",))
    m = host.busied(host.resident(0, active=True))
    m.flags.state |= PG_MAPPED
    host.kernel.mutants = frozenset()
    host.kernel.rmap.remove_all = _nothing  # type: ignore[method-assign]
    host.drive(vm_page_cache(m))

    assert queue_of(m) == "active"


async def _nothing(m: VmPage) -> None:
    pass


@pytest.mark.parametrize(("tree", "queue"), [("5.4", "active"), (NEW, "inactive")])
def test_vm_page_try_to_cache_deactivates_a_page_that_proves_dirty(tree: Tree, queue: str) -> None:
    """vm_page.c:vm_page_try_to_cache, of an active page, after [54]: `try_to_cache_deactivates`."""
    host = Pages(tree=tree)
    m = host.busied(host.resident(0, active=True))
    entry = host.vmspace.vm_map.entries[0]
    host.drive(pmap_enter(host.vmspace.pmap, 0, m, READ | WRITE, False, entry))
    host.vmspace.pmap.pte(0).state |= 0x40  # M, by the hardware
    assert not host.drive(vm_page_try_to_cache(m))

    assert queue_of(m) == queue


# vm_object.c.


@pytest.mark.parametrize(("tree", "freed"), [("5.4", True), (NEW, False)])
def test_vm_object_page_remove_tests_dirty_again(tree: Tree, freed: bool) -> None:
    """vm_object_page_remove_callback, `remove_tests_dirty_once`: what protect has told of."""
    machine = Machine("extent_scan", tree=tree)
    obj = machine.object()
    m = machine.page(obj, 0)
    machine.do(vm_page_wakeup(m))
    removing = machine.kernel.rmap.remove_all

    async def told(m: VmPage) -> None:
        await removing(m)
        await vm_page_dirty(m)

    m.flags.state |= PG_MAPPED
    machine.kernel.rmap.remove_all = told  # type: ignore[method-assign]
    machine.do(vm_object_page_remove(obj, 0, 1, clean_only=True))

    assert (0 not in obj.memq) is freed


def dirty_file(**options: Any) -> tuple[Machine, MemoryVnode, list[VmPage]]:
    machine = Machine("extent_scan", **options)
    vp = MemoryVnode("v", 4 * PAGE)
    obj = machine.do(vnode_pager_alloc(machine.kernel, vp))
    pages = [machine.page(obj, i) for i in range(4)]
    for i, m in enumerate(pages):
        m.frame.words[0] = i + 1
        machine.do(vm_page_dirty(m))
        machine.do(vm_page_wakeup(m))
    return machine, vp, pages


@pytest.mark.parametrize(("end", "written"), [(0, [1, 2, 3, 4]), (4, [1, 2, 3, 4]), (3, [0] * 4)])
def test_vm_object_page_clean_of_a_part_writes_nothing(end: int, written: list[int]) -> None:
    """vm_object_page_clean: pass 1, which sets PG_CLEANCHK, is for whole objects."""
    machine, vp, pages = dirty_file()
    machine.do(vm_object_page_clean(pages[0].object, 0, end, OBJPC_SYNC))  # type: ignore[arg-type]

    assert [vp.content[i * PAGE] for i in range(4)] == written


def test_but_what_an_earlier_pass_has_marked_it_does_write() -> None:
    machine, vp, pages = dirty_file()
    pages[1].flags.state |= PG_CLEANCHK
    machine.do(vm_object_page_clean(pages[0].object, 1, 3, OBJPC_SYNC))  # type: ignore[arg-type]

    assert [vp.content[i * PAGE] for i in range(4)] == [0, 2, 0, 0]


def test_the_syncer_leaves_nosync_pages_alone() -> None:
    machine, vp, pages = dirty_file(cluster_pages=1)
    pages[2].flags.state |= PG_NOSYNC | PG_WRITEABLE
    machine.do(vm_object_page_clean(pages[0].object, 0, 0, OBJPC_NOSYNC))  # type: ignore[arg-type]
    assert pages[2].flags.value & PG_WRITEABLE

    assert [vp.content[i * PAGE] for i in range(4)] == [1, 2, 0, 4]


def test_but_not_those_next_to_a_dirty_one() -> None:
    """vm_object_page_clean_pass1 marks a page before it looks at PG_NOSYNC, and
    vm_object_page_collect_flush takes every marked neighbour."""
    machine, vp, pages = dirty_file()
    pages[2].flags.state |= PG_NOSYNC
    machine.do(vm_object_page_clean(pages[0].object, 0, 0, OBJPC_NOSYNC))  # type: ignore[arg-type]

    assert [vp.content[i * PAGE] for i in range(4)] == [1, 2, 3, 4]


def test_a_flush_of_an_object_takes_wired_neighbours_along() -> None:
    """vm_object_page_collect_flush asks for PG_CLEANCHK and dirty, not for wires or queues."""
    machine, vp, pages = dirty_file()
    pages[1].wire_count.state = 1
    machine.do(vm_object_page_clean(pages[0].object, 0, 0, OBJPC_SYNC))  # type: ignore[arg-type]

    assert vp.content[PAGE] == 2


# vm_map.c.


@pytest.mark.parametrize("flags", [0, VPAGETABLE])
def test_munmap_of_part_of_private_memory_frees_its_pages(flags: int) -> None:
    """vm_map_delete: OBJ_ONEMAPPING and another reference; by arithmetic, VPAGETABLE included."""
    k = anonymous(8, PRIVATE | flags)
    k.own.vm_map.entries[0].master_pde = RW | 0x80  # linear
    for page in (2, 5):
        k.fault(page * PAGE, WRITE)
    obj = k.own.vm_map.entries[0].ba.object
    assert obj is not None
    k.events.clear()
    k.do(vm_map_remove(k.own.vm_map, 0, 3 * PAGE))

    # By address, before anybody asks the reverse map.
    assert [event[-1] for event in k.named("pte.write")] == ["remove"]
    assert sorted(obj.memq) == [5]
    k.do(vm_map_remove(k.own.vm_map, 4 * PAGE, 8 * PAGE))
    assert obj.size == 4 or flags


def test_munmap_after_fork_frees_none() -> None:
    k = anonymous(8)
    k.fault(0, WRITE)
    obj = k.own.vm_map.entries[0].ba.object
    assert obj is not None
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))
    k.do(vm_map_remove(k.own.vm_map, 0, 3 * PAGE))

    assert sorted(obj.memq) == [0]
    k.do(vmspace_rel(child))


@pytest.mark.parametrize(("tree", "panics"), [(NEW, True), ("2026", False)])
def test_setmap_of_the_first_half_of_the_first_entry(tree: Tree, panics: bool) -> None:
    """vm_map_simplify_entry: `simplify_compares_prev`, and there is none."""
    k = Vkernel("vptmapped", tree=tree)
    k.vpagetable(None, size=8 * PAGE)

    def setmap() -> Any:
        return k.do(vm_map_madvise(k.own.vm_map, 0, 4 * PAGE, MADV_SETMAP, RW))

    if panics:
        with pytest.raises(Panic, match="no entry before"):
            setmap()
    else:
        assert setmap() == 0


@pytest.mark.parametrize(("tree", "prot"), [(NEW, READ | WRITE), ("2026", READ)])
def test_a_fault_of_a_wired_entry_is_one_for_all_it_allows(tree: Tree, prot: int) -> None:
    """vm_map_lookup, `wired_full_protection`: what is copied on write is copied at once."""
    k = Vkernel("extent_scan", tree=tree)
    k.mmap(k.own, 0, 4 * PAGE, PRIVATE, prot=READ | WRITE)
    k.own.vm_map.entries[0].wired_count = 1
    k.fault(0, READ)
    mapped = k.mapped(0)

    assert mapped is not None
    assert mapped[1] == prot


# vm_fault.c.


def test_a_nosync_entry_marks_what_becomes_writable() -> None:
    """vm_set_nosync: unless it is dirty already; another entry takes the mark away."""
    k = Vkernel("extent_scan")
    k.mmap(k.own, 0, 4 * PAGE, SHARED)
    k.do(vm_map_madvise(k.own.vm_map, 0, 4 * PAGE, MADV_NOSYNC))
    k.fault(0, WRITE)
    assert k.vnode.object is not None
    m = k.vnode.object.memq[0]

    assert m.flags.value & PG_NOSYNC
    k.mmap(k.own, 8 * PAGE, 4 * PAGE, SHARED)
    k.fault(8 * PAGE, WRITE)
    assert not m.flags.value & PG_NOSYNC
    k.do(vm_page_dirty(m))
    k.do(pmap_remove(k.own.pmap, 0, PAGE))
    k.kernel.vmmeter.tunables["fault_bypass"] = 0
    k.fault(0, WRITE)
    assert not m.flags.value & PG_NOSYNC


def test_an_unlinked_file_is_mapped_nosync() -> None:
    """vm_mmap.c:vm_mmap."""
    k = Vkernel("extent_scan")
    k.vnode.unlinked = True
    k.mmap(k.own, 0, 4 * PAGE, SHARED)

    assert k.own.vm_map.entries[0].eflags & 0x0001


def test_waiting_for_memory_ends_when_the_process_is_to_be_killed() -> None:
    """vm_page.c:vm_wait_pfault, P_LOWMEMKILL."""
    host = Pages(pages=32, free_reserved=32)
    from vkhost.kern.proc import proc_create

    proc = proc_create(host.kernel, "p", None, 1)
    assert proc is not None
    proc.lowmemkill.state = True
    host.resident(0)
    thread = host.spawn("pfault", vm_wait_pfault(host.kernel, proc))
    for _ in range(20):
        if not thread.done and (thread.runnable or host.ex.advance()):
            host.step(thread)

    assert ("pageout.wait", "pfault") in host.events
    assert thread.done


def test_the_resident_set_is_counted_without_wired_pages() -> None:
    """pmap.h:pmap_resident_tlnw_count."""
    machine = Machine("extent_scan")
    pmap = machine.pmap()
    obj = machine.object()
    machine.enter(pmap, 0x5000, machine.page(obj, 0))
    m = machine.page(obj, 1)
    machine.do(pmap_enter(pmap, 0x6000, m, 3, True, None))

    assert pmap.resident_count == 2
    assert machine.do(pmap_resident_tlnw_count(pmap)) == 1


# vm_fault.c:vm_fault_collapse; vm_map.c:vmspace_fork_normal_entry.


def collapsed(tree: Tree, *, vpagetable: bool) -> tuple[Vkernel, bool]:
    """A private mapping of 4 pages, all of them copied, forks; was its chain dropped?"""
    k = Vkernel("vptmapped", tree=tree, image_pages=8)
    k.mmap(k.own, 0, 4 * PAGE, PRIVATE | (VPAGETABLE if vpagetable else 0))
    k.own.vm_map.entries[0].master_pde = RW | 0x80
    entry = k.own.vm_map.entries[0]
    for page in range(4):
        k.put(page, 0, page + 1)
    for page in range(4):
        assert k.fault(page * PAGE, WRITE) == 0
    assert entry.ba.object is not k.vnode.object
    obj = entry.ba.object
    assert obj is not None
    if obj.size > 4:  # [20]: only a long chain is collapsed
        entry.ba.backing_count = 5
    k.do(vmspace_fork(k.own, "child"))
    return k, entry.ba.backing_ba is None


@pytest.mark.parametrize(
    ("tree", "vpagetable", "drops"),
    [(NEW, False, True), (NEW, True, False), ("patch", True, True), ("2026", True, True)],
)
def test_decision_3_fork_collapses_the_chain(tree: Tree, vpagetable: bool, drops: bool) -> None:
    k, dropped = collapsed(tree, vpagetable=vpagetable)

    assert dropped is drops
    assert [k.fault(page * PAGE, READ) for page in range(4)] == [0] * 4


def test_a_collapse_copies_what_the_first_object_lacks() -> None:
    k = Vkernel("extent_scan", tree=NEW, image_pages=8)
    k.put(2, 0, 22)
    k.mmap(k.own, 0, 4 * PAGE, PRIVATE)
    k.fault(0, WRITE)
    k.fault(2 * PAGE, READ)
    entry = k.own.vm_map.entries[0]
    entry.ba.backing_count = 5
    k.do(vmspace_fork(k.own, "child"))
    obj = entry.ba.object

    assert entry.ba.backing_ba is None
    assert k.vnode.object is not None
    assert k.vnode.object.backing_list == []
    assert obj is not None
    assert sorted(obj.memq) == [0, 1, 2, 3]
    assert obj.memq[2].frame.words[0] == 22
    assert k.mapped(2 * PAGE) is None  # the PTE of the page below is gone

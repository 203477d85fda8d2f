"""fork: what is shared, what is copied, and that neither side sees the other's writes."""

from __future__ import annotations

import pytest
from vkprotocol.vpte import VPTE_A

from tests.vkhost.vkernel import ROOT, RW, Vkernel
from vkhost.kern.panic import Panic
from vkhost.pc64.pmap_bits import pte_pfn
from vkhost.quirks import Quirks
from vkhost.tree import Tree
from vkhost.vm.vm import MAP_ENTRY_NEEDS_COPY, VM_INHERIT_NONE, VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_map_protect import vm_map_inherit
from vkhost.vm.vm_mmap import kern_mmap
from vkhost.vm.vmspace import Vmspace, vmspace_fork, vmspace_rel

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
READ, WRITE = VM_PROT_READ, VM_PROT_WRITE
SHARED, PRIVATE, ANON, FIXED, VPAGETABLE = 0x1, 0x2, 0x1000, 0x10, 0x2000


def frame_at(k: Vkernel, vmspace: Vmspace, va: int) -> int:
    pte: int = vmspace.pmap.pte(va).state
    return pte_pfn(pte)


def anonymous(pages: int = 4) -> Vkernel:
    k = Vkernel()
    k.do(kern_mmap(k.own, k.proc, 0, pages * PAGE, 7, ANON | FIXED, -1, 0))
    return k


def test_a_shared_mapping_is_the_same_memory() -> None:
    k = Vkernel()
    k.mmap(k.own, 0, 4 * PAGE, SHARED)
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))
    k.fault(0, WRITE)
    k.fault(0, WRITE, child)

    assert frame_at(k, k.own, 0) == frame_at(k, child, 0)
    assert k.vnode.object is not None
    assert k.vnode.object.ref_count.value == 2
    assert len(k.vnode.object.backing_list) == 2


def test_private_memory_is_copied_by_the_first_to_write() -> None:
    k = anonymous()
    k.fault(PAGE, WRITE)
    old = frame_at(k, k.own, PAGE)
    k.kernel.physmem.frames[old].words[0] = 77
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))

    assert k.mapped(PAGE) == (1, 5)  # the parent's PTE has lost RW
    assert k.fault(PAGE, READ, child) == 0
    assert frame_at(k, child, PAGE) == old
    k.fault(PAGE, WRITE, child)
    new = frame_at(k, child, PAGE)
    assert new != old
    assert k.kernel.physmem.frames[new].words[0] == 77
    k.kernel.physmem.frames[new].words[0] = 78
    k.fault(PAGE, WRITE)
    assert k.kernel.physmem.frames[frame_at(k, k.own, PAGE)].words[0] == 77


def test_both_sides_need_a_copy_and_the_last_one_alive_does_not_make_one() -> None:
    k = anonymous()
    k.fault(0, WRITE)
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))
    assert k.own.vm_map.entries[0].eflags & child.vm_map.entries[0].eflags & MAP_ENTRY_NEEDS_COPY
    k.do(vmspace_rel(child))
    objects = len(k.kernel.objects)
    k.fault(0, WRITE)

    assert len(k.kernel.objects) == objects
    assert k.own.vm_map.entries[0].ba.backing_ba is None


def test_untouched_memory_has_no_object_to_share() -> None:
    k = anonymous()
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))
    k.fault(0, WRITE)
    k.fault(0, WRITE, child)

    assert k.own.vm_map.entries[0].ba.object is not child.vm_map.entries[0].ba.object


def test_what_is_not_inherited_is_not_there() -> None:
    k = anonymous()
    k.do(vm_map_inherit(k.own.vm_map, 0, PAGE, VM_INHERIT_NONE))
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))

    assert [(e.start, e.end) for e in child.vm_map.entries] == [(PAGE, 4 * PAGE)]


def test_a_chain_of_forks_finds_the_page_at_its_bottom() -> None:
    k = anonymous()
    k.fault(PAGE, WRITE)
    k.kernel.physmem.frames[frame_at(k, k.own, PAGE)].words[0] = 5
    vmspace = k.own
    keep = []
    for i in range(3):
        vmspace = k.do(vmspace_fork(vmspace, f"child{i}"))
        k.fault(0, WRITE, vmspace)  # puts a layer in front
        keep.append(vmspace)
        consistent_chain(vmspace)
    k.fault(PAGE, WRITE, vmspace)

    assert vmspace.vm_map.entries[0].ba.backing_count == 3
    assert k.kernel.physmem.frames[frame_at(k, vmspace, PAGE)].words[0] == 5


def consistent_chain(vmspace: Vmspace) -> None:
    for entry in vmspace.vm_map.entries:
        chain = list(entry.backings())
        assert {(ba.start, ba.end) for ba in chain} == {(entry.start, entry.end)}
        assert all(ba.object is not None for ba in chain)


def test_a_child_clipped_in_the_middle_of_its_chain() -> None:
    k = anonymous(8)
    for page in range(8):
        k.fault(page * PAGE, WRITE)
        k.kernel.physmem.frames[frame_at(k, k.own, page * PAGE)].words[0] = page
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))
    k.fault(0, WRITE, child)
    from vkhost.vm.vm_map_delete import vm_map_remove

    k.do(vm_map_remove(child.vm_map, 2 * PAGE, 4 * PAGE))
    consistent_chain(child)
    for page in (1, 5, 7):
        k.fault(page * PAGE, WRITE, child)
        assert k.kernel.physmem.frames[frame_at(k, child, page * PAGE)].words[0] == page


def private_page_tables(quirks: Quirks | None = None) -> Vkernel:
    k = Vkernel(quirks=quirks)
    pde = k.tables({1: 10 << 12 | RW})
    k.vpagetable(pde, size=64 * PAGE, flags=PRIVATE)
    return k


def test_w27_the_walk_of_a_forked_vkernel_copies_the_tables() -> None:
    k = private_page_tables(Quirks(lookup_vpagetable_as_write=True))
    k.fault(PAGE, WRITE)
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))
    assert child.vm_map.entries[0].master_pde == k.own.vm_map.entries[0].master_pde
    assert k.fault(PAGE, READ, child) == 0
    tables = [child.vm_map.entries[0].ba.object]
    obj = tables[0]

    assert obj is not None
    assert {ROOT, ROOT + 1, ROOT + 2, ROOT + 3} <= set(obj.memq)
    assert k.word(ROOT + 3, 1) == 10 << 12 | RW  # the file's own table is untouched


def test_w27_without_the_rule_of_f2_accessed_bits_reach_the_original() -> None:
    k = private_page_tables(Quirks(lookup_vpagetable_as_write=False))
    k.fault(PAGE, READ)

    assert k.word(ROOT + 3, 1) & VPTE_A


def wired_parent() -> Vkernel:
    k = anonymous(2)
    for page in range(2):
        k.fault(page * PAGE, WRITE)
        k.kernel.physmem.frames[frame_at(k, k.own, page * PAGE)].words[0] = page + 1
    k.own.vm_map.entries[0].wired_count = 1
    return k


def test_a_wired_entry_is_copied_page_by_page() -> None:
    k = wired_parent()
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))
    frames = k.kernel.physmem.frames

    assert [frames[frame_at(k, child, page * PAGE)].words[0] for page in range(2)] == [1, 2]
    assert frame_at(k, child, 0) != frame_at(k, k.own, 0)
    assert not k.own.vm_map.entries[0].eflags & MAP_ENTRY_NEEDS_COPY
    consistent_chain(child)


def test_w27_and_panics_when_one_is_missing() -> None:
    k = anonymous(2)
    k.fault(0, WRITE)
    k.own.vm_map.entries[0].wired_count = 1

    with pytest.raises(Panic, match="page missing"):
        k.do(vmspace_fork(k.own, "child"))


@pytest.mark.parametrize(
    ("tree", "panics"), [("5.4", True), ("2020", False), ("patch", True), ("2026", True)]
)
def test_w27_of_a_vpagetable_entry_2020_alone_knows_better(tree: Tree, panics: bool) -> None:
    """vm_map.c:vm_map_copy_entry: "the fault-copy code doesn't work with virtual page tables"."""
    k = Vkernel("extent_scan", tree=tree)
    k.mmap(k.own, 0, 4 * PAGE, PRIVATE | VPAGETABLE)
    k.own.vm_map.entries[0].wired_count = 1
    if panics:
        with pytest.raises(Panic, match="page missing"):
            k.do(vmspace_fork(k.own, "child"))
    else:
        k.do(vmspace_fork(k.own, "child"))
        assert k.own.vm_map.entries[0].eflags & MAP_ENTRY_NEEDS_COPY


def test_a_released_vmspace_gives_its_frames_back() -> None:
    k = anonymous()
    for page in range(4):
        k.fault(page * PAGE, WRITE)
    child: Vmspace = k.do(vmspace_fork(k.own, "child"))
    for page in range(4):
        k.fault(page * PAGE, WRITE, child)
    k.do(vmspace_rel(child))
    k.do(vmspace_rel(k.own))

    assert k.kernel.vmstats.v_free_count.value == 64
    assert k.kernel.objects == {}
    assert k.kernel.pmaps == {}

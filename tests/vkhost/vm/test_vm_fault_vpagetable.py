from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vkprotocol.mman import MADV_INVAL
from vkprotocol.vpte import VPTE_A, VPTE_M, VPTE_NX, VPTE_PS, VPTE_RW, VPTE_V

from tests.vkhost.vkernel import ROOT, RW, R, Vkernel
from vkhost.vm.vm import KERN_FAILURE, KERN_SUCCESS, VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_map_madvise import vm_map_madvise

pytestmark = pytest.mark.usefixtures("guarded")

PAGE = 4096
READ, WRITE, EXECUTE = VM_PROT_READ, VM_PROT_WRITE, VM_PROT_EXECUTE


def vkernel(**vptes: int) -> Vkernel:
    """A VPAGETABLE mapping whose page `pN` has the given VPTE."""
    k = Vkernel()
    k.vpagetable(k.tables({int(name[1:]): vpte for name, vpte in vptes.items()}))
    return k


def test_a_walk_through_four_tables_ends_at_the_frame_of_the_last() -> None:
    k = vkernel(p5=10 << 12 | RW)

    assert k.fault(5 * PAGE, READ) == KERN_SUCCESS
    assert k.mapped(5 * PAGE) == (10, READ | EXECUTE)
    assert [event[4] for event in k.named("vpte.read")][-5:] == [36, 27, 18, 9, 0]


def test_nothing_is_mapped_without_setmap() -> None:
    k = Vkernel()
    k.vpagetable(None)

    assert k.fault(0, READ) == KERN_FAILURE
    assert k.named("vpte.read") == [("vpte.read", -1, 0, 0, 36)]


@pytest.mark.parametrize("level", range(5))
def test_ps_ends_the_walk_at_any_level(level: int) -> None:
    """Level 0 is the master pde: a linear mapping of everything."""
    k = Vkernel()
    k.tables({})
    base = 16
    large = base << 12 | RW | VPTE_PS
    if level:
        k.put(ROOT + level - 1, 0, large)
    k.vpagetable(large if level == 0 else ROOT << 12 | RW)
    vpn = 7 if level < 4 else 0  # a PTE spans one page

    assert k.fault(vpn * PAGE, READ) == KERN_SUCCESS
    assert k.mapped(vpn * PAGE) == (base + vpn, READ | EXECUTE)


@pytest.mark.parametrize(("level", "span"), [(0, 36), (1, 27), (2, 18), (3, 9)])
def test_a_large_frame_spans_what_its_level_does(level: int, span: int) -> None:
    """The index is added to the frame, aligned or not, and cut to the span of the level."""
    k = Vkernel()
    k.tables({})
    if level:
        k.put(ROOT + level - 1, 1, 3 << 12 | RW | VPTE_PS)
    k.vpagetable(3 << 12 | RW | VPTE_PS if level == 0 else ROOT << 12 | RW)
    index = (1 << span if level else 0) + 5

    assert k.fault(index * PAGE, READ) == KERN_SUCCESS
    assert k.mapped(index * PAGE) == (3 + 5, READ | EXECUTE)


def test_the_index_is_the_offset_in_the_map_and_not_the_address() -> None:
    k = Vkernel()
    pde = k.tables({6: 20 << 12 | RW})
    k.mmap(k.own, 512 << 30, 1 << 21, 0x1 | 0x2000, offset=4 * PAGE)
    k.own.vm_map.entries[0].master_pde = pde

    assert k.fault((512 << 30) + 2 * PAGE, READ) == KERN_SUCCESS
    assert k.mapped((512 << 30) + 2 * PAGE) == (20, READ | EXECUTE)


def test_the_master_pde_gets_no_accessed_and_modified_bits() -> None:
    k = Vkernel()
    k.vpagetable(8 << 12 | RW | VPTE_PS)

    assert k.fault(0, READ) == KERN_SUCCESS
    assert k.mapped(0) == (8, READ | EXECUTE)  # without M the first write faults again
    assert k.fault(0, WRITE) == KERN_SUCCESS
    assert k.mapped(0) == (8, READ | WRITE | EXECUTE)
    assert k.own.vm_map.entries[0].master_pde == 8 << 12 | RW | VPTE_PS
    assert k.named("vpte.am") == []


def test_a_write_sets_a_and_m_at_every_level_and_a_read_only_a() -> None:
    k = vkernel(p1=10 << 12 | RW, p2=11 << 12 | RW)
    k.fault(1 * PAGE, READ)

    assert [k.word(ROOT + i) & (VPTE_A | VPTE_M) for i in range(3)] == [VPTE_A] * 3
    assert k.word(ROOT + 3, 1) == 10 << 12 | RW | VPTE_A
    k.fault(2 * PAGE, WRITE)
    assert [k.word(ROOT + i) & (VPTE_A | VPTE_M) for i in range(3)] == [VPTE_A | VPTE_M] * 3
    assert k.word(ROOT + 3, 2) == 11 << 12 | RW | VPTE_A | VPTE_M


@pytest.mark.parametrize(
    ("mutants", "written"), [((), False), (("notifier-write-back-unchecked",), True)]
)
def test_w16_notifier_sets_nothing_in_what_may_be_a_table_no_more(
    mutants: tuple[str, ...], written: bool
) -> None:
    """A fault has read the directory; an INVAL returns; the page below is the guest's again."""
    k = Vkernel("notifier", mutants=mutants)
    k.vpagetable(k.tables({1: 10 << 12 | RW}))
    k.fault(2 * PAGE, READ)  # brings the tables in
    fault = k.spawn("a", vm_fault(k.own.vm_map, PAGE, READ))
    while k.until(fault, "vpte.read")[4]:
        pass  # down to the leaf, which lacks A
    k.do(vm_map_madvise(k.own.vm_map, 0, 1 << 21, MADV_INVAL))

    events = [event[0] for event in k.step(fault)]
    while not {"vpte.am", "fault.retry"} & set(events):
        events += [event[0] for event in k.step(fault)]

    assert ("vpte.am" in events) is written


def test_a_write_to_a_read_only_leaf_fails_and_marks_the_directories() -> None:
    k = vkernel(p1=10 << 12 | R)

    assert k.fault(PAGE, WRITE) == KERN_FAILURE
    assert k.word(ROOT + 3, 1) == 10 << 12 | R
    assert k.word(ROOT + 2) & VPTE_M


def test_a_refused_execute_leaves_the_accessed_bit_behind() -> None:
    k = vkernel(p1=10 << 12 | RW | VPTE_NX)

    assert k.fault(PAGE, EXECUTE) == KERN_FAILURE
    assert k.word(ROOT + 3, 1) & VPTE_A
    assert k.fault(PAGE, READ) == KERN_SUCCESS
    assert k.mapped(PAGE) == (10, READ)


def test_a_read_maps_writable_once_m_is_set() -> None:
    k = vkernel(p1=10 << 12 | RW | VPTE_M)
    k.fault(PAGE, READ)

    assert k.mapped(PAGE) == (10, READ | WRITE | EXECUTE)


def test_permissions_of_a_directory_bind_only_faults_of_their_kind() -> None:
    """W28: through a read-only, no-execute directory a read maps what the leaf allows."""
    k = vkernel(p1=10 << 12 | RW | VPTE_M)
    k.put(ROOT + 2, 0, ROOT + 3 << 12 | R | VPTE_NX)

    assert k.fault(PAGE, WRITE) == KERN_FAILURE
    assert k.fault(PAGE, EXECUTE) == KERN_FAILURE
    assert k.fault(PAGE, READ) == KERN_SUCCESS
    assert k.mapped(PAGE) == (10, READ | WRITE | EXECUTE)


def test_mutant_the_downgrade_is_what_makes_m_true() -> None:
    k = Vkernel(mutants=("ro-downgrade-skipped",))
    k.vpagetable(k.tables({1: 10 << 12 | RW}))
    k.fault(PAGE, READ)

    assert k.mapped(PAGE) == (10, READ | WRITE | EXECUTE)
    assert not k.word(ROOT + 3, 1) & VPTE_M


def test_the_entry_limits_what_the_page_table_allows() -> None:
    k = Vkernel()
    k.vpagetable(k.tables({1: 10 << 12 | RW | VPTE_M}), prot=READ | WRITE)
    k.fault(PAGE, READ)

    assert k.mapped(PAGE) == (10, READ | WRITE)


@pytest.mark.parametrize(("mutants", "lost"), [((), False), (("vpte-am-plain-store",), True)])
def test_a_guest_edit_between_load_and_cmpset_is_not_lost(
    mutants: tuple[str, ...], lost: bool
) -> None:
    """F11: the guest clears the VPTE after the host has read it."""
    k = Vkernel(mutants=mutants)
    k.vpagetable(k.tables({1: 10 << 12 | RW}))
    k.fault(2 * PAGE, READ)  # the tables are resident from here on
    assert k.vnode.object is not None
    frame = k.vnode.object.memq[ROOT + 3].frame

    async def fault() -> None:
        from vkhost.vm.vm_fault import vm_fault

        await vm_fault(k.own.vm_map, PAGE, READ)

    worker = k.spawn("fault", fault())
    while k.until(worker, "vpte.read")[4] != 0:
        pass

    async def edit() -> None:
        await frame.store(1, 0)

    k.do(edit())
    k.finish(worker)

    assert (frame.words[1] != 0) is lost
    assert (k.mapped(PAGE) is not None) is lost


# The rules of facts 3.3 once more, as slowly as they are written there.


def reference(
    vptes: list[int], fault_type: int
) -> tuple[int | None, list[int], tuple[bool, bool] | None]:
    """(level that refuses or None, vptes after, (writable, executable) of the host PTE)."""
    vptes = list(vptes)
    for level, vpte in enumerate(vptes):
        # A (and M) are set by the level above's loop, before the tests of this level.
        if level and vpte & VPTE_V:
            if fault_type == WRITE and vpte & VPTE_RW:
                vptes[level] |= VPTE_A | VPTE_M
            if fault_type != WRITE:
                vptes[level] |= VPTE_A
        if not vpte & VPTE_V:
            return level, vptes, None
        if fault_type == WRITE and not vpte & VPTE_RW:
            return level, vptes, None
        if fault_type == EXECUTE and vpte & VPTE_NX:
            return level, vptes, None
    leaf = vptes[-1]
    writable = fault_type == WRITE or bool(leaf & VPTE_RW and leaf & VPTE_M)
    return None, vptes, (writable, not leaf & VPTE_NX)


BITS = st.sets(st.sampled_from([VPTE_V, VPTE_V, VPTE_RW, VPTE_NX, VPTE_A, VPTE_M])).map(sum)
MOSTLY_VALID = st.builds(lambda bits, n: bits | (VPTE_V if n else 0), BITS, st.integers(0, 4))


@pytest.mark.slow
@given(
    bits=st.lists(MOSTLY_VALID, min_size=5, max_size=5),
    faults=st.lists(st.sampled_from([READ, WRITE, EXECUTE]), min_size=1, max_size=3),
)
@settings(max_examples=60)
def test_walks_follow_the_rules(bits: list[int], faults: list[int]) -> None:
    frames = [ROOT, ROOT + 1, ROOT + 2, ROOT + 3, 10]
    vptes = [frame << 12 | b for frame, b in zip(frames, bits, strict=True)]
    k = Vkernel()
    for level in range(4):
        k.put(ROOT + level, 1 if level == 3 else 0, vptes[level + 1])
    k.vpagetable(vptes[0])
    for fault_type in faults:
        refused, vptes, rights = reference(vptes, fault_type)
        result = k.fault(PAGE, fault_type)
        in_image = [k.word(ROOT + i, 1 if i == 3 else 0) for i in range(4)]

        assert in_image == vptes[1:]
        assert result == (KERN_SUCCESS if refused is None else KERN_FAILURE)
        if rights is not None:
            writable, executable = rights
            prot = READ | (WRITE if writable else 0) | (EXECUTE if executable else 0)
            assert k.mapped(PAGE) == (10, prot)

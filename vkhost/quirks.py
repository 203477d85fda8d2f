"""Quirks: what DragonFly's trees do differently from each other, or from what they should do.

Each is a switch with a name, read at the place where it matters (`kernel.quirks.name`). Left open
(None) it is as the host's tree has it, by the table below; `Quirks.none()` is the kernel as it
should be.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from vkhost.tree import Tree


class AsIn(NamedTuple):
    """What a switch is in each tree, and in a kernel as it should be."""

    in_54: Any
    in_2020: Any
    in_patch: Any
    in_2026: Any
    should: Any

    def of(self, tree: Tree) -> Any:
        return self[get_args(Tree).index(tree)]


AS_IN: Final[dict[str, AsIn]] = {
    # name                               5.4       2020      patch     2026      as it should be
    "ebusy_ref_leak":             AsIn(True,     True,     True,     True,     False),
    "pwrite_einval":              AsIn(True,     True,     True,     True,     False),
    "len0_unaligned_page":        AsIn(True,     True,     True,     True,     False),
    "setmap_partial":             AsIn(True,     True,     True,     True,     False),
    "simplify_ignores_master_pde": AsIn(True,    True,     True,     True,     False),
    "inval_counter_dead":         AsIn(True,     True,     True,     True,     False),
    "didcow_or":                  AsIn(True,     True,     False,    False,    False),
    "didcow_of_lookup_only":      AsIn(True,     True,     False,    False,    False),
    "unbounded_object":           AsIn(True,     True,     False,    False,    False),
    "clean_vpagetable":           AsIn("object", "object", "range",  "skip",   "object"),
    "lookup_vpagetable_as_write": AsIn(True,     True,     False,    False,    True),
    "cache_dirty_panic":          AsIn(True,     False,    False,    False,    False),
    "wired_full_protection":      AsIn(True,     True,     True,     False,    False),
    "protect_dirties_late":       AsIn(False,    True,     True,     True,     False),
    "enter_removes_same":         AsIn(False,    True,     True,     True,     False),
    "inval_alone_unlocked":       AsIn(False,    True,     True,     True,     False),
    "quick_finds_nothing":        AsIn(False,    True,     True,     True,     False),
    "try_to_cache_deactivates":   AsIn(False,    True,     True,     True,     True),
    "remove_tests_dirty_once":    AsIn(True,     False,    False,    False,    False),
    "simplify_compares_prev":     AsIn(False,    True,     False,    False,    False),
    "fault_page_leaves_busy":     AsIn(True,     True,     True,     True,     False),
    "fork_collapses_vpagetable":  AsIn(False,    False,    True,     True,     False),
    "fork_copies_wired_vpagetable": AsIn(True,   False,    True,     True,     False),
    "fork_copies_transition":     AsIn(True,     True,     True,     True,     False),
    "locks_lower_layers":         AsIn(True,     True,     True,     True,     False),
    "locked_copies_fault":        AsIn(True,     True,     True,     True,     False),
    "fork_enters_max_protection": AsIn(True,     True,     True,     True,     False),
    "free_without_flush":         AsIn(True,     True,     True,     True,     False),
    "vnode_first":                AsIn(True,     True,     True,     True,     False),
    "hashed_placemarks":          AsIn(False,    True,     True,     True,     True),
}  # fmt: skip


class Quirks(msgspec.Struct, frozen=True):
    """The switches. None: as the tree has it."""

    # facts 2.2: vmspace_destroy that answers EBUSY never drops the ref its lookup took.
    ebusy_ref_leak: bool | None = None
    # facts 2.6: vmspace_pread and vmspace_pwrite are declared and answer EINVAL.
    pwrite_einval: bool | None = None
    # facts 2.7: a len of 0 at an unaligned address is rounded to the whole page.
    len0_unaligned_page: bool | None = None
    # facts 2.8: SETMAP that meets a NORMAL entry goes on, and answers EINVAL at the end.
    setmap_partial: bool | None = None
    # facts 2.8: vm_map_simplify_entry merges entries with different master pdes.
    simplify_ignores_master_pde: bool | None = None
    # facts 9: vm.vpagetable_inval is counted in a branch MADV_INVAL never takes.
    inval_counter_dead: bool | None = None
    # vm_fault.c:vm_fault_page writes `wflags | FW_DIDCOW`, so it always removes the PTE.
    didcow_or: bool | None = None
    # vm_fault.c:vm_fault_object: FW_DIDCOW is set by vm_map_lookup alone, not by a page's copy.
    didcow_of_lookup_only: bool | None = None
    # Decision 1 of the patch, taken back: vm_map.c:vm_map_entry_shadow and
    # vm_map_entry_allocate_object make the object of a VPAGETABLE entry 0x7FFFFFFF pages long.
    unbounded_object: bool | None = None
    # Decision 2: what vm_map.c:vm_map_clean cleans of a VPAGETABLE entry: all of the object, the
    # pages whose numbers are the addresses, or nothing.
    clean_vpagetable: Literal["object", "range", "skip"] | None = None
    # vm_map.c:vm_map_lookup: a fault on a writable VPAGETABLE entry is looked up as a write. The
    # patch's list of what it restores there has it not, and what came of the patch neither.
    lookup_vpagetable_as_write: bool | None = None
    # vm_page.c:vm_page_cache: a page that has become dirty since its caller looked is a panic; and
    # pmap_remove dirties a page without its busy. Compiled out in May 2019 (e3c330f022).
    cache_dirty_panic: bool | None = None
    # vm_map.c:vm_map_lookup and vm_fault.c:vm_fault: a fault of a wired entry is one for all that
    # the entry allows.
    wired_full_protection: bool | None = None

    # pmap.c:pmap_protect_callback: the page is told of A and M after they have left the PTE.
    protect_dirties_late: bool | None = None
    # pmap.c:pmap_enter: pmap_removed_pte is called for the old page also when it is the new one.
    enter_removes_same: bool | None = None
    # pmap_inval.c:pmap_inval_smp: a CPU alone in pm_active looks, and swaps, without CPULOCK_EXCL.
    inval_alone_unlocked: bool | None = None
    # pmap.c:pmap_fault_page_quick asks for a pv_entry that terminal PTEs no longer have.
    quick_finds_nothing: bool | None = None
    # vm_page.c:vm_page_try_to_cache: a page that proves dirty goes from the active queue.
    try_to_cache_deactivates: bool | None = None
    # vm_object.c:vm_object_page_remove_callback: dirty is tested before the mappings go, not after.
    remove_tests_dirty_once: bool | None = None
    # vm_map.c:vm_map_simplify_entry: merging with the next entry compares the backing of the one
    # before; there may be none.
    simplify_compares_prev: bool | None = None
    # vm_fault.c:vm_fault_page: a page that cannot be written although that was asked stays busy.
    fault_page_leaves_busy: bool | None = None
    # Decision 3: vm_map.c:vmspace_fork_normal_entry faults all of a long chain into the first
    # object, and drops the rest, also of a VPAGETABLE entry.
    fork_collapses_vpagetable: bool | None = None
    # vm_map.c:vm_map_copy_entry copies the pages of a wired entry at once, whatever its type. That
    # of 2020 alone knows that for a VPAGETABLE one the copy does not work.
    fork_copies_wired_vpagetable: bool | None = None
    # vm_map.c:vmspace_fork looks for entries in transition nowhere: it takes one whose pages are
    # being wired for one whose pages are, and the child's has the flag for ever.
    fork_copies_transition: bool | None = None
    # vm_map.c:vm_map_unwire wires the pages of a private mapping in whatever layer they are. fork
    # looks in the first one, and panics ("page missing"); or collapses the layers from under them.
    locks_lower_layers: bool | None = None
    # vm_map.c:vm_map_lookup refuses any write to a private mapping that mlock has locked: what has
    # to be copied first is not, once its PTE is lost or protected.
    locked_copies_fault: bool | None = None
    # vm_fault.c:vm_fault_copy_entry enters the pages of a wired entry with its max_protection.
    fork_enters_max_protection: bool | None = None
    # pmap.c:pmap_clearbit: M is cleared in the PTE alone. A CPU that has it in its TLB does not set
    # it again, so what is stored after MADV_FREE has returned is lost with the page.
    free_without_flush: bool | None = None
    # vm_fault.c:vm_fault locks the vnode first, and has it while it waits for the interlock. Who
    # has that may wait for memory, and the pageout daemon for the vnode (W50).
    vnode_first: bool | None = None
    # pmap.c:pmap_placemarker_hash: 16 slots for the PTEs of a pmap, by page number; to 5.4 the lock
    # is that of the PTE's own pv_entry.
    hashed_placemarks: bool | None = None

    def on(self, tree: Tree) -> Quirks:
        """With what is left open as the tree has it."""
        own = {name: as_in.of(tree) for name, as_in in AS_IN.items() if getattr(self, name) is None}
        return msgspec.structs.replace(self, **own)

    @classmethod
    def none(cls) -> Quirks:
        """The kernel as it should be."""
        return cls(**{name: as_in.should for name, as_in in AS_IN.items()})

"""Deliberate defects: each takes out one thing that a window of the race catalogue depends on.

A mutant shows that a check can fail, and that the thing it takes out matters. `"name" in
kernel.mutants` stands at the one place where it applies; `invariants` are those of facts 8.2 that
it can break, 0 standing for a deadlock or a kernel panic.
"""

from __future__ import annotations

from typing import Final

import msgspec

DEADLOCK_OR_PANIC: Final = 0


class Mutant(msgspec.Struct, frozen=True):
    """What is wrong, where, and what that can break."""

    description: str
    where: str  # module:function of vkhost
    invariants: tuple[int, ...]
    windows: tuple[str, ...] = ()  # of the race catalogue


MUTANTS: Final[dict[str, Mutant]] = {
    # Interlock and fault.
    "inval-without-ilock": Mutant(
        "MADV_INVAL does not interlock its range against faults",
        "vm_map_madvise:_inval", (1,), ("W01",),
    ),
    "ilock-released-before-enter": Mutant(
        "vm_fault gives up the interlock before it enters the PTE",
        "vm_fault:_install", (1,), ("W01",),
    ),
    "ilock-kept-over-retry": Mutant(
        "vm_fault keeps the interlock when it starts again and asks for the map lock",
        "vm_fault:vm_fault", (8, DEADLOCK_OR_PANIC), ("W43",),
    ),
    "ilock-waiting-in-own": Mutant(
        "the waiter sets ILOCK_WAITING in its own ilock, where nobody looks",
        "vm_map_interlock:_wait_for", (7, DEADLOCK_OR_PANIC), ("W29",),
    ),
    "ilock-unlock-before-enqueue": Mutant(
        "the waiter drops the spinlock before it is on the sleep queue",
        "vm_map_interlock:_wait_for", (7, DEADLOCK_OR_PANIC), ("W29",),
    ),
    "ilock-no-rescan": Mutant(
        "the waiter goes on from where it slept, not from the head",
        "vm_map_interlock:_wait_for", (7,), ("W29",),
    ),
    "ilock-test-before-unlink": Mutant(
        "the holder tests ILOCK_WAITING while the flag can still be set",
        "vm_map_interlock:vm_map_deinterlock", (7, DEADLOCK_OR_PANIC), ("W29",),
    ),
    "ilock-wake-one": Mutant(
        "the holder wakes one waiter of several",
        "vm_map_interlock:vm_map_deinterlock", (7, DEADLOCK_OR_PANIC), ("W29",),
    ),
    # The walk.
    "vpte-am-plain-store": Mutant(
        "the walker stores A and M where it should compare and set: a guest's edit is undone",
        "vm_fault_vpagetable:_write_back", (1, 5), ("W34",),
    ),
    "walk-without-m": Mutant(
        "a write fault sets A in the VPTE and forgets M",
        "vm_fault_vpagetable:_write_back", (5, 6), ("W13",),
    ),
    "ro-downgrade-skipped": Mutant(
        "a read fault maps writable whatever RW and M say",
        "vm_fault_vpagetable:_downgrade", (5, 6), ("W13", "W28"),
    ),
    "nx-ignored": Mutant(
        "NX in the last VPTE is not carried over",
        "vm_fault_vpagetable:_downgrade", (6,), ("W28",),
    ),
    "wired-full-protection": Mutant(
        "a wired VPAGETABLE entry faults for its full protection ([20]'s rule with [26]'s wiring):"
        " no invariant, but a read of a read-only page fails",
        "vm_map_lookup:wired_full_protection", (), ("W37",),
    ),
    "linear-shortcut": Mutant(
        "vm_fault_bypass takes a VPAGETABLE entry for a linear one",
        "vm_fault_bypass:vm_fault_bypass", (1,), ("W42",),
    ),
    "copied-page-kept-mapped": Mutant(
        "vm_fault_page copies a page and leaves the PTE of the old one, as before git 7a45978d5d:"
        " no invariant, but the guest goes on reading the old page",
        "vm_fault_page:_finish", (), ("W26",),
    ),
    # SETMAP, INVAL and unmapping.
    "setmap-shared-lock": Mutant(
        "SETMAP shares the map lock with faults",
        "vm_map_madvise:_setmap", (1,), ("W19",),
    ),
    "setmap-without-remove": Mutant(
        "SETMAP leaves the PTEs of the old tree",
        "vm_map_madvise:_setmap_entry", (1,), ("W19",),
    ),
    "inval-first-page-only": Mutant(
        "INVAL removes the first page of its range",
        "vm_map_madvise:_inval_interlocked", (1,), ("W17",),
    ),
    "munmap-entries-first": Mutant(
        "munmap takes the entries out before the PTEs",
        "vm_map_delete:_delete", (1, 2), ("W21",),
    ),
    # Shootdown and page table switch.
    "remove-without-shootdown": Mutant(
        "pmap_remove changes PTEs and flushes nobody",
        "pmap_remove:pmap_remove", (1, 2), ("W24",),
    ),
    "inval-local-only": Mutant(
        "a shootdown flushes only the CPU it runs on",
        "pmap_inval:_shoot", (1, 2), ("W24",),
    ),
    "inval-no-wait": Mutant(
        "a shootdown does not wait for the acknowledgements",
        "pmap_inval:_shoot", (1, 2), ("W24",),
    ),
    "inval-without-excl": Mutant(
        "a shootdown lets CPUs come to run on the pmap meanwhile",
        "pmap_inval:_interlock", (1,), ("W24",),
    ),
    "lazy-tlb": Mutant(
        "loading %cr3 leaves the TLB as it is",
        "tlb:Tlb.load_cr3", (1, 2), ("W23",),
    ),
    "swtch-keeps-cr3": Mutant(
        "a switch to a thread of the same pmap does not load %cr3 (git 95270b7ecb)",
        "pmap_switch:swtch_in", (1, 2), ("W24",),
    ),
    "pte-load-then-store": Mutant(
        "a PTE is read and then overwritten, so an M set between is lost",
        "pmap_inval:pmap_inval_smp", (4,), ("W33",),
    ),
    # Pages and their PTEs.
    "no-interlock-count": Mutant(
        "a PTE is swapped out without announcing it to pmap_remove_all",
        "pmap_removed:pmap_interlock_hold", (4, DEADLOCK_OR_PANIC), ("W33",),
    ),
    "enter-without-mapped": Mutant(
        "pmap_enter forgets PG_MAPPED",
        "pmap_enter:_set_mapped_flags", (3, DEADLOCK_OR_PANIC), ("W09",),
    ),
    "removed-pte-ignores-multi": Mutant(
        "removing one PTE of several clears PG_MAPPED",
        "pmap_removed:pmap_removed_pte", (3,), ("W08",),
    ),
    "remove-drops-modified": Mutant(
        "the M of a removed PTE is not carried over to the page",
        "pmap_removed:pmap_removed_am", (4,), ("W33",),
    ),
    "protect-drops-modified": Mutant(
        "the M of a PTE that is made read-only is not carried over to the page",
        "rmap.extent_scan:ExtentScan._make_read_only", (4,),
    ),
    "first-pte-only": Mutant(
        "pmap_testbit looks at the first PTE of a page: no invariant, but msync leaves it out",
        "rmap.extent_scan:ExtentScan.testbit", (),
    ),
    "swap-full-is-written": Mutant(
        "a page that finds no swap counts as written",
        "swap_pager:swap_pager_putpage", (4,),
    ),
    "pv-entry-forgotten": Mutant(
        "pv_entry: some PTEs get no pv_entry",
        "rmap.pv_entry:PvEntry.enter", (2, 3), ("W06",),
    ),
    "broadcast-skipped": Mutant(
        "broadcast: the regions that might hold the page are not flushed",
        "rmap.broadcast:Broadcast.scan", (2, 3, 4), ("W06", "W07", "W12"),
    ),
    "vpte-list-forgotten": Mutant(
        "vpte_list: a PTE from a VPTE is not put on the page's list",
        "rmap.vpte_list:VpteList.enter", (2, 3, 4), ("W06", "W07", "W12"),
    ),
    "bloom-not-inserted": Mutant(
        "bloom: a frame is not inserted into the pmap's filter",
        "rmap.bloom:Bloom.enter", (2, 3, 4), ("W06", "W07", "W12"),
    ),
    "shadow-dmap-unprotected": Mutant(
        "shadow: a table is not write-protected in the DMAP before it is read",
        "rmap.shadow:Shadow.walk_through", (1,), ("W02", "W05"),
    ),
    "shadow-derived-kept": Mutant(
        "shadow: a store to a table is emulated, and what came from its VPTE stays",
        "rmap.shadow:Shadow._edited", (1,), ("W02", "W05"),
    ),
    "shadow-edit-uncounted": Mutant(
        "shadow: an edit is not counted, so a fault that has read the VPTE before enters it after",
        "rmap.shadow:Shadow._edited", (1,), ("W02",),
    ),
    "shadow-emulate-unchecked": Mutant(
        "shadow: a store is emulated whether or not the VPTEs it went by are as they were read",
        "rmap.shadow:Shadow.emulate", (1,), ("W02",),
    ),
    "shadow-withdrawn-after-store": Mutant(
        "shadow: the VPTE is written first, then what came from it goes: before the edit returns,"
        " another CPU of the guest already goes by what it reads",
        "rmap.shadow:Shadow._write", (5,), ("W03",),
    ),
    "nested-reclaim-without-flush": Mutant(
        "nested: a PTE is taken from the second stage, and what it is combined into stays in TLBs",
        "pmap_inval:_shoot_users", (2, 4), ("W06", "W07", "W12"),
    ),
    "nested-protection-ignored": Mutant(
        "nested: the walk takes whatever the second stage maps for readable and writable",
        "nested_walk:_fill", (4, 6), ("W12",),
    ),
    "nested-table-freed-unflushed": Mutant(
        "nested: a second-stage table is freed, and walks that have its address go on",
        "ept_table:EptTable.free", (2,), (),
    ),
    "nested-walk-uninterrupted": Mutant(
        "nested: a walk goes on as if the flush had not come",
        "nested_walk:_interrupted", (1,), ("W01",),
    ),
    "notifier-unchecked": Mutant(
        "notifier: the sequence count is not compared before the PTE is installed",
        "rmap.notifier:Notifier.permits", (1, 2), ("W01",),
    ),
    "notifier-write-back-unchecked": Mutant(
        "notifier: A and M are set in a VPTE whatever the sequence count is: no invariant of the"
        " host, but the word may be data of the guest by now",
        "rmap.notifier:Notifier.write_back_begin", (), ("W16",),
    ),
    "wire-never-dropped": Mutant(
        "wired: removing a PTE leaves its page wired: no invariant, but the page stays for ever",
        "rmap.wired:Wired.remove", (), ("W37",),
    ),
    # Pageout.
    "cache-without-protect": Mutant(
        "vm_page_cache does not remove the mappings first",
        "vm_page_cache:vm_page_cache", (2, DEADLOCK_OR_PANIC), ("W06",),
    ),
    "cache-without-recheck": Mutant(
        "vm_page_cache does not look again after it has removed the mappings",
        "vm_page_cache:vm_page_cache", (4, DEADLOCK_OR_PANIC), ("W07",),
    ),
    "flush-without-protect": Mutant(
        "pages are written while they stay writable: dirty again at once, for ever",
        "vm_pageout_clean:vm_pageout_flush", (9,), ("W12",),
    ),
    "flush-without-soft-busy": Mutant(
        "pages are written without being soft-busied, so faults map them writable meanwhile",
        "vm_pageout_clean:vm_pageout_flush", (4,), ("W12",),
    ),
    "clean-without-write": Mutant(
        "pages are marked clean without being written",
        "vm_pageout_clean:vm_pageout_flush", (4,), ("W12",),
    ),
    "pageout-locks-map": Mutant(
        "the pageout daemon takes a map lock",
        "vm_pageout_page:_launder", (8,), ("W30",),
    ),
    # vmspaces.
    "run-ref-kept": Mutant(
        "leaving RUN does not drop the reference",
        "trap:vkernel_trap", (10,), ("W22",),
    ),
    "destroy-ignores-refs": Mutant(
        "vmspace_destroy does not care who runs there",
        "vm_vmspace:_vmspace_entry_delete", (10, 1), ("W22",),
    ),
    "ve-cache-without-deleted-test": Mutant(
        "the cached vmspace_entry is used although it has been destroyed",
        "vm_vmspace:vkernel_find_vmspace", (1,), ("W44",),
    ),
}  # fmt: skip


def known(name: str) -> bool:
    return name in MUTANTS

"""Where each mutant shows: a litmus test (a window of the catalogue, or one of `programs/`) on a
policy, or a run of a real guest.

Which one it is was found by trying; that it still is, every run of `vkemu mutants` finds out.
"""

from __future__ import annotations

from typing import Final

import msgspec

EXACT: Final = "pv_entry"
SCAN: Final = "extent_scan"  # exact for what is mapped where arithmetic says


class Litmus(msgspec.Struct, frozen=True):
    """All interleavings of a litmus test, or the first `executions` that a strategy takes."""

    test: str
    policy: str = EXACT
    variant: str = ""
    executions: int | None = None
    strategy: str = "dpor"


class Guest(msgspec.Struct, frozen=True):
    """A guest on the host, by a few seeds. `hold`: a vCPU is stopped in the middle of something
    (guests.HOLDS)."""

    workloads: tuple[str, ...]
    vcpus: int = 3
    memory: str = "512K"
    hold: str = ""
    checks: tuple[str, ...] | None = None  # None: the default ones
    guest_pages: int = 0
    swap_pages: int = 0
    free_target: int = 0


class Drawn(msgspec.Struct, frozen=True):
    """Seeds of a scenario whose programs are drawn, until one fails."""

    scenario: str
    policy: str = EXACT
    seeds: int = 8


Place = Litmus | Guest | Drawn

W01, W24, W29 = "W01-late-enter", "W24-active-mask", "W29-lost-wakeup"
W06, W22 = "W06-blind-reclaim", "W22-destroy-busy"

PLACES: Final[dict[str, Place]] = {
    "inval-without-ilock": Litmus(W01),
    "ilock-released-before-enter": Litmus(W01),
    "ilock-kept-over-retry": Litmus("W43-ilock-over-retry"),
    "ilock-waiting-in-own": Litmus(W29),
    "ilock-unlock-before-enqueue": Litmus(W29),
    "ilock-no-rescan": Litmus(W29),
    "ilock-test-before-unlink": Litmus(W29),
    "ilock-wake-one": Litmus(W29),
    "vpte-am-plain-store": Litmus("W34-aba"),
    "walk-without-m": Litmus("dirty-vpte"),
    "ro-downgrade-skipped": Litmus("W28-rights-bypass", variant="ro-leaf"),
    "nx-ignored": Litmus("no-execute"),
    "wired-full-protection": Litmus("read-only-page", "wired"),
    "linear-shortcut": Litmus("W42-linear-shortcut"),
    "copied-page-kept-mapped": Litmus("W26-stale-after-cow"),
    "setmap-shared-lock": Litmus("W19-setmap-in-flight"),
    "setmap-without-remove": Litmus("W19-setmap-in-flight"),
    "inval-first-page-only": Litmus("W17-short-inval"),
    "munmap-entries-first": Litmus("W21-munmap-running"),
    "remove-without-shootdown": Litmus(W24),
    "inval-local-only": Litmus(W24, variant="stream"),
    "inval-no-wait": Litmus("acknowledged"),
    "inval-without-excl": Litmus(W24, variant="stream"),
    "lazy-tlb": Litmus("W23-destroy-no-ipi"),
    "swtch-keeps-cr3": Litmus(W24),
    "pte-load-then-store": Litmus("modified-while-removed", "vpte_list"),
    "no-interlock-count": Litmus("removed-twice", SCAN),
    "enter-without-mapped": Litmus("mapped-twice"),
    "removed-pte-ignores-multi": Litmus("mapped-twice", SCAN),
    "remove-drops-modified": Litmus("modified-while-removed", "vpte_list"),
    "pv-entry-forgotten": Litmus("two-addresses"),
    "broadcast-skipped": Litmus(W06, "broadcast"),
    "vpte-list-forgotten": Litmus(W06, "vpte_list"),
    "bloom-not-inserted": Litmus(W06, "bloom"),
    "shadow-dmap-unprotected": Litmus("edit-without-inval", "shadow"),
    "shadow-derived-kept": Litmus("edit-without-inval", "shadow"),
    "shadow-edit-uncounted": Litmus("W02-inval-before-edit", "shadow", "misbehaving"),
    "shadow-emulate-unchecked": Litmus("edit-under-a-store", "shadow"),
    "shadow-withdrawn-after-store": Litmus("edit-seen-by-another", "shadow"),
    "nested-reclaim-without-flush": Litmus(W06, "nested"),
    "nested-protection-ignored": Litmus("stored-while-cached", "nested"),
    "nested-walk-uninterrupted": Litmus(W01, "nested"),
    "nested-table-freed-unflushed": Litmus("kvm-zap-page", "nested"),
    "notifier-unchecked": Litmus(W01, "notifier"),
    "notifier-write-back-unchecked": Litmus("W16-torn-walk", "notifier"),
    "wire-never-dropped": Litmus("W37-wires", "wired"),
    "protect-drops-modified": Litmus("modified-while-protected", "vpte_list"),
    "first-pte-only": Litmus("modified-at-the-second", "vpte_list"),
    "swap-full-is-written": Drawn("tight"),
    "cache-without-protect": Litmus("two-addresses", "vpte_list"),
    "cache-without-recheck": Litmus("stored-while-cached", SCAN),
    "flush-without-protect": Litmus("laundered", "vpte_list"),
    "clean-without-write": Litmus("written-out", "vpte_list"),
    "pageout-locks-map": Litmus("daemon-and-maps"),
    "run-ref-kept": Litmus(W22, variant="no-leak"),
    "destroy-ignores-refs": Litmus(W22, variant="no-leak"),
    "ve-cache-without-deleted-test": Litmus("W44-id-reuse"),
    # Of the guest.
    "inval-before-edit": Guest(("snapshot:rounds=4",), memory="360K", swap_pages=24),
    "second-clearer-elides": Guest(
        ("snapshot:rounds=4",), hold="clean-before-inval", checks=("guest-dirty",),
        guest_pages=90, swap_pages=24, free_target=180,
    ),
    "async-inval": Guest(("forkcow", "mmapper")),
    "early-frame-reuse": Guest(("pipe", "touch")),
    "noinval-live": Guest(("pipe", "touch")),
    "clear-m-without-inval": Guest(("forkcow", "mmapper")),
    "m-race": Guest(
        ("hog:pages=12,rounds=4",), vcpus=2, hold="load-before-zero", checks=(),
        guest_pages=90, swap_pages=24, free_target=180,
    ),
    "table-before-zero": Drawn("wild", seeds=2),
    "full-swap-is-written": Drawn("tight"),
    "older-page-wins": Litmus("guest-collapse", executions=60, strategy="pct"),
    "madvise-frees-shadow": Litmus("freebsd-madvise-free"),
    "no-cow-vpte": Litmus("guest-copyout", executions=20),
    "fork-without-protect": Litmus("guest-fork", executions=20),
    "cow-source-released": Litmus("guest-collapse", executions=60, strategy="pct"),
    "cow-of-the-bottom": Litmus("guest-cow", executions=20),
    "clip-keeps-offset": Litmus("guest-clip", executions=20),
    "munmap-keeps-vptes": Litmus("guest-munmap", executions=20),
    "copyio-unheld": Litmus("guest-copyio"),
    "free-without-recheck": Litmus("guest-pageout", executions=300),
    "wait-sleeps-late": Litmus("guest-wait"),
    "pipe-sleeps-late": Litmus("guest-pipe"),
    "exec-not-alone": Litmus("guest-exec"),
}  # fmt: skip

# Mutants that no check here can notice, and why.
EQUIVALENT: Final[dict[str, str]] = {
    "flush-without-soft-busy": (
        "every caller of vm_pageout_flush holds the vnode lock, which a fault that would map the "
        "page writable wants as well; only a flush without its callers shows the difference "
        "(tests/oracle/test_mutants.py)"
    ),
    "destroy-while-mapped": (
        "vmspace_destroy takes every host PTE of the vmspace away itself and refuses with EBUSY "
        "while a vCPU runs there, so nothing is mapped when the guest clears its VPTEs after it; "
        "what differs is the order of requests (tests/vkguest/test_mutants.py)"
    ),
    "free-tables": (
        "not by a guest's own programs: a frame would have to be a table, be freed, and hold "
        "another's words that look like a VPTE, all between two reads of one walk; the litmus W16 "
        "is about that, and tests/vkguest/test_mutants.py about the order of the edits"
    ),
}

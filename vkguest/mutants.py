"""Deliberate defects of the guest kernel, and mends of defects the real one has.

Each name is tested where it applies (`"name" in gd.mutants`). A scenario that names none runs the
vkernel as DragonFly has it, documented oddities included.
"""

from __future__ import annotations

from typing import Final

GUEST_MUTANTS: Final[dict[str, str]] = {
    "inval-before-edit": "W02: INVAL first, the VPTE is edited when it has returned",
    "second-clearer-elides": "W03: pmap_clean_pte drops the page spinlock before its INVAL",
    "async-inval": "W04: an INVAL is queued and only issued when the trap is done",
    "early-frame-reuse": "W04: pmap_qremove frees the frames before the one INVAL of the range",
    "noinval-live": "W05: pmap_kenter and pmap_qenter reuse a KVA without the INVAL",
    "clear-m-without-inval": "W13: pmap_clean_pte clears M alone and trusts the host to notice",
    "free-tables": "W16: an empty page table is unlinked and freed at once, without an INVAL",
    "m-race": "the VPTE is read and then zeroed, not swapped: an M the host sets between is lost",
    "destroy-while-mapped": "W22: vmspace_destroy comes before the translations are removed",
    "fork-without-protect": "fork leaves the parent's VPTEs writable",
    "cow-source-released": "the page a copy is made of is let go before it is copied",
    "cow-of-the-bottom": "copy-on-write copies the page of the last object of the chain",
    "clip-keeps-offset": "the upper part of a clipped entry keeps the offset of the whole",
    "munmap-keeps-vptes": "munmap takes the entry and leaves its translations",
    "copyio-unheld": "copyin and copyout do not hold the page they go through",
    "free-without-recheck": "a page is freed though it was written since it was found clean",
    "wait-sleeps-late": "wait lets proc_token go before it is on the sleep queue",
    "pipe-sleeps-late": "a pipe's reader lets its lock go before it is on the sleep queue",
    "exec-not-alone": "exec of a process that has other lwps",
    "full-swap-is-written": "a page that finds no swap counts as written",
    "older-page-wins": "a collapse keeps the page of the backing object where both have one",
    "madvise-frees-shadow": "MADV_FREE of a page in a shadow: what is below it shows again",
    "table-before-zero": "a page table is linked before it is zero",
    "no-cow-vpte": "W26: copyout after a copy-on-write leaves the old VPTE in place",
}

GUEST_MENDS: Final[dict[str, str]] = {
    "round-pde-inval": "W17: INVAL of a PS entry covers the whole 2 MB that it maps",
    "check-inval": "W18: an INVAL the host refuses is a panic, not ignored",
}

# What only machine code notices, and one of a guest with a kernel_map.
GUEST_QUIRKS: Final[dict[str, str]] = {
    "kernel-fault-fatal": "W31: a fault of the kernel on its own memory is a panic, as if final",
    "disk-write-lost": "a page of a file that was written to is clean, and was not written",
    "vfork-no-wait": "vfork returns at once: the parent runs in the address space of its child",
    "npx-no-fpfault": "RUN without PGEX_FPFAULT: the FPU is used while it has another's state",
    "npx-not-pushed": "a signal frame has no FPU state: the handler's is what is left",
}

# Whatever a scenario may put into a guest's `mutants`.
MUTANTS: Final[dict[str, str]] = {**GUEST_MUTANTS, **GUEST_MENDS, **GUEST_QUIRKS}


def check_mutants(names: frozenset[str]) -> frozenset[str]:
    """`names` if all are known, else ValueError naming the first that is not."""
    for name in sorted(names):
        if name not in MUTANTS:
            raise ValueError(f"no guest mutant {name!r}, expected one of {', '.join(MUTANTS)}")
    return names

"""The cost model: what a countable thing takes, in nanoseconds, on a PC of about 2020.

Orders of magnitude, from where they are published; not measured here. `vkemu compare` counts, and
multiplies by these; to disagree with a number is to change it here.
"""

from __future__ import annotations

from typing import Final

import msgspec


class Cost(msgspec.Struct, frozen=True):
    ns: int
    what: str
    source: str


COSTS: Final[dict[str, Cost]] = {
    "steps": Cost(
        20, "one visible operation of the kernel: a locked instruction, or a load that misses L2",
        "Fog, Instruction tables (lock cmpxchg: 18-20 cycles) and an L3 hit of about 40 cycles",
    ),
    "flushes": Cost(
        100, "invlpg on the CPU that executes it",
        "Linux Documentation/arch/x86/tlb.rst, on which tlb_single_page_flush_ceiling rests",
    ),
    "ipis": Cost(
        2000, "one remote CPU of a shootdown: interrupt, flush, acknowledgement",
        "Amit, Tai, Wei, Don't shoot down TLB shootdowns!, EuroSys 2020: thousands of cycles",
    ),
    "refaults": Cost(
        1500, "a translation that was taken away and is needed again: exception, walk, vm_fault",
        "Torvalds 2014 on Haswell: 1050 cycles for the exception alone; the rest is about 1 us",
    ),
    "loads": Cost(
        4, "one load of a page table by a CPU's own walk: 4 a walk, 24 a nested one of 4 levels",
        "Bhargava et al., ASPLOS 2008, for their number; most hit L1 or L2 (Fog: 4-14 cycles)",
    ),
    "exits": Cost(
        1000, "a fault or request of the guest that enters the host kernel and leaves it again",
        "the same; a hardware VM exit and entry is of that order too (KVM: 1200-1500 cycles)",
    ),
}  # fmt: skip


# The most translations a CPU keeps, and can lose to a flush. Intel Optimization Reference Manual,
# Skylake: 1536 entries in the second-level TLB.
TLB_ENTRIES: Final = 1536


def nanoseconds(counts: dict[str, int]) -> int:
    """Virtual time of what was counted."""
    return sum(cost.ns * counts.get(name, 0) for name, cost in COSTS.items())

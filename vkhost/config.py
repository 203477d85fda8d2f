"""The size and switches of a host: what a scenario may choose before it boots."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from vkhost.tree import Tree

# Bits of a cpumask_t. DragonFly has 256 (sys/cpu/x86_64/include/param.h:SMP_MAXCPU), and more
# threads than CPUs; here a virtual CPU has a real one to itself, so there are more of these.
MAXCPU: Final = 1024

# What a host may have of each, least and most.
BOUNDS: Final = {
    "pages": (1, 1 << 24),
    "cpus": (1, MAXCPU),
    "swap_pages": (0, 1 << 24),
    "pqcolors": (1, 1024),
    "hz": (1, 10_000),
    "cluster_pages": (1, 64),
    "run_budget": (1, 1 << 31),
    "user_insns": (1, 1 << 16),
}


class HostConfig(msgspec.Struct, frozen=True):
    """Everything about the machine and its kernel that is fixed for a run.

    A threshold left None follows the formulas of facts 7.1 (vm_pageout.c, vm_page2.h).
    """

    tree: Tree | None = None  # of which sources (tree.py); None: the policy's own
    pages: int = 1024  # physical frames
    cpus: int = 2  # real CPUs
    swap_pages: int = 0  # of swap space; 0: none
    pqcolors: int = 1  # sub-queues of every page queue; PQ_L2_SIZE = 1024 on the real kernel
    hz: int = 100  # clock ticks a second, virtual time

    # Daemons; a litmus leaves out what it does not need.
    pageout: bool = True  # the pageout daemon runs
    emergency: bool = True  # the emergency pager runs
    ipi_threads: bool = True  # off: the initiator flushes the other TLBs itself, one step each
    fault_workers: bool = True  # off: a fault runs on the faulting thread

    # Locking choices whose effect is to be studied.
    interlock: bool = True  # vm_map_interlock in vm_fault and MADV_INVAL
    inval_shared: bool = True  # MADV_INVAL under the shared map lock (since 2017)
    scan_holds_table: bool = False  # a pmap_scan of a range locks a page table once (pmap_scan.py)
    shootdown: Literal["stream", "rendezvous"] = "rendezvous"  # how TLBs of other CPUs are flushed

    # Pageout.
    allow_active: bool = True  # vm.pageout_allow_active
    cluster_pages: int = 64  # laundered together, at most
    vkernel_enable: bool = True  # vm.vkernel_enable
    free_min: int | None = None  # wake the pageout daemon below it
    free_reserved: int | None = None  # kept for the system's own threads
    free_severe: int | None = None  # below it, everybody waits for memory
    free_target: int | None = None  # the daemon frees until there are so many
    pageout_free_min: int | None = None  # kept for the pageout daemon itself
    interrupt_free_min: int | None = None  # kept for interrupts
    cache_min: int | None = None  # cached pages that are wanted
    inactive_target: int | None = None  # inactive pages that are wanted
    page_max_wired: int | None = None  # mlock refuses beyond it
    max_launder: int | None = None  # dirty pages written out in a pass

    # The longest run of user instructions one RUN may execute before it ends with EINTR.
    run_budget: int = 1_000_000

    # Machine code: how many instructions one step may hold. Of those that access memory it holds
    # one, the first; unless accesses are merged, and then the log has one load of each page that a
    # step has read and one store of each word that it has changed.
    user_insns: int = 1
    merge_accesses: bool = False  # a step of machine code may hold several, see above

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value}: expected {low} to {high}")

"""What the VM counts and the marks it steers by: thresholds, page counts, sysctls (facts 7.1, 9).

DragonFly sys/vm/vm_meter.c, vm_page2.h; the thresholds are set in vm_pageout.c:vm_pageout_thread.

Page counts are `Vmstats`, kept by the page queues. Event counters are plain increments as in the
real kernel, so they may lose some (W40) and no check may rely on them. `counter_steps` makes load
and store of a global counter two steps, which shows that race and multiplies the interleavings;
without it counting is no step at all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

import msgspec
from vkprotocol.effects import Cell
from vkprotocol.errno import Errno

from vkhost.pc64.cpuid import MXCSR_MASK
from vkhost.vm.vm_page_queue import Vmstats

if TYPE_CHECKING:
    from vkhost.config import HostConfig

PAGE_COUNTS: Final = (
    "v_free_count", "v_cache_count", "v_inactive_count", "v_active_count", "v_wire_count",
)  # fmt: skip
# Per-CPU event counters, summed here (struct vmmeter).
PCPU_COUNTERS: Final = (
    "v_vm_faults", "v_intrans", "v_cow_faults", "v_cow_optim", "v_zfod", "v_ozfod",
    "v_vnodein", "v_vnodeout", "v_vnodepgsin", "v_vnodepgsout",
    "v_swapin", "v_swapout", "v_swappgsin", "v_swappgsout",
    "v_pdwakeups", "v_pdpages", "v_ppwakeups", "v_dfree", "v_pfree", "v_tfree", "v_reactivated",
)  # fmt: skip
# Global longs, incremented by whoever comes by (W40).
VPAGETABLE_COUNTERS: Final = (
    "vpagetable_faults", "vpagetable_mmap", "vpagetable_setmap", "vpagetable_inval",
)  # fmt: skip
# Read at the place they steer; name -> default.
TUNABLES: Final = {
    "debug_vpagetable": 0,
    "debug_fault": 0,
    "shared_fault": 1,
    "fault_bypass": 1,
    "fast_fault": 1,
    "prefault_pages": 8,
    "vkernel_enable": 1,
    "pageout_allow_active": 1,
    "pageout_memuse_mode": 2,
    "anonmem_decline": 1,
    "filemem_decline": 2,
    "pageout_stats_interval": 5,
    "pageout_full_stats_interval": 20,
    "max_launder": 0,  # set from the size of memory
    "emerg_launder": 100,
}


class Thresholds(msgspec.Struct, frozen=True):
    """Marks in pages. Every field left out of `thresholds()` follows from the size of memory."""

    free_min: int
    free_reserved: int
    free_severe: int
    pageout_free_min: int
    interrupt_free_min: int
    free_target: int
    cache_min: int
    cache_max: int
    inactive_target: int
    page_max_wired: int
    max_launder: int


def thresholds(pages: int, **override: int | None) -> Thresholds:
    """The marks for so many pages, all free at boot; `override` fixes some (None: the formula)."""
    unknown = set(override) - set(Thresholds.__struct_fields__)
    if unknown:
        raise ValueError(f"no such threshold: {', '.join(sorted(unknown))}")

    def mark(name: str, formula: int) -> int:
        fixed = override.get(name)
        return formula if fixed is None else fixed

    free_min = mark("free_min", 64 + pages // 200)
    free_reserved = mark("free_reserved", free_min * 4 // 8 + 7)
    free_target = mark("free_target", 4 * free_min + free_reserved)
    cache_free_min = 2048  # with fewer free pages at boot the cache queue gets no minimum
    cache_min = mark("cache_min", free_target if pages > cache_free_min else 0)
    return Thresholds(
        free_min=free_min,
        free_reserved=free_reserved,
        free_severe=mark("free_severe", free_min * 4 // 8),
        pageout_free_min=mark("pageout_free_min", free_min * 2 // 8 + 7),
        interrupt_free_min=mark("interrupt_free_min", free_min // 8 + 7),
        free_target=free_target,
        cache_min=cache_min,
        cache_max=mark("cache_max", 2 * cache_min),
        inactive_target=mark("inactive_target", pages // 4),
        page_max_wired=mark("page_max_wired", pages // 3),
        max_launder=mark("max_launder", pages // 256 + 16),
    )


def boot_thresholds(config: HostConfig) -> Thresholds:
    """The marks of a host: the formulas, but for what its configuration fixes."""
    names = set(Thresholds.__struct_fields__) & set(config.__struct_fields__)
    return thresholds(config.pages, **{name: getattr(config, name) for name in sorted(names)})


class VmMeter:
    """Thresholds, page counts, event counters and the sysctl names for them."""

    def __init__(
        self,
        pages: int,
        marks: Thresholds | None = None,
        vmstats: Vmstats | None = None,
        *,
        counter_steps: bool = False,
    ) -> None:
        marks = marks or thresholds(pages)
        self.v_page_count = pages
        self.v_free_min = marks.free_min
        self.v_free_reserved = marks.free_reserved
        self.v_free_severe = marks.free_severe
        self.v_pageout_free_min = marks.pageout_free_min
        self.v_interrupt_free_min = marks.interrupt_free_min
        self.v_free_target = marks.free_target
        self.v_cache_min = marks.cache_min
        self.v_cache_max = marks.cache_max
        self.v_inactive_target = marks.inactive_target
        self.v_page_max_wired = marks.page_max_wired
        self.vmstats = Vmstats() if vmstats is None else vmstats
        self.counters = dict.fromkeys(PCPU_COUNTERS, 0)
        self.vpagetable = {name: Cell(("vmstats", name), 0) for name in VPAGETABLE_COUNTERS}
        self.tunables = dict(TUNABLES) | {"max_launder": marks.max_launder}
        self.counter_steps = counter_steps

    @cached_property
    def sysctls(self) -> dict[str, Sysctl]:
        return sysctl_table(self)

    # vm_page2.h. fc = free + cache.

    def count_severe(self, free: int, cache: int) -> bool:
        """Nobody but the pageout path may allocate."""
        return free + cache < self.v_free_severe or free < self.v_free_reserved

    def count_min(self, free: int, cache: int, donotcount: int = 0) -> bool:
        return free + cache < self.v_free_min + donotcount or free < self.v_free_reserved

    def count_target(self, free: int, cache: int) -> bool:
        return free + cache < self.v_free_target or free < self.v_free_reserved

    def paging_target(self, free: int, cache: int) -> int:
        """How many pages short of the target; negative when there are more."""
        return self.v_free_target + self.v_cache_min - (free + cache)

    def paging_needed(self, free: int, cache: int) -> bool:
        return free + cache < self.v_free_min + self.v_cache_min or free < self.v_free_min

    # Counters.

    def count(self, name: str, n: int = 1) -> None:
        """++mycpu->gd_cnt.name: per CPU, so there is no race to show."""
        self.counters[name] += n

    async def count_vpagetable(self, name: str) -> None:
        """++vm_<name>, a plain increment of a global (W40)."""
        counter = self.vpagetable[name]
        if self.counter_steps:
            await counter.store(await counter.load() + 1)
        else:
            counter.state += 1


class SysctlError(Exception):
    """The call fails with `errno`."""

    def __init__(self, errno: Errno, name: str) -> None:
        super().__init__(f"{name}: {errno.name}")
        self.errno = errno


class Sysctl(msgspec.Struct, frozen=True):
    """One name of the tree: how it is read, how it is written (None: read-only), what it is."""

    name: str
    kind: str  # int or long
    meaning: str
    get: Callable[[], int]
    put: Callable[[int], None] | None = None


# The thresholds vm_meter.c lets root change while running.
WRITABLE_MARKS: Final = (
    "v_free_min", "v_free_target", "v_free_reserved", "v_free_severe", "v_pageout_free_min",
    "v_inactive_target", "v_cache_min", "v_cache_max",
)  # fmt: skip


def sysctl_table(meter: VmMeter) -> dict[str, Sysctl]:
    """Every sysctl of the VM by its name."""
    nodes = [
        Sysctl(
            f"vm.{mark}", "long", "threshold, pages",
            partial(getattr, meter, mark), partial(setattr, meter, mark),
        )
        for mark in WRITABLE_MARKS
    ]  # fmt: skip
    fixed_marks = ("v_page_count", "v_interrupt_free_min", "v_page_max_wired")
    nodes += [
        Sysctl(f"vm.{mark}", "long", "limit, pages", partial(getattr, meter, mark))
        for mark in fixed_marks
    ]
    nodes.append(Sysctl("hw.mxcsr_mask", "int", "bits MXCSR may have", lambda: MXCSR_MASK))
    for count in PAGE_COUNTS:
        cell: Cell = getattr(meter.vmstats, count)
        nodes.append(
            Sysctl(f"vm.stats.vm.{count}", "long", "pages now", partial(getattr, cell, "state"))
        )
    nodes += [
        Sysctl(
            f"vm.stats.vm.{name}", "int", "events since boot",
            partial(meter.counters.__getitem__, name),
        )
        for name in PCPU_COUNTERS
    ]  # fmt: skip
    for name, cell in meter.vpagetable.items():
        nodes.append(
            Sysctl(
                f"vm.{name}", "long", "operations, counted without a lock",
                partial(getattr, cell, "state"), partial(setattr, cell, "state"),
            )
        )  # fmt: skip
    nodes += [
        Sysctl(
            f"vm.{name}", "int", "tunable",
            partial(meter.tunables.__getitem__, name), partial(meter.tunables.__setitem__, name),
        )
        for name in TUNABLES
    ]  # fmt: skip
    return {node.name: node for node in nodes}


def sysctl(table: dict[str, Sysctl], name: str, new: int | None = None) -> int:
    """kern_sysctl.c:userland_sysctl: the value before, after setting `new` when given."""
    node = table.get(name)
    if node is None:
        raise SysctlError(Errno.ENOENT, name)
    old = node.get()
    int_limit = 1 << 31
    long_limit = 1 << 63
    if new is not None:
        if node.put is None:
            raise SysctlError(Errno.EPERM, name)
        limit = int_limit if node.kind == "int" else long_limit
        if not -limit <= new < limit:
            raise SysctlError(Errno.EINVAL, name)
        node.put(new)
    return old

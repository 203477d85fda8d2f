"""Quirks: the documented oddities of the real kernel, each behind a name.

The defaults are the kernel as it is; `Quirks.none()` is the kernel as it should be.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Quirks(msgspec.Struct, frozen=True):
    """Switches read at the place where the oddity happens (`kernel.quirks.name`)."""

    # facts 2.2: vmspace_destroy that answers EBUSY never drops the ref its lookup took.
    ebusy_ref_leak: bool = True
    # facts 2.6: vmspace_pread and vmspace_pwrite are declared and answer EINVAL.
    pwrite_einval: bool = True
    # facts 2.7: a len of 0 at an unaligned address is rounded to the whole page.
    len0_unaligned_page: bool = True
    # facts 2.8: SETMAP that meets a NORMAL entry goes on, and answers EINVAL at the end.
    setmap_partial: bool = True
    # facts 2.8: vm_map_simplify_entry merges entries with different master pdes.
    simplify_ignores_master_pde: bool = True
    # facts 9: vm.vpagetable_inval is counted in a branch MADV_INVAL never takes.
    inval_counter_dead: bool = True
    # facts 0.1: vm_fault_page writes `wflags | FW_DIDCOW`, so it always removes the PTE.
    didcow_or: bool = True
    # facts 2.4, W35: what a VPTE beyond the object names: nothing [P], or a zero page [20].
    object_beyond_size: Literal["fail", "zero-fill"] = "fail"
    # facts 3.2 F2: a fault on a writable VPAGETABLE entry is looked up as a write ([26]: not).
    lookup_vpagetable_as_write: bool = True
    # vm_page.c:vm_page_cache: a page that has become dirty since its caller looked is a panic; and
    # pmap_remove dirties a page without its busy.
    cache_dirty_panic: bool = True
    # facts 3.2 F3: a wired entry turns every fault into one for its full protection ([26]: not).
    wired_full_protection: bool = True

    @classmethod
    def none(cls) -> Quirks:
        """The kernel as it should be."""
        return cls(
            ebusy_ref_leak=False,
            pwrite_einval=False,
            len0_unaligned_page=False,
            setmap_partial=False,
            simplify_ignores_master_pde=False,
            inval_counter_dead=False,
            didcow_or=False,
            object_beyond_size="fail",
            lookup_vpagetable_as_write=True,
            cache_dirty_panic=False,
            wired_full_protection=False,
        )

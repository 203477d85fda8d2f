"""The walk of the guest's page table: from a map index to a page of the object.

Tables and data are pages of one object, the memory image. The walk starts at the master pde and
may end at any level with VPTE_PS. At each level it sets A (and M) in the VPTE the way hardware
would, by compare-and-set, since the guest edits the same words through its DMAP.

The rules that matter to a guest (facts 3.3):
* V is tested at every level; RW only for a write fault, NX only for an execute fault;
* A and M are set on the way down and are not taken back if the fault fails or starts again;
* the host PTE is writable only if the last VPTE has RW and M: a guest that clears either must
  INVAL, and a read fault through a read-only *directory* may still map writable (W28).

DragonFly sys/vm/vm_fault.c:vm_fault_vpagetable.
"""

from __future__ import annotations

from vkprotocol.vpte import (
    VPTE_A,
    VPTE_M,
    VPTE_NX,
    VPTE_PAGE_BITS,
    VPTE_PAGE_MASK,
    VPTE_PS,
    VPTE_ROOT_SHIFT,
    VPTE_RW,
    VPTE_V,
    vpte_frame,
    vpte_permits,
)

from vkhost.vm.vm import (
    KERN_FAILURE,
    KERN_SUCCESS,
    KERN_TRY_AGAIN,
    VM_PROT_EXECUTE,
    VM_PROT_READ,
    VM_PROT_WRITE,
)
from vkhost.vm.vm_fault_object import vm_fault_object
from vkhost.vm.vm_fault_state import FaultState, cleanup_fault, release_page, unlock_things
from vkhost.vm.vm_page import PG_REFERENCED, VmPage
from vkhost.vm.vm_page_busy import vm_page_wakeup
from vkhost.vm.vm_page_dirty import vm_page_dirty, vm_page_flag_set
from vkhost.vm.vm_page_lru import vm_page_activate


async def vm_fault_vpagetable(
    fs: FaultState, pindex: int, vpte: int, fault_type: int
) -> tuple[int, int]:
    """(KERN_*, page index in the object). `vpte` is the master pde (F7), read by value.

    Anything but KERN_SUCCESS has unlocked everything except the interlock.
    """
    kernel = fs.kernel
    vshift = VPTE_ROOT_SHIFT  # index bits that are still to be resolved
    kernel.emit("vpte.read", -1, 0, vpte, vshift)
    while True:
        # F8
        if not vpte_permits(vpte, fault_type):
            await unlock_things(fs)
            return KERN_FAILURE, 0
        if vpte & VPTE_PS or vshift == 0:
            break
        # F9: READ|WRITE, as A and M are going to be written.
        result = await vm_fault_object(fs, vpte_frame(vpte), VM_PROT_READ | VM_PROT_WRITE)
        if result != KERN_SUCCESS:
            return result, 0
        # F10
        m = fs.m
        assert m is not None
        vshift -= VPTE_PAGE_BITS
        await vm_page_activate(m)
        # F11
        idx = pindex >> vshift & VPTE_PAGE_MASK
        await kernel.rmap.walk_through(fs, m, idx)
        written = await _write_back(fs, m, idx, fault_type, vshift)
        if written is None:
            fs.why = "invalidated"
            await unlock_things(fs)
            await release_page(fs)
            return KERN_TRY_AGAIN, 0
        vpte = written
        # F12: from here on it is the value that counts; the guest may change the table.
        await vm_page_flag_set(m, PG_REFERENCED)
        await vm_page_wakeup(m)
        fs.m = None
        await cleanup_fault(fs)
        # F13: the next level.

    # F14
    _downgrade(fs, vpte, fault_type)
    return KERN_SUCCESS, vpte_frame(vpte) + (pindex & (1 << vshift) - 1)


async def _write_back(
    fs: FaultState, m: VmPage, idx: int, fault_type: int, vshift: int
) -> int | None:
    """F11: load the VPTE; add A, and M for a write it permits, unless it has them; the result.

    Load and compare-and-set are two steps: the guest may be between them. None: the reverse map
    does not want the word to be written, the page may be no table any more.
    """
    frame = m.frame
    rmap = fs.kernel.rmap
    while True:
        vpte: int = await frame.load(idx)
        fs.kernel.emit("vpte.read", m.pfn, idx, vpte, vshift)
        if not vpte & VPTE_V:
            return vpte
        nvpte = vpte
        if fault_type & VM_PROT_WRITE and vpte & VPTE_RW:
            nvpte |= VPTE_A if "walk-without-m" in fs.kernel.mutants else VPTE_M | VPTE_A
        if fault_type & (VM_PROT_READ | VM_PROT_EXECUTE):
            nvpte |= VPTE_A
        if nvpte == vpte:
            return vpte
        if not await rmap.write_back_begin(fs):
            return None
        if "vpte-am-plain-store" in fs.kernel.mutants:
            await frame.store(idx, nvpte)
            stored = True
        else:
            stored = await frame.cmpset(idx, vpte, nvpte)
        if stored:
            fs.kernel.emit("vpte.am", m.pfn, idx, vpte, nvpte)
            await vm_page_dirty(m)
        await rmap.write_back_end(fs)
        if stored:
            # The kernel goes on with the value it compared, without the bits just set.
            return vpte


def _downgrade(fs: FaultState, vpte: int, fault_type: int) -> None:
    """F14: what the host PTE may allow, by the last VPTE alone."""
    if (
        not fault_type & VM_PROT_WRITE
        and vpte & (VPTE_RW | VPTE_M) != VPTE_RW | VPTE_M
        and "ro-downgrade-skipped" not in fs.kernel.mutants
    ):
        # So that the first write faults, and M can be set.
        fs.first_prot &= ~VM_PROT_WRITE
    if vpte & VPTE_NX and "nx-ignored" not in fs.kernel.mutants:
        fs.first_prot &= ~VM_PROT_EXECUTE

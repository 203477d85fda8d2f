"""The words every part of the VM shares: protections, map types, results, fault and entry flags.

DragonFly sys/vm/vm.h, vm_param.h, vm_map.h, vm_fault.h.
"""

from __future__ import annotations

from typing import Final

from vkprotocol.limits import U64
from vkprotocol.param import PAGE_MASK

VM_PROT_NONE: Final = 0
VM_PROT_READ: Final = 1
VM_PROT_WRITE: Final = 2
VM_PROT_EXECUTE: Final = 4
VM_PROT_ALL: Final = 7
VM_PROT_OVERRIDE_WRITE: Final = 8  # a debugger's forced copy-on-write

VM_MAPTYPE_NORMAL: Final = 1
VM_MAPTYPE_VPAGETABLE: Final = 2

VM_INHERIT_SHARE: Final = 0
VM_INHERIT_COPY: Final = 1
VM_INHERIT_NONE: Final = 2

KERN_SUCCESS: Final = 0
KERN_INVALID_ADDRESS: Final = 1
KERN_PROTECTION_FAILURE: Final = 2
KERN_NO_SPACE: Final = 3
KERN_INVALID_ARGUMENT: Final = 4
KERN_FAILURE: Final = 5
KERN_TRY_AGAIN: Final = 9
KERN_FAILURE_NOFAULT: Final = 10

VM_FAULT_NORMAL: Final = 0x00
VM_FAULT_CHANGE_WIRING: Final = 0x01
VM_FAULT_USER_WIRE: Final = 0x02
VM_FAULT_BURST: Final = 0x04
VM_FAULT_DIRTY: Final = 0x08
VM_FAULT_UNSWAP: Final = 0x10
VM_FAULT_USERMODE: Final = 0x40
VM_FAULT_WIRE_MASK: Final = VM_FAULT_CHANGE_WIRING | VM_FAULT_USER_WIRE

FW_WIRED: Final = 0x1
FW_DIDCOW: Final = 0x2

MAP_ENTRY_NOSYNC: Final = 0x0001
MAP_ENTRY_COW: Final = 0x0004
MAP_ENTRY_NEEDS_COPY: Final = 0x0008
MAP_ENTRY_NOFAULT: Final = 0x0010
MAP_ENTRY_USER_WIRED: Final = 0x0020
MAP_ENTRY_BEHAV_SEQUENTIAL: Final = 0x0040
MAP_ENTRY_BEHAV_RANDOM: Final = 0x0080
MAP_ENTRY_BEHAV_MASK: Final = 0x00C0
MAP_ENTRY_IN_TRANSITION: Final = 0x0100
MAP_ENTRY_NEEDS_WAKEUP: Final = 0x0200  # somebody waits for it to be no longer
MAP_ENTRY_NOCOREDUMP: Final = 0x0400
MAP_ENTRY_VPAGETABLE_WIRED: Final = 0x4000  # 2026 trees: the entry wires what it maps

COWF_COPY_ON_WRITE: Final = 0x0002
COWF_DISABLE_SYNCER: Final = 0x0020
COWF_DISABLE_COREDUMP: Final = 0x0080


def add64(va: int, size: int) -> int:
    """Addresses wrap at 2**64, as C's do; a caller sees it by `add64(va, size) < va`."""
    return (va + size) & U64


def round_page64(size: int) -> int:
    """round_page with C's wrap: what lies in the last page of all becomes 0."""
    return add64(size, PAGE_MASK) & ~PAGE_MASK


def kern_name(result: int) -> str:
    """`KERN_FAILURE` for 5, for the log."""
    return _KERN_NAMES[result]


_KERN_NAMES: Final = {
    KERN_SUCCESS: "KERN_SUCCESS",
    KERN_INVALID_ADDRESS: "KERN_INVALID_ADDRESS",
    KERN_PROTECTION_FAILURE: "KERN_PROTECTION_FAILURE",
    KERN_NO_SPACE: "KERN_NO_SPACE",
    KERN_INVALID_ARGUMENT: "KERN_INVALID_ARGUMENT",
    KERN_FAILURE: "KERN_FAILURE",
    KERN_TRY_AGAIN: "KERN_TRY_AGAIN",
    KERN_FAILURE_NOFAULT: "KERN_FAILURE_NOFAULT",
}

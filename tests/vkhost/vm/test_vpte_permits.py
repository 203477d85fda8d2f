"""What a walk goes on by, the CPU's as vm_fault's."""

from __future__ import annotations

import pytest
from vkprotocol.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from vkprotocol.vpte import VPTE_NX, VPTE_RW, VPTE_V, vpte_permits

from vkhost.vm.vm import VM_PROT_EXECUTE, VM_PROT_READ, VM_PROT_WRITE


def test_the_hosts_accesses_are_those_of_mman() -> None:
    assert (VM_PROT_READ, VM_PROT_WRITE, VM_PROT_EXECUTE) == (PROT_READ, PROT_WRITE, PROT_EXEC)


@pytest.mark.parametrize(
    ("vpte", "permitted"),
    [
        (0, 0),
        (VPTE_RW, 0),
        (VPTE_V, PROT_READ | PROT_EXEC),
        (VPTE_V | VPTE_RW, PROT_READ | PROT_WRITE | PROT_EXEC),
        (VPTE_V | VPTE_NX, PROT_READ),
        (VPTE_V | VPTE_RW | VPTE_NX, PROT_READ | PROT_WRITE),
    ],
)
def test_a_vpte_permits(vpte: int, permitted: int) -> None:
    for prot in range(1, 8):
        possible = bool(vpte & VPTE_V) and not prot & ~permitted
        assert vpte_permits(vpte, prot) is possible

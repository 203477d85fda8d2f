"""A guest cannot tell nested paging from page tables that the host keeps for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vkprotocol.vpte import VPTE_A, VPTE_NX, VPTE_PS

from tests.vkhost.pc64.nesting import DATA, OTHER_ROOT, PAGE, RWM, SPACE, Guest
from tests.vkhost.vkernel import ROOT, RW, R
from vkhost.vm.vm_map_delete import vm_map_remove
from vkhost.vm.vm_map_protect import vm_map_protect

VPNS, FRAMES = 4, 3
BITS = (0, R, RW, RWM, RW | VPTE_NX, R | VPTE_NX)
numbers = st.integers(0, 3)
operation = st.one_of(
    st.tuples(st.just("load"), st.integers(0, 2 * VPNS - 1)),
    st.tuples(st.just("store"), st.integers(0, 2 * VPNS - 1), st.integers(1, 99)),
    st.tuples(st.just("cmpset"), st.integers(0, VPNS - 1), st.integers(0, 3), st.integers(1, 99)),
    st.tuples(st.just("fetch"), st.integers(0, VPNS - 1)),
    st.tuples(
        st.just("edit"), st.integers(0, VPNS - 1), st.integers(0, FRAMES - 1),
        st.sampled_from(BITS),
    ),
    st.tuples(st.just("large"), st.sampled_from((0, RWM | VPTE_PS, RW | VPTE_PS, R | VPTE_PS))),
    st.tuples(st.just("dstore"), st.integers(0, FRAMES - 1), st.integers(1, 99)),
    st.tuples(st.just("setmap"), st.booleans()),
    st.tuples(st.just("mprotect"), st.sampled_from((1, 3, 7))),
    st.tuples(st.just("protect"), st.integers(ROOT, DATA + FRAMES - 1), st.sampled_from((0, 1))),
    st.tuples(st.just("page_out"), st.integers(ROOT, DATA + FRAMES - 1)),
    st.tuples(st.just("remap"), st.just(0)),
)  # fmt: skip


def address(slot: int) -> int:
    """Small pages first, then those of the large one."""
    return slot * PAGE if slot < VPNS else (512 + DATA + (slot - VPNS) % FRAMES) * PAGE


def play(g: Guest, op: tuple[Any, ...]) -> int | None:
    """One operation; what the guest sees of it."""
    match op:
        case "load", slot:
            return g.load(address(slot))
        case "store", slot, value:
            return g.store(address(slot), value)
        case "cmpset", slot, old, new:
            return g._access(g.user.cmpset(address(slot), old, new))
        case "fetch", slot:
            return g._access(g.user.fetch(address(slot)))
        case "edit", slot, frame, bits:
            g.dstore(ROOT + 3, slot, DATA + frame << 12 | bits)
            g.inval(slot * PAGE)
        case "large", bits:
            g.dstore(ROOT + 2, 1, bits)
            g.inval(512 * PAGE, 512)
        case "dstore", frame, value:
            g.dstore(DATA + frame, 0, value)
        case "setmap", other:
            g.setmap((OTHER_ROOT if other else ROOT) << 12 | RW)
        case "mprotect", prot:
            g.k.do(vm_map_protect(g.vmspace.vm_map, 0, SPACE, prot))
        case "protect", frame, prot:
            g.protect(frame, prot)
        case "page_out", frame:
            g.page_out(frame)
        case _:
            g.k.do(vm_map_remove(g.vmspace.vm_map, 0, SPACE))
            g.k.vpagetable(ROOT << 12 | RW, vmspace=g.vmspace, size=SPACE)
    return 0


def seen(policy: str, program: list[tuple[Any, ...]]) -> tuple[list[int | None], list[int]]:
    """What a guest sees as it runs the program, and then in its memory.

    A is left out: vm_fault sets it before it looks at NX. M of directories: hardware sets none.
    """
    g = Guest(policy, {vpn: DATA + vpn % FRAMES << 12 | RWM for vpn in range(VPNS)})
    values = [play(g, op) for op in program]
    leaves = [g.dload(ROOT + 3, vpn) & ~VPTE_A for vpn in range(VPNS)]
    leaves += [g.dload(ROOT + 2, 1) & ~VPTE_A, g.dload(OTHER_ROOT + 3, 1) & ~VPTE_A]
    return values, [*leaves, *(g.dload(DATA + frame) for frame in range(FRAMES))]


@pytest.mark.slow
@given(st.lists(operation, max_size=25))
@settings(max_examples=25)
def test_a_guest_cannot_tell_nested_from_pv_entry(program: list[tuple[Any, ...]]) -> None:
    assert seen("nested", program) == seen("pv_entry", program)

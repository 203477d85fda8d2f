from __future__ import annotations

from typing import Any

import pytest

from tests.vkhost.machine import Machine
from vkhost.pc64.cpu import Fault
from vkhost.pc64.pmap import Pmap
from vkhost.pc64.pmap_bits import PTE_A, PTE_M
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.vm.vm import (
    KERN_FAILURE,
    KERN_SUCCESS,
    VM_PROT_ALL,
    VM_PROT_EXECUTE,
    VM_PROT_READ,
    VM_PROT_WRITE,
)

pytestmark = pytest.mark.usefixtures("guarded")

VA = 0x5000


def mapped(prot: int = VM_PROT_ALL, **config: Any) -> tuple[Machine, Pmap]:
    """A machine whose CPU 0 runs on a pmap that maps one page at VA."""
    machine = Machine(**config)
    pmap = machine.pmap()
    machine.enter(pmap, VA, machine.page(machine.object(), 0), prot)
    machine.run_on(0, pmap)
    return machine, pmap


def steps_of(machine: Machine, body: Any) -> int:
    thread = machine.spawn("t", body)
    count = 0
    while not thread.done:
        machine.step(thread)
        count += 1
    return count


def test_a_miss_is_a_walk_and_an_access_a_hit_only_the_access() -> None:
    machine, pmap = mapped()
    cpu = machine.kernel.cpus[0]

    assert steps_of(machine, cpu.load(VA)) == 2
    assert steps_of(machine, cpu.load(VA + 8)) == 1
    assert steps_of(machine, cpu.store(VA + 8, 7)) == 2  # M has to be set
    assert steps_of(machine, cpu.store(VA + 16, 7)) == 1


def test_a_and_m_are_the_hardwares() -> None:
    machine, pmap = mapped()
    cpu = machine.kernel.cpus[0]
    pte = pmap.pte(VA)

    assert pte.value & (PTE_A | PTE_M) == PTE_A  # pmap_enter presets A, and not M
    pte.state &= ~PTE_A
    machine.do(cpu.load(VA))
    assert pte.value & (PTE_A | PTE_M) == PTE_A
    machine.do(cpu.store(VA, 1))
    assert pte.value & (PTE_A | PTE_M) == PTE_A | PTE_M


def test_what_is_stored_is_loaded_and_lies_in_the_frame() -> None:
    machine, pmap = mapped()
    cpu = machine.kernel.cpus[0]

    machine.do(cpu.store(VA + 24, 1 << 63))
    assert machine.do(cpu.load(VA + 24)) == 1 << 63
    assert machine.do(cpu.fetch(VA + 24)) == 1 << 63
    assert machine.do(cpu.cmpset(VA + 24, 0, 5)) is False
    assert machine.do(cpu.cmpset(VA + 24, 1 << 63, 5)) is True
    assert machine.do(cpu.swap(VA + 24, 6)) == 5
    assert machine.do(cpu.rmw(VA + 24, "or", 1)) == 6
    assert machine.do(cpu.rmw(VA + 24, "andn", 2)) == 7
    frame = machine.kernel.physmem.frames[pmap.pte(VA).value >> 12 & 0xFF]
    assert frame.words[3] == 5
    machine.do(cpu.zero_page(VA))
    assert set(frame.words) == {0}


def test_copy_page() -> None:
    machine, pmap = mapped()
    cpu = machine.kernel.cpus[0]
    machine.enter(pmap, VA + 4096, machine.page(machine.object(), 1))
    machine.do(cpu.store(VA, 11))
    machine.do(cpu.store(VA + 4088, 12))

    machine.do(cpu.copy_page(VA + 4096, VA))

    assert machine.do(cpu.load(VA + 4096)) == 11
    assert machine.do(cpu.load(VA + 8184)) == 12


@pytest.mark.parametrize(
    ("prot", "access", "fault_type"),
    [
        (VM_PROT_READ, "store", VM_PROT_WRITE),
        (VM_PROT_READ, "fetch", VM_PROT_EXECUTE),
        (VM_PROT_READ | VM_PROT_WRITE, "fetch", VM_PROT_EXECUTE),
    ],
)
def test_a_forbidden_access_faults(prot: int, access: str, fault_type: int) -> None:
    machine, pmap = mapped(prot)
    cpu = machine.kernel.cpus[0]
    machine.do(cpu.load(VA))

    with pytest.raises(Fault) as caught:
        machine.do(cpu.store(VA, 1) if access == "store" else cpu.fetch(VA))

    assert (caught.value.va, caught.value.fault_type) == (VA, fault_type)
    assert caught.value.result == KERN_FAILURE
    # The page fault has dropped the entry the load had left.
    assert cpu.tlb.entries() == []


@pytest.mark.parametrize("fault_workers", [False, True])
def test_a_resolved_fault_repeats_the_access(fault_workers: bool) -> None:
    machine, pmap = mapped(fault_workers=fault_workers)
    cpu = machine.kernel.cpus[0]
    m = machine.page(machine.object(), 1)
    faults: list[tuple[int, int]] = []

    async def resolve(vm_map: Any, va: int, fault_type: int, flags: int) -> int:
        from tests.vkhost.machine import ENTRY
        from vkhost.pc64.pmap_enter import pmap_enter

        faults.append((va, fault_type))
        await pmap_enter(pmap, va, m, VM_PROT_ALL, False, ENTRY)
        return KERN_SUCCESS

    machine.resolve(resolve)
    thread = machine.spawn("t", cpu.store(0x9008, 3))
    machine.run()

    assert thread.done
    assert faults == [(0x9008, VM_PROT_WRITE)]
    assert m.frame.words[1] == 3


def test_a_translation_stays_cached_until_it_is_flushed() -> None:
    machine, pmap = mapped(shootdown="stream")
    cpu = machine.kernel.cpus[0]
    machine.do(cpu.store(VA, 9))
    thread = machine.spawn("remove", pmap_remove(pmap, VA, VA + 4096))
    machine.until(thread, "pte.write", "p", VA)

    # The PTE is gone, but nobody has told the CPU yet.
    assert pmap.pte(VA).value == 0
    assert machine.do(cpu.load(VA)) == 9
    machine.finish(thread)
    with pytest.raises(Fault):
        machine.do(cpu.load(VA))


def test_the_footprint_follows_the_tlb() -> None:
    machine, pmap = mapped()
    cpu = machine.kernel.cpus[0]
    thread = machine.spawn("t", cpu.store(VA + 8, 1))

    def footprint() -> dict[Any, bool]:
        effect = thread.pending
        assert effect is not None
        return {obj.key: write for obj, write in ((effect.obj, effect.write), *effect.also)}

    assert footprint() == {
        ("cr3", 0): False,
        ("tlb", 0, "p", 5): True,
        ("pte", "p", 5): True,
    }
    machine.step(thread)
    pfn = pmap.pte(VA).value >> 12 & 0xFF
    assert footprint() == {
        ("cr3", 0): False,
        ("tlb", 0, "p", 5): False,
        ("word", pfn, 1): True,
        ("frame", pfn): False,
    }

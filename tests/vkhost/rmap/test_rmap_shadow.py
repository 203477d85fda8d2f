"""`shadow`: a store to a page table is done by the fault it causes, once what it fed is gone."""

from __future__ import annotations

import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vkemu.litmus.actor import FAULTED
from vkemu.litmus.decide import decide
from vkemu.litmus.file import load_litmus, read
from vkemu.oracle import Oracle, Violation
from vkprotocol.param import PAGE_MASK, PAGE_SIZE
from vkprotocol.vpte import VPTE_RW

from tests.oracle.host import DMAP, LEAF_BITS, Guest, Host, drive
from tests.oracle.scenarios import touch
from vkhost.pc64.cpu import Cpu
from vkhost.pc64.pmap_bits import PTE_RW
from vkhost.pc64.pmap_pte import Pte
from vkhost.pc64.pmap_remove import pmap_remove
from vkhost.rmap.shadow import TABLE_LINK_BYTES, Shadow, Word
from vkhost.vm.vm import VM_PROT_READ, VM_PROT_WRITE
from vkhost.vm.vm_fault import vm_fault
from vkhost.vm.vm_fault_page import vm_fault_page
from vkhost.vm.vm_page_wire import vm_page_unhold

LEAF, DIRECTORY = 3, 2  # pages of the image that are tables
QUIET: dict[str, Any] = {"fault_workers": False, "ipi_threads": False}


class Walked:
    """A guest with a few pages mapped through its tables, all of them walked and so protected."""

    def __init__(self, policy: str = "shadow", pages: int = 3, **settings: Any) -> None:
        self.host = Host(policy, cpus=2, **(QUIET | settings))
        self.guest: Guest = self.host.guest()
        for i in range(pages):
            self.guest.vpte(i)
        # Page 8 of the address space is the leaf table itself.
        self.guest.vpte(8, LEAF)
        self.guest.setmap()
        self.user, self.kern = self.guest.lwp(0, user=True), self.guest.lwp(1, user=False)
        for i in range(pages):
            drive(self.kern.store(DMAP + (self.guest.data + i) * PAGE_SIZE, 10 + i))
        for table in range(4):
            drive(self.kern.store(self.guest.dmap(table, 511), 1))
        for i in range(pages):
            assert drive(self.user.load(i * PAGE_SIZE)) == 10 + i

    @property
    def rmap(self) -> Shadow:
        rmap = self.host.kernel.rmap
        assert isinstance(rmap, Shadow)
        return rmap

    def word(self, pindex: int, idx: int) -> int:
        return self.guest.image.memq[pindex].frame.words[idx]

    def mapped(self, page: int) -> bool:
        return bool(self.guest.vmspace.pmap.pte(page * PAGE_SIZE).state)

    def dmap_writable(self, pindex: int) -> bool:
        return bool(self.guest.own.pmap.pte(DMAP + pindex * PAGE_SIZE).state & PTE_RW)

    def emulated(self) -> int:
        return sum(name == "mem.emulate" for _, name, _ in self.host.events)


def test_a_store_to_a_table_takes_what_came_from_its_word_and_nothing_else() -> None:
    w = Walked()
    assert w.emulated() == 0

    old = drive(w.kern.swap(w.guest.dmap(LEAF, 1), 0))

    assert old & LEAF_BITS == LEAF_BITS
    assert w.word(LEAF, 1) == 0
    assert w.emulated() == 1
    assert [w.mapped(i) for i in range(3)] == [True, False, True]
    assert not w.dmap_writable(LEAF)  # still a table


def test_a_store_to_a_directory_takes_all_below() -> None:
    w = Walked()

    drive(w.kern.rmw(w.guest.dmap(DIRECTORY, 0), "andn", VPTE_RW))

    assert not any(w.mapped(i) for i in range(3))


def test_what_was_never_walked_takes_nothing() -> None:
    w = Walked()

    drive(w.kern.store(w.guest.dmap(LEAF, 77), 0))

    assert w.emulated() == 1
    assert all(w.mapped(i) for i in range(3))


def test_every_write_has_its_result() -> None:
    w = Walked()
    at = w.guest.dmap(LEAF, 100)

    drive(w.kern.store(at, 5))
    assert drive(w.kern.cmpset(at, 4, 9)) is False
    assert w.word(LEAF, 100) == 5
    assert drive(w.kern.cmpset(at, 5, 9)) is True
    assert drive(w.kern.swap(at, 12)) == 9
    assert drive(w.kern.rmw(at, "or", 3)) == 12
    assert drive(w.kern.rmw(at, "andn", 6)) == 15
    assert drive(w.kern.load(at)) == w.word(LEAF, 100) == 9
    assert w.emulated() == 6


@pytest.mark.parametrize("how", ["zero", "copy"])
def test_a_page_that_is_all_written_is_a_table_no_more(how: str) -> None:
    w = Walked()
    at = w.guest.dmap(LEAF)
    if how == "zero":
        drive(w.kern.zero_page(at))
    else:
        drive(w.kern.copy_page(at, w.guest.dmap(w.guest.data + 2)))

    assert not any(w.mapped(i) for i in range(3))
    assert w.word(LEAF, 0) == (0 if how == "zero" else 12)
    assert w.rmap.statistics().rmap_bytes % TABLE_LINK_BYTES == 0
    assert w.emulated() == 1
    drive(w.kern.store(at + 8, 1))
    assert w.emulated() == 1
    assert w.dmap_writable(LEAF)


def test_an_ordinary_page_is_stored_to_as_ever() -> None:
    w = Walked()

    drive(w.kern.store(w.guest.dmap(w.guest.data), 99))

    assert w.emulated() == 0
    assert drive(w.user.load(0)) == 99


def test_a_table_is_written_through_a_vpte_too() -> None:
    w = Walked()
    at = 8 * PAGE_SIZE

    drive(w.user.store(at + 1 * 8, 0))

    assert w.emulated() == 1
    assert not w.mapped(1)
    # The very word that the store went by.
    drive(w.user.store(at + 8 * 8, 0))
    assert w.word(LEAF, 8) == 0
    assert not w.mapped(8)


def test_the_kernel_writes_a_table_by_a_page_it_holds() -> None:
    w = Walked()

    m, result, _ = drive(vm_fault_page(w.guest.own.vm_map, w.guest.dmap(LEAF), VM_PROT_WRITE))

    assert result == 0
    assert not any(w.mapped(i) for i in range(3))
    drive(vm_page_unhold(m))
    assert drive(w.user.load(0)) == 10  # walked, and a table, again
    assert not w.dmap_writable(LEAF)


def test_a_write_fault_without_a_write_maps_a_table_read_only() -> None:
    """vm_fault_wire, say: there is nothing to do in anybody's place."""
    w = Walked()

    drive(vm_fault(w.guest.own.vm_map, w.guest.dmap(LEAF), VM_PROT_READ | VM_PROT_WRITE))

    assert not w.dmap_writable(LEAF)
    assert all(w.mapped(i) for i in range(3))


@pytest.mark.parametrize("mutants", [(), ("shadow-edit-uncounted",)])
def test_a_fault_that_read_a_word_before_its_edit_starts_again(mutants: tuple[str, ...]) -> None:
    w = Walked(mutants=mutants)
    drive(w.kern.store(w.guest.dmap(LEAF, 3), (w.guest.data + 3) << 12 | LEAF_BITS))
    drive(w.kern.load(w.guest.dmap(w.guest.data + 3)))
    data = w.guest.image.memq[w.guest.data + 3]
    fault = w.host.on("user", w.user, touch(w.user, 3 * PAGE_SIZE))
    while not data.busy_count.state:
        w.host.execution.step(fault.tid)

    drive(w.kern.store(w.guest.dmap(LEAF, 3), 0))
    while not fault.done:
        w.host.execution.step(fault.tid)

    retries = [args[2] for _, name, args in w.host.events if name == "fault.retry"]
    assert ("invalidated" in retries) is not bool(mutants)
    assert w.mapped(3) is bool(mutants)


@pytest.mark.parametrize("mutants", [(), ("shadow-emulate-unchecked",)])
@pytest.mark.parametrize("page", [False, True])
def test_a_store_by_a_vpte_that_is_edited_under_it_is_seen(
    page: bool, mutants: tuple[str, ...]
) -> None:
    w = Walked(mutants=mutants)
    at = 8 * PAGE_SIZE
    drive(w.user.load(at + 8))
    leaf = w.guest.image.memq[LEAF]
    access = w.user.zero_page(at) if page else w.user.store(at + 20 * 8, 0xDEAD)
    fault = w.host.on("user", w.user, access)
    before = len(w.host.events)
    # Until its walk has read the leaf table and let go of it.
    while not any(
        name == "page.unbusy" and args[0] == leaf.pfn for _, name, args in w.host.events[before:]
    ):
        w.host.execution.step(fault.tid)
    drive(w.kern.store(w.guest.dmap(LEAF, 8), 0))
    while not fault.done:
        w.host.execution.step(fault.tid)

    oracle = Oracle()
    oracle.actor = lambda: speaker
    with pytest.raises(Violation, match="emulated") if mutants else nullcontext():
        for who, name, args in w.host.events:
            speaker = str(who)
            oracle(name, *args)


def test_the_links_of_an_edited_word_are_given_back() -> None:
    w = Walked()
    before = w.rmap.statistics().rmap_bytes

    drive(w.kern.store(w.guest.dmap(LEAF, 0), 0))

    assert before - w.rmap.statistics().rmap_bytes == 24 + TABLE_LINK_BYTES


class CountedPte(Pte):
    """Counts how often one is compared with another."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        CountedPte.compared += 1
        return self is other

    __hash__ = Pte.__hash__


def test_a_link_is_made_without_looking_at_the_others() -> None:
    """One word of a directory has as many as there are pages below it."""
    w = Walked()
    pmap, word = w.guest.vmspace.pmap, Word(("word",))
    ptes = [CountedPte(pmap.pte(0).table, vpn) for vpn in range(200)]
    CountedPte.compared = 0

    for _ in range(2):
        for pte in ptes:
            assert drive(w.rmap._link(word, 0, pmap, pte))

    assert word.state == (0, len(ptes))
    assert list(word.derived) == ptes
    assert CountedPte.compared <= 3 * len(ptes)


@pytest.mark.parametrize("steps", range(0, 60, 3))
def test_a_page_that_the_shortcut_has_busied_becomes_no_table_under_it(steps: int) -> None:
    """A store to what is about to be a table: done by the CPU before that, or emulated after."""
    w = Walked(pages=0)
    at = w.guest.dmap(LEAF, 5)
    drive(w.kern.store(w.guest.dmap(LEAF), w.guest.data << 12 | LEAF_BITS))
    drive(pmap_remove(w.guest.own.pmap, at & ~PAGE_MASK, (at & ~PAGE_MASK) + PAGE_SIZE))
    store = w.host.on("kern", w.kern, w.kern.store(at, 77))
    walk = w.host.on("user", w.user, w.user.load(0))
    for _ in range(steps):
        if not store.done:
            w.host.execution.step(store.tid)

    w.host.execution.run(lambda tids: walk.tid if walk.tid in tids else tids[0], 10_000)

    assert w.word(LEAF, 5) == 77
    assert not w.dmap_writable(LEAF)
    assert w.guest.vmspace.pmap.pte(0).state
    assert any(args[1] == "soft" for _, name, args in w.host.events if name == "page.busy")


Operation = tuple[str, int, int, int]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["store", "cmpset", "swap", "or", "andn", "zero", "copy", "read"]),
        st.integers(2, 6),  # two tables, three pages
        st.sampled_from([0, 1, 300]),
        st.sampled_from([0, 4 << 12 | LEAF_BITS, 5 << 12 | LEAF_BITS, 7]),
    ),
    max_size=12,
)


async def apply(guest: Guest, user: Cpu, kern: Cpu, operation: Operation) -> object:
    what, pindex, idx, value = operation
    at = guest.dmap(pindex, idx)
    match what:
        case "store":
            return await kern.store(at, value)
        case "cmpset":
            return await kern.cmpset(at, 4 << 12 | LEAF_BITS, value)
        case "swap":
            return await kern.swap(at, value)
        case "zero":
            return await kern.zero_page(guest.dmap(pindex))
        case "copy":
            return await kern.copy_page(guest.dmap(pindex), guest.dmap(6))
        case "read":
            return await vm_fault(guest.vmspace.vm_map, idx % 3 * PAGE_SIZE, VM_PROT_READ)
        case _:
            return await kern.rmw(at, what, value)


@pytest.mark.slow
@settings(max_examples=25, derandomize=True, database=None)
@given(OPERATIONS)
def test_what_a_guest_sees_is_what_it_sees_on_other_policies(operations: list[Operation]) -> None:
    """Alone on its host it cannot tell: results, and all of memory, A and M included."""
    seen = []
    for policy in ("shadow", "pv_entry"):
        w = Walked(policy)
        results: list[object] = []
        for operation in operations:
            results.append(drive(apply(w.guest, w.user, w.kern, operation)))
            if policy == "pv_entry":  # which needs to be told; the others' contract
                drive(w.guest.inval(0, 16 * PAGE_SIZE))
        results.append([bytes(w.guest.image.memq[i].frame.words) for i in range(7)])
        seen.append(results)

    assert seen[0] == seen[1]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", "interlock-off"])
def test_a_search_ends(variant: str) -> None:
    """No schedule lets a store and a walk undo each other's work for ever."""
    decision = decide(load_litmus("W01", variant), "shadow")

    assert decision.verdict == "pass"
    assert decision.result.exhausted


CROSSED = """
[litmus]
name = "crossed"

[host]
cpus = 3

[va.a]
va = 0x400000

[va.b]
va = 0x600000

[[thread]]
name = "U"
kind = "user"
cpu = 0
run = ["await 1", "r0 = store a 0"]

[[thread]]
name = "V"
kind = "user"
cpu = 1
run = ["await 1", "r0 = store b 0"]

[[thread]]
name = "B"
kind = "guest"
cpu = 2
run = ["vset a 4 V|RW|U|A|M", "vset b 3 V|RW|U|A|M", "post 1"]
"""


@pytest.mark.slow
def test_two_stores_each_to_the_vpte_that_the_other_goes_by() -> None:
    """a shows the leaf table of b, and b that of a: one of the stores is done, and the other then
    has no VPTE. Neither waits for the other with what the other wants. (At random: vm_fault's own
    starts on a busy page can make the two walks chase each other for ever, on any policy.)"""
    litmus = read(tomllib.loads(CROSSED), Path("crossed.toml"))

    decision = decide(litmus, "shadow", strategy="pos", max_executions=30)

    assert decision.verdict == "pass"
    done, faulted = "0", str(FAULTED)
    assert set(decision.outcomes.states) == {
        (("U.r0", done), ("V.r0", faulted)),
        (("U.r0", faulted), ("V.r0", done)),
    }

"""The books of a run that goes on: looked at, they find what is put right before the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vkemu.executors.chance import seeded
from vkemu.launch.assemble import Machine, assemble
from vkemu.launch.outcome import Outcome, Recorder, conduct
from vkemu.launch.scenario import load
from vkprotocol.effects import CURTHREAD

from vkguest.kernel import Vkernel
from vkguest.vm.vm_map import VmMapEntry
from vkguest.vm.vm_page import PG_MAPPED, PG_WRITEABLE, PQ_NONE, VmPage
from vkguest.vm.vmspace import Vmspace
from vkhost.vm.vm_page import PG_MAPPED as HOST_PG_MAPPED


def wild(policy: str) -> Machine:
    return assemble(load("wild", (f"policy={policy}", "seed=1")))


def outcome(machine: Machine) -> Outcome:
    return conduct(machine.execution, Recorder(seeded(1)), 300_000, machine.finish)


@pytest.mark.parametrize("policy", ["vpte_list", "nested"])
def test_a_run_has_moments_in_which_nobody_is_in_the_kernel(policy: str) -> None:
    machine = wild(policy)

    assert outcome(machine).verdict == "pass"
    assert machine.quiet is not None
    assert min(machine.quiet.looks) >= 3, "the host, and each guest"


def test_an_account_that_is_wrong_for_a_while_is_found() -> None:
    """One entry too few in a pv list: by the end its process is gone, and nothing is left."""
    machine = wild("pv_entry")
    kernel = machine.kernel
    taken: list[Any] = []

    def falsify(*_: object) -> None:
        there = [m for m in kernel.pages.values() if m.flags.state & HOST_PG_MAPPED and m.pv_list]
        if not taken and there and there[0].pv_list.ptes:
            taken.append(there[0].pv_list.ptes.popitem())

    machine.oracle.tell("run.enter", falsify)
    error = outcome(machine).error

    assert "rmap_bytes" in str(error)


GUEST_FALSE: list[tuple[Callable[[Vkernel], object], str]] = [
    (lambda g: setattr(first(g).pmap, "resident_count", 1), "resident_count of"),
    (lambda g: setattr(first(g).pmap, "wired_count", 1), "wired_count of"),
    (lambda g: mapped(g).pv_list.clear(), "is listed with"),
    (lambda g: setattr(mapped(g), "flags", PG_MAPPED), "PG_WRITEABLE of"),
    (lambda g: setattr(mapped(g), "hold_count", 1), "hold_count of"),
    (lambda g: setattr(mapped(g), "wire_count", 1), "wire_count of"),
    (lambda g: setattr(mapped(g), "pindex", 77), "object of"),
    (lambda g: setattr(table(g), "hold_count", 99), "hold_count of"),
    (lambda g: first(g).pmap.pvs.popitem(), "pv_entries of"),
    (lambda g: setattr(first(g).vm_map.entries[0].object, "ref_count", 9), "references to"),
    (lambda g: writable(g).clear(), "is mapped, and in an entry"),
    (lambda g: setattr(writable(g)[0], "needs_copy", True), "is writable, and may be"),
    (lambda g: setattr(writable(g)[0], "offset", 77), "maps the page of its entry"),
    (lambda g: setattr(first(g).pmap, "pm_pml4", 1 << 39), "KVA entered by pmap_kenter"),
    (lambda g: g.swap.free.pop(), "swap slots"),
    (lambda g: g.vm_page_queues.free.pop(), "free frames"),
    (lambda g: setattr(free(g), "object", g.allproc), "which is free"),
    (lambda g: g.vm_page_queues.queues["active"].clear(), "pages on active"),
    (lambda g: setattr(mapped(g), "queue", PQ_NONE), "of an object, is on a queue"),
]


@pytest.mark.parametrize(
    ("falsify", "said"),
    [
        (lambda entry: setattr(entry, "protection", 1), "is writable, and may be"),
        (lambda entry: setattr(entry.ba, "offset", 1 << 30), "maps the page of"),
    ],
    ids=["protection", "offset"],
)
def test_what_the_host_maps_is_what_a_fault_would_find(
    falsify: Callable[[Any], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = wild("pv_entry")
    own = machine.kernel.procs[0].p_vmspace.vm_map
    check = machine.books.check_host

    def checked() -> None:
        check()
        if own.pmap.resident_count:
            for entry in own.entries:
                falsify(entry)
        check()

    monkeypatch.setattr(machine.books, "check_host", checked)

    assert said in str(outcome(machine).error)


def first(guest: Vkernel) -> Vmspace:
    return guest.allproc[0].vmspace


def table(guest: Vkernel) -> VmPage:
    return first(guest).pmap.pt_pages[min(first(guest).pmap.pt_pages)]


def mapped(guest: Vkernel) -> VmPage:
    """Writable, by some process."""
    pages = guest.vm_page_queues.pages.values()
    return next(m for m in pages if m.pv_list and m.flags & PG_WRITEABLE)


def writable(guest: Vkernel) -> list[VmMapEntry]:
    """The entries of a process, the first of which is mapped writable somewhere."""
    pv = mapped(guest).pv_list[0]
    vm = next(p.vmspace for p in guest.allproc if p.vmspace.pmap is pv.pmap)
    entry = next(e for e in vm.vm_map.entries if e.start <= pv.va < e.end)
    vm.vm_map.entries.remove(entry)
    vm.vm_map.entries.insert(0, entry)
    return vm.vm_map.entries


def free(guest: Vkernel) -> VmPage:
    return guest.vm_page_queues.pages[guest.vm_page_queues.free[0]]


@pytest.mark.parametrize(
    ("falsify", "said"), GUEST_FALSE, ids=lambda v: v if type(v) is str else ""
)
def test_each_account_of_a_guest_is_found(
    falsify: Callable[[Vkernel], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = wild("pv_entry")
    check = machine.books.check_guest

    def checked(guest: Vkernel) -> None:
        check(guest)  # as it is, it agrees
        before, CURTHREAD[0] = CURTHREAD[0], None
        try:
            falsify(guest)
        except (StopIteration, KeyError, ValueError):
            return  # there is no such thing yet
        finally:
            CURTHREAD[0] = before
        check(guest)

    monkeypatch.setattr(machine.books, "check_guest", checked)

    assert said in str(outcome(machine).error)


def test_without_books_nobody_looks() -> None:
    assert assemble(load("quickstart", ("checks=['dirty']",))).quiet is None

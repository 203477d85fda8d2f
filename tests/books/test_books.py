"""The books of a machine at rest agree; falsified, each account is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from vkemu.books import Books
from vkemu.books.guest import check_guest
from vkemu.executors.controlled import Execution
from vkemu.launch.assemble import assemble
from vkemu.launch.outcome import Recorder, conduct
from vkemu.launch.scenario import Guest, Host, Scenario
from vkemu.litmus.file import load_litmus
from vkemu.litmus.machine import Machine
from vkemu.litmus.verbs import run_before
from vkemu.oracle import Oracle, Violation

from vkguest.kernel import Vkernel
from vkhost.kernel import Kernel
from vkhost.rmap.bloom import Bloom
from vkhost.rmap.nested import Nested
from vkhost.rmap.notifier import Notifier
from vkhost.rmap.wired import Wired
from vkhost.vm.vm_page import PG_MAPPED, PG_SWAPPED, PG_WRITEABLE, VmPage

POLICIES = ("pv_entry", "vpte_list", "bloom", "notifier", "nested", "wired", "shadow", "hybrid")


def machine(policy: str) -> tuple[Machine, Books]:
    """A guest's page is mapped, accessed and in a TLB; every thread is still to begin."""
    oracle = Oracle()
    made = Machine(load_litmus("W12"), policy, Execution().spawn, oracle)
    made.set_up(run_before)
    return made, made.books(oracle.shadow)


@pytest.mark.parametrize("policy", POLICIES)
def test_at_rest_all_agrees(policy: str) -> None:
    machine(policy)[1].check()


def mapped(kernel: Kernel) -> VmPage:
    return next(
        m for m in kernel.pages.values() if m.flags.state & PG_MAPPED and m.wire_count.state == 0
    )


def unmapped(kernel: Kernel) -> VmPage:
    return next(m for m in kernel.pages.values() if m.object is None and m.queue)


def falsify(cell: str, by: int) -> Callable[[Kernel], None]:
    def falsified(kernel: Kernel) -> None:
        getattr(mapped(kernel), cell).state ^= by

    return falsified


def forget_mapping(kernel: Kernel) -> None:
    mapped(kernel).pv_list.ptes.popitem()


def forget_queue(kernel: Kernel) -> None:
    m = mapped(kernel)
    kernel.vmstats.queue_count[m.queue].state -= 1
    queue = kernel.queues.of_page(m)
    assert queue is not None
    queue.remove(m)


def lose_wire(kernel: Kernel) -> None:
    assert isinstance(kernel.rmap, Wired)
    kernel.rmap._owed[1] = [kernel.pages[0]]


def keep_in_filter(kernel: Kernel) -> None:
    assert isinstance(kernel.rmap, Bloom)
    next(iter(kernel.rmap._filters.values())).counters[0] += 1


def count_in_filter(kernel: Kernel) -> None:
    assert isinstance(kernel.rmap, Bloom)
    next(iter(kernel.rmap._filters.values())).state += 1


def keep_invalidating(kernel: Kernel) -> None:
    assert isinstance(kernel.rmap, Notifier)
    next(iter(kernel.rmap._mmus.values())).count.state = (0, 1)


def lose_user(kernel: Kernel) -> None:
    assert isinstance(kernel.rmap, Nested)
    (stage,) = kernel.rmap._stages.of.values()
    assert stage.pmap.users is not None
    stage.pmap.users.state.clear()


def share_unknown(kernel: Kernel) -> None:
    proc = kernel.procs[0]
    proc.lwps = [*proc.lwps, *proc.lwps][:2]
    proc.p_vmspace.pmap.multi = False


def add_to(path: str, by: int = 1) -> Callable[[Kernel], None]:
    """`path` from the kernel to a cell or a number."""

    def added(kernel: Kernel) -> None:
        *owners, name = path.split(".")
        owner: object = kernel
        for part in owners:
            value = getattr(owner, part)
            owner = next(iter(value.values())) if isinstance(value, dict) else value
        setattr(owner, name, getattr(owner, name) + by)

    return added


FALSE = [
    ("pv_entry", falsify("flags", PG_MAPPED), "PG_MAPPED of"),
    ("pv_entry", falsify("flags", PG_WRITEABLE), "PG_WRITEABLE of"),
    ("pv_entry", falsify("flags", PG_SWAPPED), "PG_SWAPPED of"),
    ("pv_entry", falsify("busy_count", 1), "is busy"),
    ("pv_entry", falsify("interlock_count", 1), "interlock_count of"),
    ("pv_entry", falsify("wire_count", 1), "v_wire_count"),
    ("pv_entry", add_to("vmstats.v_free_count.state"), "v_free_count"),
    ("pv_entry", add_to("vmstats.v_wire_count.state"), "v_wire_count"),
    ("pv_entry", add_to("swap.vm_swap_size.state"), "vm_swap_size"),
    ("pv_entry", add_to("pmaps.wired_count"), "wired_count of"),
    ("pv_entry", add_to("pmaps.directory.resident_count"), "resident_count of"),
    ("pv_entry", add_to("objects.resident_page_count"), "resident_page_count of"),
    ("pv_entry", add_to("objects.ref_count.state"), "ref_count of"),
    ("pv_entry", add_to("objects.paging_in_progress.state"), "paging_in_progress of"),
    ("pv_entry", add_to("rmap.bytes"), "rmap_bytes"),
    ("pv_entry", lambda k: unmapped(k).dirty.__setattr__("state", 1), "dirt of"),
    ("pv_entry", lambda k: unmapped(k).hold_count.__setattr__("state", 1), "hold_count of"),
    ("pv_entry", forget_mapping, "pv_entries of"),
    ("pv_entry", forget_queue, "of an object, is on a queue"),
    ("vpte_list", lambda k: k.objects["object.image"].backing_list.pop(), "backings of"),
    ("vpte_list", add_to("rmap.bytes"), "rmap_bytes"),
    ("bloom", keep_in_filter, "counters of the filter"),
    ("bloom", count_in_filter, "mappings of the filter"),
    ("notifier", keep_invalidating, "invalidations in progress"),
    ("nested", lose_user, "roots of"),
    ("wired", lose_wire, "wires owed"),
    ("pv_entry", share_unknown, "that threads share"),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "falsified", "account"), FALSE)
def test_a_false_account_is_found(
    policy: str, falsified: Callable[[Kernel], None], account: str
) -> None:
    made, books = machine(policy)
    falsified(made.kernel)

    with pytest.raises(Violation, match=account) as caught:
        books.check()

    assert caught.value.kind == "12 books"


def gone(frame: int) -> Sequence[int]:
    """The memory of a guest that has ended."""
    return ()


def test_the_books_of_a_guest() -> None:
    guest = Guest(name="g", memory="40p", workloads=("forkcow",))
    made = assemble(Scenario(name="books", host=Host(pages=200), policy="pv_entry", guest=(guest,)))
    outcome = conduct(made.execution, Recorder(lambda runnable: runnable[0]), 100_000, made.finish)
    assert outcome.verdict == "pass", outcome.error
    (vkernel,) = made.guests

    for falsified, account in GUEST_FALSE:
        undo = falsified(vkernel)
        with pytest.raises(Violation, match=account):
            check_guest(vkernel, gone)
        undo()
        check_guest(vkernel, gone)


def lost_frame(guest: Vkernel) -> Callable[[], object]:
    frame = guest.vm_page_queues.free.pop()
    return lambda: guest.vm_page_queues.free.append(frame)


def kept_hold(guest: Vkernel) -> Callable[[], object]:
    m = guest.vm_page_queues.pages[guest.vm_page_queues.free[0]]
    m.hold_count = 1
    return lambda: setattr(m, "hold_count", 0)


def kept_resident(guest: Vkernel) -> Callable[[], object]:
    pmap = guest.vmspaces.free[0].pmap
    pmap.resident_count = 1
    return lambda: setattr(pmap, "resident_count", 0)


def kept_kva(guest: Vkernel) -> Callable[[], object]:
    guest.kva.used[-1] = True
    return lambda: guest.kva.used.__setitem__(-1, False)


def lost_result(guest: Vkernel) -> Callable[[], object]:
    result = guest.results.pop(1)
    return lambda: guest.results.__setitem__(1, result)


GUEST_FALSE = [
    (lost_result, "programs that have ended"),
    (lost_frame, "free frames"),
    (kept_hold, "hold_count of"),
    (kept_resident, "resident_count of"),
    (kept_kva, "pages of KVA"),
]
